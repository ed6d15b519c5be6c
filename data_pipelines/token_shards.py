"""Writing a `tokens` artifact: flat little-endian shards of ids, document ends, `index.json` with a hash a shard.

Knows the format that fmtrain/data/shards.py reads; knows neither text nor tokenizers.
"""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from fmtrain.artifacts.storage import write_json


class ShardWriter:
    """Writes documents' ids to `00000.tokens`, `00001.tokens` ... and their ends to `00000.ends` ...

    A shard is closed before the document that would take it over `shard_tokens`; a longer document has one of its own.
    """

    def __init__(self, folder: Path, dtype: str, shard_tokens: int) -> None:
        self.folder, self.shard_tokens = folder, shard_tokens
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.shards: list[dict[str, Any]] = []  # of those closed: tokens, documents, sha256, ends_sha256
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._ends: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close_shard()

    @property
    def tokens(self) -> int:
        return sum(int(shard["tokens"]) for shard in self.shards) + (self._ends[-1] if self._ends else 0)

    @property
    def documents(self) -> int:
        return sum(int(shard["documents"]) for shard in self.shards) + len(self._ends)

    def add(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Append one document; `ids` is (tokens,)."""
        filled = self._ends[-1] if self._ends else 0
        if self._file is not None and filled + len(ids) > self.shard_tokens:
            self.close_shard()
            filled = 0
        if self._file is None:
            self._file = open(self.folder / f"{len(self.shards):05d}.tokens", "wb")  # noqa: SIM115 - closed below
        data = ids.astype(self.dtype, copy=False).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._ends.append(filled + len(ids))

    def close_shard(self) -> None:
        """The next document begins a new shard; what was added can be read from now on."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        ends = np.asarray(self._ends, dtype="<u8")
        (self.folder / f"{len(self.shards):05d}.ends").write_bytes(ends.tobytes())
        sums = {"sha256": self._hash.hexdigest(), "ends_sha256": hashlib.sha256(ends.tobytes()).hexdigest()}
        self.shards.append({"tokens": int(ends[-1]), "documents": len(ends), **sums})
        self._ends, self._hash = [], hashlib.sha256()

    def shard(self, number: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint64]]:
        """A closed shard's ids and document ends, memory-mapped."""
        ids = np.memmap(self.folder / f"{number:05d}.tokens", self.dtype, "r")
        return ids, np.memmap(self.folder / f"{number:05d}.ends", "<u8", "r")

    def write_index(self, *, vocab_size: int, bos: int, eos: int, tokenizer_sha256: str) -> None:
        index = {
            "dtype": self.dtype.name,
            "vocab_size": vocab_size,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "tokenizer_sha256": tokenizer_sha256,
            "total_tokens": self.tokens,
            "documents": self.documents,
            "shards": self.shards,
        }
        write_json(self.folder / "index.json", index)
