"""Reading a corpus artifact: its documents, in the order of the input, one at a time or in batches.

Knows the corpus artifact's layout; knows nothing of how it was made or what its documents become.
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import zstandard

from fmtrain.errors import StoreError

Split = Literal["train", "heldout"]
UNKNOWN_LICENSE = "unknown"  # as accounts name it
SPLITS: tuple[Split, ...] = ("train", "heldout")
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000  # an encoder holds some 100 bytes a token while a batch is in flight
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Document:
    """A kept document; `group` is what the held-out split was drawn by, `source` what it is accounted under."""

    id: str
    text: str
    group: str
    source: str = ""
    url: str = ""
    license: str = UNKNOWN_LICENSE


def documents(corpus: Path, split: Split) -> Iterator[Document]:
    """The documents of one split of a corpus artifact, as stored; never more than one line in memory."""
    for path in shards(corpus, split):
        yield from read_shard(path)


def shards(corpus: Path, split: Split) -> list[Path]:
    """The files of one split, in their order."""
    return sorted([*(corpus / split).glob("*.jsonl.gz"), *(corpus / split).glob("*.jsonl.zst")])


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of one file."""
    try:
        with open(path, "rb") as raw:
            for line in _lines(raw, path.suffix):
                row = orjson.loads(line)
                about = row.get("source", ""), row.get("url", ""), license_of(row)
                yield Document(row["id"], row["text"], row["group"], *about)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, ValueError, KeyError) as e:
        raise StoreError(f"{path} is damaged ({type(e).__name__}: {e}); remove the artifact and run again") from e


def license_of(row: dict[str, Any]) -> str:
    """What a stored document says of its licence."""
    return str(row.get("license") or UNKNOWN_LICENSE)


def _lines(raw: IO[bytes], suffix: str) -> Iterable[bytes]:
    return gzip.GzipFile(fileobj=raw) if suffix == ".gz" else io.BufferedReader(_Zst(raw), _CHUNK)


class _Zst(io.RawIOBase):
    """Frames of zstd as one stream; EOFError where the last is not whole, which the library's reader passes over."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._decompressor = raw, zstandard.ZstdDecompressor()
        self._frame, self._ready, self._packed = self._decompressor.decompressobj(), b"", b""
        self._whole = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            self._packed = self._packed or self._raw.read(_CHUNK)
            if not self._packed:
                if not self._whole:
                    raise EOFError("the file ends in the middle of a zstd frame")
                return 0
            self._ready, self._packed = self._frame.decompress(self._packed), b""
            self._whole = self._frame.eof
            if self._whole:
                self._packed, self._frame = self._frame.unused_data, self._decompressor.decompressobj()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def batches(source: Iterable[Document]) -> Iterator[list[Document]]:
    """Batches of at most 256 documents, and of at most 1 M characters where that is more than one document."""
    batch: list[Document] = []
    size = 0
    for document in source:
        if batch and (len(batch) == BATCH_DOCUMENTS or size + len(document.text) > BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.text)
    if batch:
        yield batch
