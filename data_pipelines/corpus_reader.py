"""Reading a corpus artifact: its documents, in the order they are stored (by id), one at a time or in batches.

Knows the corpus artifact's layout; knows nothing of how it was made or what its documents become.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fmtrain.errors import StoreError

Split = Literal["train", "heldout"]
_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 4_000_000  # an encoder holds some 100 bytes a token while a batch is in flight


@dataclass(frozen=True)
class Document:
    """A kept document; `group` is what the held-out split was drawn by, e.g. a top-level module."""

    id: str
    text: str
    group: str


def documents(corpus: Path, split: Split) -> Iterator[Document]:
    """The documents of one split of a corpus artifact, sorted by id; never more than one line in memory."""
    for path in sorted((corpus / split).glob("*.jsonl.gz")):
        try:
            with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    row = json.loads(line)
                    yield Document(row["id"], row["text"], row["group"])
        except (EOFError, zlib.error, gzip.BadGzipFile, ValueError, KeyError) as e:
            raise StoreError(f"{path} is damaged ({type(e).__name__}: {e}); remove the artifact and run again") from e


def batches(source: Iterator[Document]) -> Iterator[list[str]]:
    """Texts in batches of at most 256, and of at most 4 M characters where that is more than one text."""
    batch: list[str] = []
    size = 0
    for document in source:
        if batch and (len(batch) == _BATCH_DOCUMENTS or size + len(document.text) > _BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(document.text)
        size += len(document.text)
    if batch:
        yield batch
