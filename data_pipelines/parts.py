"""The form that a corpus in the making has on disk, and how its documents are found again.

The first step leaves, for each task RANK, in the folder `read`:

    RANK.kept.jsonl   a kept document a line: id, text, group, source and what else is known of it
    RANK.index        a record of INDEX for each, in the same order: what later steps need to know without its text

A document is known by its row: its number when all ranks' documents stand one after the other. Nothing here grows with
the corpus but files: records and texts are read where they are asked for.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

STEP = "read"
_BLOCK = 256  # index records read at a time, where one row follows less than
_NEAR = 16  # rows after another
# file: number of the input file, in the order of names; line: the record's place in it; offset, size: of the line in
# kept.jsonl; bytes: of the text in UTF-8; source: number of the source's name; text, normal: 128 bits of the hash of
# the text as it is, and without case, digits, punctuation and white space; url: 64 bits of the normalised address, 0
# without one; id, group: 64 bits of their hash; date: seconds since 1970, 0 unknown; score: of the classifier, 0
# without one; heldout: set apart for evaluation; earlier: of the corpus that this one is deduplicated against.
INDEX = np.dtype(
    [
        ("file", "<u4"),
        ("source", "<u4"),
        ("line", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("bytes", "<u8"),
        ("text", "<u8", (2,)),
        ("normal", "<u8", (2,)),
        ("url", "<u8"),
        ("id", "<u8"),
        ("group", "<u8"),
        ("date", "<i8"),
        ("score", "<f4"),
        ("heldout", "?"),
        ("earlier", "?"),
        ("spare", "<u2"),
    ]
)


@dataclass(frozen=True)
class Parts:
    """The documents that `tasks` read tasks left under `folder` (a scheduler's `parts`)."""

    folder: Path
    tasks: int

    def path(self, rank: int, what: str) -> Path:
        return self.folder / STEP / f"{rank:05d}.{what}"

    @cached_property
    def base(self) -> npt.NDArray[np.int64]:
        """(tasks + 1,) the first row of each rank, and the number of all rows."""
        sizes = [self.path(rank, "index").stat().st_size // INDEX.itemsize for rank in range(self.tasks)]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def rows(self) -> int:
        return int(self.base[-1])

    def index(self, rank: int) -> npt.NDArray[Any]:
        """(documents of the rank,) of INDEX, memory-mapped, read-only."""
        if self.base[rank] == self.base[rank + 1]:
            return np.empty(0, INDEX)
        return np.memmap(self.path(rank, "index"), INDEX, "r")

    def place(self, row: int) -> tuple[int, int]:
        """Rank and number within the rank of a row."""
        rank = int(np.searchsorted(self.base, row, side="right")) - 1
        return rank, row - int(self.base[rank])

    def documents(self, rank: int) -> Iterator[dict[str, Any]]:
        """The rank's documents in order, decoded."""
        with open(self.path(rank, "kept.jsonl"), "rb", buffering=1 << 20) as lines:
            yield from map(orjson.loads, lines)

    def fetch(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The documents of `rows`, in that order, decoded; cheapest where rows ascend."""
        with ExitStack() as files:
            opened: dict[int, tuple[int, int]] = {}  # rank -> file descriptors of its documents and its index
            block, first, last = np.empty(0, INDEX), 0, -2  # index records at hand, the first one's row; the last row
            for row in map(int, rows):
                if not first <= row < first + len(block):
                    rank, number = self.place(row)
                    if rank not in opened:
                        both = (self.path(rank, what).open("rb") for what in ("kept.jsonl", "index"))
                        kept, index = (files.enter_context(file).fileno() for file in both)
                        opened[rank] = kept, index
                    kept, index = opened[rank]
                    # read, not mapped: mapped pages count as memory, and would be as many as the corpus has documents
                    size = _BLOCK if 0 < row - last < _NEAR else 1
                    block = np.frombuffer(os.pread(index, size * INDEX.itemsize, number * INDEX.itemsize), INDEX)
                    first, sizes, offsets = row, block["size"].tolist(), block["offset"].tolist()
                last = row
                yield orjson.loads(os.pread(kept, sizes[row - first], offsets[row - first]))
