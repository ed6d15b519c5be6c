"""The Python standard library as a corpus: a document a file, named by its path, grouped by top-level module."""

import codecs
import io
import tokenize
from collections.abc import Iterator

from data_pipelines.document import Document
from data_pipelines.sources.records import RAW_BYTES, Fault, OnHash, Unit
from data_pipelines.sources.stream import Input
from fmtrain.schema.sources import Stdlib

SOURCE, LICENCE = "stdlib", "PSF-2.0"


def read(data: Stdlib, unit: Unit, on_hash: OnHash) -> Iterator[Document | Fault]:
    """The one document of a file, decoded by the encoding that it declares (PEP 263); line ends stay as they are."""
    name = unit.source.name
    with Input(unit.source, alive=unit.alive) as file:
        content = b"".join(file.raw())
        on_hash(name, file.finish())
    group = name.split("/", 1)[0].removesuffix(".py")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = codecs.decode(content, encoding)
        text.encode()  # a lone surrogate decodes from some encodings and fits in no file of ours
    except (SyntaxError, UnicodeError) as e:
        yield Fault(name, 0, 0, "not_text", str(e), content[:RAW_BYTES])
        return
    yield Document(name, text, group, SOURCE, name, 0, {"license": LICENCE})
