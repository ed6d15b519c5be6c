"""Megatron-LM's indexed datasets, `PREFIX.bin` and `PREFIX.idx`: written beside our shards, read into shards of ours.

The format is Megatron-LM's IndexedDataset (megatron/core/datasets/indexed_dataset.py), version 1, which GPT-NeoX and
Megatron-DeepSpeed share. All little-endian: `MMIDIDX\\0\\0`, version u64, code of the dtype u8, sequences u64,
documents u64 (their ends and a leading 0), then lengths i32 (sequences,), offsets in bytes i64 (sequences,), the
sequence at which each document begins i64 (documents,). The .bin holds the ids of all sequences and nothing else.

    python -m data_pipelines.megatron PREFIX.bin... OUT --tokenizer FOLDER
"""

import argparse
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from data_pipelines.folder import load, marks
from data_pipelines.token_shards import ShardWriter
from fmtrain import show
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import InputError

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_VERSION = 1
_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # 6 and 7 are floats, which no id is
_CODES = {"<u2": 8, "<i4": 4}
_COPIED_AT_ONCE = 1 << 20  # records


@dataclass(frozen=True)
class Dataset:
    """An indexed dataset, memory-mapped; a document is one sequence or several."""

    path: Path
    ids: npt.NDArray[np.integer[Any]]  # (tokens,)
    lengths: npt.NDArray[np.int32]  # (sequences,)
    offsets: npt.NDArray[np.int64]  # (sequences,), in bytes
    documents: npt.NDArray[np.int64]  # (documents + 1,), the first sequence of each

    def __iter__(self) -> Iterator[npt.NDArray[np.integer[Any]]]:
        """The ids of each document, (tokens,)."""
        for first, last in zip(self.documents[:-1], self.documents[1:], strict=True):
            parts = [self.sequence(i) for i in range(int(first), int(last))]
            yield parts[0] if len(parts) == 1 else np.concatenate([self.ids[:0], *parts])

    def sequence(self, number: int) -> npt.NDArray[np.integer[Any]]:
        start = int(self.offsets[number]) // self.ids.itemsize
        return self.ids[start : start + int(self.lengths[number])]


