"""The order of preference among documents, and which of them are gone.

A document's ordinal is its place in that order, 0 the best: documents of the earlier corpus, then training before held
out, then by `keep`, ties by the hashes of id and text. It depends on the documents alone, not on how they were read.
Two files lead from ordinal to row and back. What a step removes is one record of GONE each, and one bit in `gone.bits`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.runs import Form, Records, Writer, merge, runs_in
from data_pipelines.parts import INDEX, Parts
from data_pipelines.schedule import Counts, Task

REASONS = ("", "dedup.exact", "dedup.normalised", "dedup.url", "dedup.minhash")  # by their code; 0: the document stays
KEPT = 1.0  # the value of a copy by an equal key
GONE = Form([("ordinal", "<u8"), ("keeper", "<u8"), ("reason", "u1"), ("value", "<f4")], order=("ordinal",))
ORDER = Form(
    [(name, "<u8") for name in ("key", "id", "high", "low", "file", "line", "row")],
    order=("key", "id", "high", "low", "file", "line"),
)
_BY_ROW = Form([("row", "<u8"), ("ordinal", "<u8")], order=("row",))
ORDER_STEP = "dedup-order"
_ROWS, _ORDINALS, _BITS = "rows.u8", "ordinals.u8", "gone.bits"
_CHUNK = 1 << 18  # records of the index at a time
_VALUE_BITS, _ID_BITS = np.uint64(40), np.uint64(22)


@dataclass(frozen=True)
class Corpus:
    """The documents that are deduplicated; the first `earlier` ordinals are of the earlier corpus."""

    parts: Parts
    earlier: int = 0


@dataclass(frozen=True)
class OrderItem:
    parts: Parts
    keep: str


def preference(index: Records, keep: str) -> npt.NDArray[np.uint64]:
    """(n,) the key that the order begins with, less is better: two bits of class, 40 of `keep`, 22 of the group's hash.

    The group is in it so that ranges of the key can be cut where all documents are equally good.
    """
    if keep == "longest":
        good = index["bytes"]
    elif keep == "newest":
        good = np.maximum(index["date"], 0).astype(np.uint64)
    else:
        bits = np.nan_to_num(index["score"], nan=-np.inf).astype("<f4").view("<u4")
        good = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    most = np.uint64((1 << 40) - 1)
    kind = np.where(index["earlier"], 0, np.where(index["heldout"], 2, 1)).astype(np.uint64)
    value = most - np.minimum(good, most)
    key: npt.NDArray[np.uint64] = kind << (_VALUE_BITS + _ID_BITS)
    key |= (value << _ID_BITS) | (index["group"] >> (np.uint64(64) - _ID_BITS))
    return key


def order_runs_task(task: Task, item: OrderItem) -> Counts:
    """Sorted runs of one rank's documents."""
    earlier = 0
    with Writer(task.scratch, f"{task.rank:05d}", ORDER) as runs:
        for first, index in _index(item.parts, task.rank):
            earlier += int(index["earlier"].sum())
            runs.add(
                ORDER.make(
                    key=preference(index, item.keep),
                    id=index["group"],
                    high=index["text"][:, 0],
                    low=index["text"][:, 1],
                    file=index["file"],
                    line=index["line"],
                    row=np.arange(first, first + len(index)),
                )
            )
    return {"documents": runs.rows, "earlier": earlier}


def order_task(task: Task, source: str) -> Counts:
    """The two files, from the runs of all ranks."""
    done = 0
    with open(task.scratch / _ROWS, "wb") as rows, Writer(task.scratch, "row", _BY_ROW) as runs:
        for records in merge(runs_in(task.parts / source), ORDER):
            records["row"].tofile(rows)
            runs.add(_BY_ROW.make(row=records["row"], ordinal=np.arange(done, done + len(records))))
            done += len(records)
            task.tick(done)
    with open(task.scratch / _ORDINALS, "wb") as ordinals:
        for records in merge(runs_in(task.scratch), _BY_ROW):
            records["ordinal"].tofile(ordinals)
            task.tick(done)
    for path in runs_in(task.scratch):
        path.unlink()
    return {"documents": done}


def _index(parts: Parts, rank: int) -> Iterator[tuple[int, Records]]:
    """The first row and the index records of each chunk of a rank."""
    for first in range(int(parts.base[rank]), int(parts.base[rank + 1]), _CHUNK):
        start = first - int(parts.base[rank])
        yield first, np.fromfile(parts.path(rank, "index"), INDEX, _CHUNK, offset=start * INDEX.itemsize)


def rows_file(folder: Path) -> Path:
    """Ordinal -> row, 8 bytes each."""
    return folder / ORDER_STEP / _ROWS


def chunks(
    folder: Path, corpus: Corpus, rank: int, before: str | None
) -> Iterator[tuple[Records, npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """A rank's documents in order, a chunk at a time: index records, ordinals, and which of them are still there."""
    gone = Bits.load(folder, before) if before else None
    for first, index in _index(corpus.parts, rank):
        ordinals = np.fromfile(folder / ORDER_STEP / _ORDINALS, "<u8", len(index), offset=8 * first)
        yield index, ordinals, np.ones(len(index), np.bool_) if gone is None else ~gone.has(ordinals)


class Bits:
    """A bit for every document, by ordinal, set where it is gone; whole in memory, 125 MB for 10^9 documents."""

    def __init__(self, octets: npt.NDArray[np.uint8]) -> None:
        self.octets = octets

    @classmethod
    def none(cls, documents: int) -> "Bits":
        return cls(np.zeros((documents + 7) // 8, np.uint8))

    @classmethod
    def load(cls, folder: Path, step: str) -> "Bits":
        return cls(np.fromfile(folder / step / _BITS, np.uint8))

    def save(self, folder: Path) -> None:
        self.octets.tofile(folder / _BITS)

    def has(self, ordinals: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        bits = self.octets[ordinals >> 3] >> (ordinals & 7).astype(np.uint8)
        return np.asarray(bits & 1, np.bool_)

    def set(self, ordinals: npt.NDArray[Any]) -> None:
        np.bitwise_or.at(self.octets, ordinals >> 3, np.uint8(1) << (ordinals & 7).astype(np.uint8))


@dataclass(frozen=True)
class MarkItem:
    """Steps whose GONE runs are set in the bits that `before` left."""

    documents: int
    before: str | None
    removed: str


def mark_task(task: Task, item: MarkItem) -> Counts:
    """`gone.bits` after a step."""
    gone = Bits.load(task.parts, item.before) if item.before else Bits.none(item.documents)
    marked = 0
    for records in merge(runs_in(task.parts / item.removed), GONE):
        gone.set(records["ordinal"])
        marked += len(records)
        task.tick(marked)
    gone.save(task.scratch)
    return {"removed": marked}


def all_runs(folder: Path, steps: Sequence[str]) -> list[Path]:
    return [path for step in steps for path in runs_in(folder / step)]
