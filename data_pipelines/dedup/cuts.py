"""Parts of documents that go: how steps hand them on, by row, and how the writing step applies them.

Knows rows, ranks and code points; which parts are copies is the affair of spans.py and substring.py.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.order import Corpus, chunks
from data_pipelines.dedup.result import ROW
from data_pipelines.dedup.runs import BUDGET, Form, Records, Writer, merge, runs_in, starts
from data_pipelines.parts import Parts

STEP = "dedup-cuts"
# Code points start to end of a row's text are a copy of what stands in the row `keeper`.
CUT = Form([("row", "<u8"), ("start", "<u4"), ("end", "<u4"), ("keeper", "<u8")], order=("row", "start", "end"))
_LEAST = 1 << 16  # bytes that a rank's writer holds


class PerRank:
    """Writers of runs, one for each rank of rows: `records` must have a field `row`."""

    def __init__(self, folder: Path, name: str, form: Form, parts: Parts) -> None:
        self.folder, self.name, self.form, self.parts = folder, name, form, parts
        self.budget = max(_LEAST, BUDGET // max(parts.tasks, 1))
        self.rows = 0  # records added
        self._writers: dict[int, Writer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, tb)

    def add(self, records: Records) -> None:
        self.rows += len(records)
        ranks = np.searchsorted(self.parts.base, records["row"], side="right") - 1
        for rank in np.unique(ranks).tolist():
            if rank not in self._writers:
                writer = Writer(self.folder, f"{rank:05d}.{self.name}", self.form, self.budget)
                self._writers[rank] = self._stack.enter_context(writer)
            self._writers[rank].add(records[ranks == rank])


def runs_of(folder: Path, rank: int) -> list[Path]:
    """The runs that PerRank writers left for a rank."""
    return [path for path in runs_in(folder) if path.name.startswith(f"{rank:05d}.")]


def by_row(paths: Sequence[Path], form: Form) -> Iterator[tuple[int, Records]]:
    """Rows in ascending order, and each one's records."""
    for records in merge(paths, form):
        bounds = starts(records["row"])
        for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield int(records["row"][first]), records[first:end]


def together(folder: Path, steps: list[str], rank: int) -> Iterator[tuple[int, dict[str, Records]]]:
    """Rows in ascending order, and each one's records of CUT by step."""
    streams = {step: by_row(runs_of(folder / f"dedup-{step}", rank), CUT) for step in steps}
    heads = {step: head for step, stream in streams.items() if (head := next(stream, None))}
    while heads:
        row = min(row for row, _ in heads.values())
        yield row, {step: records for step, (at, records) in heads.items() if at == row}
        for step in [step for step, (at, _) in heads.items() if at == row]:
            if following := next(streams[step], None):
                heads[step] = following
            else:
                del heads[step]


@dataclass(frozen=True)
class Text:
    """A document that document deduplication has left."""

    row: int
    ordinal: int
    heldout: bool
    text: str


def texts(folder: Path, corpus: Corpus, gone: Path, rank: int) -> Iterator[Text]:
    """A rank's documents that stay, in order; those of the earlier corpus too."""
    first = int(corpus.parts.base[rank])
    for index, ordinals, _ in chunks(folder, corpus, rank, None):
        verdicts = np.fromfile(gone, ROW, len(index), offset=first * ROW.itemsize)
        stays = np.flatnonzero(verdicts["reason"] == 0)
        heldout = index["heldout"] & ~index["earlier"]
        for number, document in zip(stays.tolist(), corpus.parts.fetch(stays + first), strict=True):
            yield Text(first + number, int(ordinals[number]), bool(heldout[number]), document["text"])
        first += len(index)


def ordinals(folder: Path, corpus: Corpus, rank: int, rows: Iterable[int]) -> Iterator[int]:
    """The ordinals of a rank's rows that are asked for in ascending order."""
    every = (number for _, some, _ in chunks(folder, corpus, rank, None) for number in some.tolist())
    at = int(corpus.parts.base[rank])
    for row in rows:
        yield next(itertools.islice(every, row - at, None))
        at = row + 1


def united(spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n, 2) starts and ends -> the same ground in disjoint spans, ascending; touching ones are one."""
    made = np.empty((len(spans), 2), np.int64)
    return made[: _united(np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1]), made)]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _united(start: Any, end: Any, made: Any) -> int:
    """Fill `made`; how many they are. Compiled, since a corpus asks for it once or twice a document."""
    n = 0
    for i in np.argsort(start):
        if n and start[i] <= made[n - 1, 1]:
            made[n - 1, 1] = max(made[n - 1, 1], end[i])
        else:
            made[n, 0], made[n, 1] = start[i], end[i]
            n += 1
    return n


def joined(text: str, spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Disjoint spans, those with nothing but white space between them made one."""
    far = [not text[end:start].isspace() for end, start in zip(spans[:-1, 1], spans[1:, 0], strict=True)]
    first = np.flatnonzero([True, *far])
    return np.stack([spans[first, 0], np.append(spans[first[1:] - 1, 1], spans[-1:, 1])], axis=1)


def without(text: str, spans: Iterable[Sequence[int]]) -> str:
    """The text but for disjoint, ascending spans of code points."""
    pieces, at = [], 0
    for start, end in spans:
        pieces.append(text[at:start])
        at = end
    return "".join([*pieces, text[at:]])


_SPAN = np.dtype([("start", "<u4"), ("end", "<u4")])


class CutsWriter:
    """Writes one rank's cuts, rows ascending: RANK.rows, a row for each span, and RANK.spans."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._rows = open(folder / f"{rank:05d}.rows", "wb")  # noqa: SIM115 - closed by __exit__
        self._spans = open(folder / f"{rank:05d}.spans", "wb")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._rows.close()
        self._spans.close()

    def add(self, row: int, spans: npt.NDArray[np.int64]) -> None:
        self._rows.write(np.full(len(spans), row, "<u8").tobytes())
        self._spans.write(spans.astype("<u4").tobytes())


@dataclass(frozen=True)
class Cuts:
    """What is cut from documents that stay; `folder` is where CutsWriter left the files of all ranks."""

    folder: Path
    parts: Parts

    def spans(self, row: int) -> list[tuple[int, int]]:
        """The spans of a row, disjoint and ascending, in code points of its text in `parts`."""
        rank, _ = self.parts.place(row)
        rows, spans = _open(self.folder, rank)
        first, end = np.searchsorted(rows, np.array([row, row + 1], np.uint64)).tolist()
        return [(int(start), int(stop)) for start, stop in spans[first:end].tolist()]

    def apply(self, row: int, text: str) -> str:
        """What stays of a row's text."""
        return without(text, self.spans(row))


@functools.lru_cache(maxsize=64)
def _open(folder: Path, rank: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[Any]]:
    rows, spans = folder / f"{rank:05d}.rows", folder / f"{rank:05d}.spans"
    if not rows.stat().st_size:
        return np.empty(0, np.uint64), np.empty(0, _SPAN)
    return np.memmap(rows, "<u8", "r"), np.memmap(spans, _SPAN, "r")