def read(path: Path) -> Dataset:
    """The dataset whose .bin, .idx or prefix is `path`; InputError says what is not as the format has it."""
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    index, data = (prefix.with_name(prefix.name + suffix) for suffix in (".idx", ".bin"))
    for file in (index, data):
        if not file.is_file():
            raise InputError(f"{file} is missing; a Megatron dataset is PREFIX.bin with PREFIX.idx beside it")
    size = index.stat().st_size
    with open(index, "rb") as f:
        head = f.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise InputError(f"{index} does not begin with MMIDIDX: expected an index of Megatron-LM's IndexedDataset")
    _, version, code, sequences, documents = _HEADER.unpack(head)
    if version != _VERSION or code not in _DTYPES:
        raise InputError(
            f"{index}: version {version}, dtype code {code}; expected version 1 and integers (code 1-5, 8)"
        )
    needed = _HEADER.size + sequences * 12 + documents * 8
    if size not in (needed, needed + sequences):  # a byte more a sequence: the modes of multimodal sets
        raise InputError(f"{index} has {size} bytes; {sequences} sequences and {documents} documents take {needed}")
    found = Dataset(
        index,
        _map(data, _DTYPES[code], 0, data.stat().st_size // np.dtype(_DTYPES[code]).itemsize),
        _map(index, "<i4", _HEADER.size, sequences),
        _map(index, "<i8", _HEADER.size + sequences * 4, sequences),
        _map(index, "<i8", _HEADER.size + sequences * 12, documents),
    )
    _check(found, data.stat().st_size)
    return found


def _map(path: Path, dtype: str, offset: int, count: int) -> npt.NDArray[Any]:
    return np.memmap(path, dtype, "r", offset, (count,)) if count else np.empty(0, dtype)


def _check(data: Dataset, size: int) -> None:
    """That documents cover the sequences in order and sequences lie inside the .bin."""
    ends = data.offsets + data.lengths.astype(np.int64) * data.ids.itemsize
    inside = not len(ends) or (
        int(ends.max()) <= size and int(data.offsets.min()) >= 0 and int(data.lengths.min()) >= 0
    )
    if not inside or (data.offsets % data.ids.itemsize).any():
        raise InputError(
            f"{data.path}: its sequences do not lie inside the {size} bytes of the .bin; one of both is cut"
        )
    ordered = len(data.documents) and data.documents[0] == 0 and data.documents[-1] == len(data.lengths)
    if not ordered or (np.diff(data.documents) < 0).any():
        raise InputError(f"{data.path}: its documents do not run from sequence 0 to {len(data.lengths)} in order")


class Writer:
    """Writes PREFIX.bin and PREFIX.idx, a sequence a document; uint16 or, for a larger vocabulary, int32.

    What the index needs of each document waits in a file: memory does not grow with the corpus.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self.prefix = prefix
        self.dtype = np.dtype("<u2" if dtype.itemsize == 2 else "<i4")

    def __enter__(self) -> Self:
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self._data: IO[bytes] = open(self._file(".bin"), "wb")
        self._lengths: IO[bytes] = open(self._file(".lengths"), "w+b")
        self._count = 0
        return self

    def _file(self, suffix: str) -> Path:
        return self.prefix.with_name(self.prefix.name + suffix)

    def add(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        self._data.write(ids.astype(self.dtype, copy=False).tobytes())
        self._lengths.write(struct.pack("<i", len(ids)))
        self._count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._data, self._lengths:
            if error is None:
                self._write_index()
        self._file(".lengths").unlink()

    def _write_index(self) -> None:
        with open(self._file(".idx"), "wb") as index:
            index.write(_HEADER.pack(_MAGIC, _VERSION, _CODES[self.dtype.str], self._count, self._count + 1))
            self._lengths.seek(0)
            shutil.copyfileobj(self._lengths, index)
            self._lengths.seek(0)
            offset = 0
            while part := self._lengths.read(4 * _COPIED_AT_ONCE):
                ends = offset + np.cumsum(np.frombuffer(part, "<i4").astype(np.int64) * self.dtype.itemsize)
                index.write(np.concatenate([[offset], ends[:-1]]).astype("<i8").tobytes())
                offset = int(ends[-1])
            for start in range(0, self._count + 1, _COPIED_AT_ONCE):
                index.write(np.arange(start, min(start + _COPIED_AT_ONCE, self._count + 1), dtype="<i8").tobytes())


def convert(paths: list[Path], out: Path, tokenizer: Path, shard_tokens: int) -> ShardWriter:
    """A tokens artifact in `out` of the documents of datasets, in the order of their names, ids as they are.

    InputError where an id is not one of the tokenizer's: the datasets were made with another.
    """
    loaded = load(tokenizer)
    vocab_size, around = loaded.get_vocab_size(), marks(tokenizer, loaded)
    out.mkdir(parents=True, exist_ok=True)
    with ShardWriter(out, "uint16" if vocab_size <= 1 << 16 else "uint32", shard_tokens) as writer:
        for dataset in map(read, sorted(paths)):
            for ids in dataset:
                if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
                    raise InputError(
                        f"{dataset.path}: ids from {ids.min()} to {ids.max()}, and the tokenizer in {tokenizer} has "
                        f"{vocab_size} tokens; give the one that the dataset was made with"
                    )
                writer.add(ids)
    if not writer.tokens:
        raise InputError(f"{', '.join(map(str, paths))}: no document with a token in it")
    writer.write_index(
        vocab_size=vocab_size,
        bos=around.end if around.start is None else around.start,
        eos=around.end,
        tokenizer_sha256=sha256_file(tokenizer / "tokenizer.json"),
    )
    return writer


@show.command
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.megatron", description="Megatron .bin/.idx in.")
    parser.add_argument("datasets", nargs="+", type=Path, help="PREFIX or PREFIX.bin, with PREFIX.idx beside it")
    parser.add_argument("out", type=Path, help="folder for the tokens artifact's files")
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of the tokenizer they were made with")
    parser.add_argument("--shard-tokens", type=int, default=4_000_000)
    args = parser.parse_args()
    writer = convert(args.datasets, args.out, args.tokenizer, args.shard_tokens)
    print(f"{writer.documents:,} documents, {writer.tokens:,} tokens in {len(writer.shards)} shards: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
