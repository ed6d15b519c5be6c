"""Near copies: candidates that share a band, verified by exact Jaccard similarity, and who of them goes.

Everything is a sorted run of edges (worse, better), ordinals in the order of preference. An edge stands for similarity
only once it is verified. Documents are then walked from the best down, and one goes exactly when a document that stays
has a verified edge to it: similarity does not chain, and what is removed is `threshold` similar to its keeper.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.order import GONE, REASONS, Bits, Corpus, rows_file
from data_pipelines.dedup.runs import Form, Records, Writer, gather, merge, runs_in
from data_pipelines.dedup.signatures import BANDS, Shape, Signer
from data_pipelines.schedule import Counts, Task

SIGNATURES, CANDIDATES, VERIFIED = "dedup-minhash-signatures", "dedup-minhash-candidates", "dedup-minhash-verified"
EDGES = Form([("worse", "<u8"), ("better", "<u8")], order=("worse", "better"), unique=True)
SIMILAR = Form([("worse", "<u8"), ("better", "<u8"), ("value", "<f4")], order=("worse", "better"), unique=True)
BEST = 8  # of a band's documents that all others are compared with; each also with the one before it
_EDGES = 1 << 20  # made at a time
_CACHE = 16 << 20  # bytes of shingle sets that a task keeps; a pair needs two, and neighbours share them


@dataclass(frozen=True)
class NearItem:
    """What the tasks of verification and clustering go by."""

    corpus: Corpus
    shape: Shape
    threshold: float
    before: str | None
    documents: int


def candidates_task(task: Task, earlier: int) -> Counts:
    """Edges from one range of the bands: all pairs of up to BEST + 1 documents, near the best ones of more."""
    with Writer(task.scratch, f"{task.rank:05d}", EDGES) as runs:
        for records in merge(runs_in(task.parts / SIGNATURES), BANDS, part=task.rank, parts=task.world_size):
            for edges in _edges(records, earlier):
                runs.add(edges)
            task.tick(runs.rows)
    return {"edges": runs.rows}


def _edges(records: Records, earlier: int) -> Iterator[Records]:
    """The edges of sorted band records, some at a time."""
    edges = EDGES.empty(_EDGES)
    row = head = 0
    while row < len(records):
        n, row, head = _fill(
            records["band"], records["ordinal"], np.uint64(earlier), row, head, edges["worse"], edges["better"]
        )
        yield edges[:n]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(bands: Any, ordinals: Any, earlier: Any, row: int, head: int, worse: Any, better: Any) -> Any:
    """Edges from `row` on, whose band's first row is `head`, until there is no room; how many, and where to go on."""
    n = 0
    while row < len(bands) and n + BEST < len(worse):
        if bands[row] != bands[head]:
            head = row
        if ordinals[row] >= earlier:
            for other in range(head, min(row, head + BEST)):
                worse[n], better[n] = ordinals[row], ordinals[other]
                n += 1
            if row > head + BEST:
                worse[n], better[n] = ordinals[row], ordinals[row - 1]
                n += 1
        row += 1
    return n, row, head


class _Sets:
    """Sets of shingles by ordinal, read as they are asked for; the last used ones are kept."""

    def __init__(self, task: Task, item: NearItem) -> None:
        self.signer, self.rows = Signer(item.shape), rows_file(task.parts)
        self.held: OrderedDict[int, npt.NDArray[np.uint64]] = OrderedDict()
        self.size = 0
        self.wanted = 0  # row that the generator below reads next
        self.texts = (document["text"] for document in item.corpus.parts.fetch(self._wanted()))

    def _wanted(self) -> Iterator[int]:
        while True:
            yield self.wanted

    def read(self, ordinals: npt.NDArray[np.uint64]) -> None:
        """Have these sets at hand, if there is room for them: read in the order of rows."""
        missing = np.array([o for o in np.unique(ordinals).tolist() if o not in self.held], np.uint64)
        if len(missing):
            rows = gather(self.rows, "<u8", missing)
            for at in np.argsort(rows):
                self._read(int(missing[at]), int(rows[at]))

    def _read(self, ordinal: int, row: int) -> npt.NDArray[np.uint64]:
        self.wanted = row
        found = self.signer.shingle_set(next(self.texts))
        self.held[ordinal] = found
        self.size += found.nbytes
        while self.size > _CACHE and len(self.held) > 1:
            self.size -= self.held.popitem(last=False)[1].nbytes
        return found

    def __getitem__(self, ordinal: int) -> npt.NDArray[np.uint64]:
        found = self.held.get(ordinal)
        if found is None:
            return self._read(ordinal, int(gather(self.rows, "<u8", np.array([ordinal]))[0]))
        self.held.move_to_end(ordinal)
        return found


def verify_task(task: Task, item: NearItem) -> Counts:
    """The edges of one range of documents whose exact Jaccard similarity is `threshold` or more."""
    sets = _Sets(task, item)
    done = 0
    with Writer(task.scratch, f"{task.rank:05d}", SIMILAR) as runs:
        for records in merge(runs_in(task.parts / CANDIDATES), EDGES, part=task.rank, parts=task.world_size):
            for first in range(0, len(records), 256):
                edges = records[first : first + 256]
                sets.read(edges.view(np.uint64))
                values = np.empty(len(edges))
                for at, (worse, better) in enumerate(edges.tolist()):
                    values[at] = jaccard(sets[worse], sets[better], item.threshold)
                passed = values >= item.threshold
                some = edges[passed]
                runs.add(SIMILAR.make(worse=some["worse"], better=some["better"], value=values[passed]))
                done += len(edges)
                task.tick(done)
    return {"candidates": done, "verified": runs.rows}


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def jaccard(one: Any, other: Any, threshold: float) -> float:
    """Of two sorted arrays without repetition: shared over all; 0 as soon as `threshold` is out of reach."""
    n, m = len(one), len(other)
    if min(n, m) / max(n, m) < threshold:
        return 0.0
    i, j, shared = 0, 0, 0
    while i < n and j < m:
        a, b = one[i], other[j]
        shared += a == b
        i += a <= b
        j += b <= a
    return shared / (n + m - shared)


def cluster_task(task: Task, item: NearItem) -> Counts:
    """What goes, and `gone.bits` after it: one walk over the verified edges, a bit a document in memory."""
    gone = Bits.load(task.parts, item.before) if item.before else Bits.none(item.documents)
    code = REASONS.index("dedup.minhash")
    with Writer(task.scratch, f"{task.rank:05d}", GONE) as runs:
        for records in merge(runs_in(task.parts / VERIFIED), SIMILAR):
            worse, better = np.ascontiguousarray(records["worse"]), np.ascontiguousarray(records["better"])
            goes = np.zeros(len(records), np.bool_)
            _walk(worse, better, gone.octets, goes)
            some = records[goes]
            runs.add(GONE.make(ordinal=some["worse"], keeper=some["better"], reason=code, value=some["value"]))
            task.tick(runs.rows)
    gone.save(task.scratch)
    return {"removed": runs.rows}


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(worse: Any, better: Any, gone: Any, goes: Any) -> None:
    """Mark the edge by which each document goes: to the best that stays. All edges of one document come together."""
    for i in range(len(worse)):
        w, b = worse[i], better[i]
        if (gone[w >> np.uint64(3)] >> (w & np.uint64(7))) & np.uint8(1):
            continue  # gone by a better edge
        if not (gone[b >> np.uint64(3)] >> (b & np.uint64(7))) & np.uint8(1):
            gone[w >> np.uint64(3)] |= np.uint8(1) << (w & np.uint64(7))
            goes[i] = True
