"""The Python standard library as a corpus: a document a file, named by its path, grouped by top-level module."""

import codecs
import io
import tokenize
from collections.abc import Iterator

from data_pipelines.sources.records import Record, read_bytes
from fmtrain.run.stage import Source
from fmtrain.schema.corpus import Stdlib


def read(data: Stdlib, source: Source, stride: int, offset: int) -> Iterator[Record]:
    """The one record of a file, decoded by the encoding that it declares (PEP 263); line ends stay as they are."""
    content = b"".join(read_bytes(source))
    group = source.name.split("/", 1)[0].removesuffix(".py")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = codecs.decode(content, encoding)
        text.encode()  # a lone surrogate decodes from some encodings and fits in no file of ours
    except (SyntaxError, UnicodeError) as e:
        yield Record(source.name, "", group, source.name, 0, f"not text: {e}")
        return
    yield Record(source.name, text, group, source.name, 0)
