"""Reads the `tokens` artifact: flat little-endian token shards, document ends, `index.json`. Memory-mapped.

Knows the format and rows of a fixed length; knows neither the tokenizer nor what is trained on the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmtrain.artifacts.storage import read_json
from fmtrain.errors import ConfigError, InputError, StoreError

_DTYPES: dict[str, np.dtype[np.unsignedinteger]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_COUNTED_AT_ONCE = 1 << 22  # tokens; bincount makes an int64 copy of what it counts


@dataclass(frozen=True)
class TokenIndex:
    """`index.json`, checked against the files beside it."""

    dtype: np.dtype[np.unsignedinteger]
    vocab_size: int
    bos_token_id: int
    eos_token_id: int
    tokenizer_sha256: str
    total_tokens: int
    documents: int
    shards: list[NDArray[np.unsignedinteger]]  # each (tokens,), memory-mapped


def read_index(folder: Path) -> TokenIndex:
    """Open a tokens artifact; StoreError says which file disagrees with the index and how."""
    data = read_json(folder / "index.json")
    try:
        dtype = _DTYPES[data["dtype"]]
        counts = [(int(shard["tokens"]), int(shard["documents"])) for shard in data["shards"]]
        index = TokenIndex(
            dtype=dtype,
            vocab_size=int(data["vocab_size"]),
            bos_token_id=int(data["bos_token_id"]),
            eos_token_id=int(data["eos_token_id"]),
            tokenizer_sha256=str(data["tokenizer_sha256"]),
            total_tokens=int(data["total_tokens"]),
            documents=int(data["documents"]),
            shards=[_open(folder / f"{i:05d}.tokens", dtype, n) for i, (n, _) in enumerate(counts)],
        )
    except (KeyError, TypeError, ValueError) as e:
        raise StoreError(
            f"{folder / 'index.json'} is damaged: {type(e).__name__} {e}; remove this version, and the same command "
            "makes it again"
        ) from None
    for i, (_, documents) in enumerate(counts):
        _size(folder / f"{i:05d}.ends", documents * 8, f"{documents} document ends of 8 bytes")
    sums = [("total_tokens", index.total_tokens, 0), ("documents", index.documents, 1)]
    for name, total, column in sums:
        found = sum(pair[column] for pair in counts)
        if found != total:
            raise StoreError(f"{folder / 'index.json'} is damaged: {name} is {total}, its shards sum to {found}")
    return index


def joined(folders: Sequence[Path]) -> TokenIndex:
    """The shards of several folders as those of one; ConfigError where two were made with different tokenizers."""
    first, *others = [read_index(folder) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if other.tokenizer_sha256 != first.tokenizer_sha256:
            raise ConfigError(
                f"{folders[0]} and {folder} were made with different tokenizers (SHA-256 {first.tokenizer_sha256} and "
                f"{other.tokenizer_sha256}); make both with one"
            )
    return replace(
        first,
        total_tokens=first.total_tokens + sum(o.total_tokens for o in others),
        documents=first.documents + sum(o.documents for o in others),
        shards=[*first.shards, *(shard for o in others for shard in o.shards)],
    )


def _open(path: Path, dtype: np.dtype[np.unsignedinteger], tokens: int) -> NDArray[np.unsignedinteger]:
    _size(path, tokens * dtype.itemsize, f"{tokens} tokens of {dtype.itemsize} bytes")
    return np.memmap(path, dtype=dtype, mode="r") if tokens else np.empty(0, dtype)  # an empty file cannot be mapped


def _size(path: Path, expected: int, what: str) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; index.json names it, with {what}") from None
    if found != expected:
        raise StoreError(f"{path} has {found} bytes; index.json says {what}: {expected}")


class TokenRows:
    """Rows of `sequence_length` targets: documents run on, also from one shard into the next (packing=concat).

    Row i is tokens [i * sequence_length, (i + 1) * sequence_length] of the stream, the last one being the next row's
    first: every token but the stream's first is a target once. What does not fill the last row is left out. Several
    folders are one stream, in their order.
    """

    def __init__(self, folders: Sequence[Path], sequence_length: int) -> None:
        self.index = joined(folders)
        self.sequence_length = sequence_length
        self._starts = np.cumsum([0] + [len(s) for s in self.index.shards])  # (shards + 1,)
        self._len = max(0, (self.index.total_tokens - 1) // sequence_length)
        if self._len == 0:
            raise InputError(
                f"{', '.join(map(str, folders))} has {self.index.total_tokens} tokens, fewer than one row of "
                f"{sequence_length} + 1; give more text, or a smaller sequence_length"
            )
        self.counts = {
            "rows": self._len,
            "tokens": self.index.total_tokens,
            "left_over_tokens": self.index.total_tokens - 1 - self._len * sequence_length,
        }

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Row i, (sequence_length + 1,)."""
        if not 0 <= i < self._len:
            raise IndexError(f"row {i} of {self._len}")
        return self._tokens(i * self.sequence_length, (i + 1) * self.sequence_length + 1)

    def _tokens(self, start: int, end: int) -> NDArray[np.int64]:
        row = np.empty(end - start, np.int64)
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        done = 0
        while done < len(row):
            at = start + done - int(self._starts[shard])
            piece = self.index.shards[shard][at : at + len(row) - done]
            row[done : done + len(piece)] = piece
            done += len(piece)
            shard += 1
        return row


def token_counts(folder: Path) -> NDArray[np.int64]:
    """How often each token occurs in the artifact, (vocab,): the unigram baseline."""
    index = read_index(folder)
    counts = np.zeros(index.vocab_size, np.int64)
    for i, shard in enumerate(index.shards):
        for start in range(0, len(shard), _COUNTED_AT_ONCE):
            found = np.bincount(shard[start : start + _COUNTED_AT_ONCE], minlength=index.vocab_size)
            if len(found) > index.vocab_size:
                raise StoreError(
                    f"{folder}/{i:05d}.tokens is damaged: token {len(found) - 1} with a vocabulary of "
                    f"{index.vocab_size}"
                )
            counts += found
    return counts
