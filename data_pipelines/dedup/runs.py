"""Sorted runs on disk and their merge by ranges of a key: the one primitive that all deduplication is made of.

A run is a file of fixed-size records, sorted. A task writes as many as its records fill (`Writer`); `merge` hands all
runs' records over in order, a range at a time, so that memory is a few times `BUDGET` whatever the corpus, and so that
records of one key always come together. It knows nothing of documents.

    form = Form([("key", "<u8"), ("ordinal", "<u8")], order=("key", "ordinal"))
    with Writer(task.scratch, f"{task.rank:05d}", form) as runs:     # in each task of one step
        runs.add(records)
    for records in merge(runs_in(task.parts / "step"), form, part=task.rank, parts=task.world_size):   # in the next
        ...
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fmtrain.errors import StoreError

Records = npt.NDArray[Any]  # (n,) of a form's dtype
BUDGET = 16 << 20  # bytes of records sorted at a time; memory is about four times that
_GATHERED = 1 << 14  # records read one by one before they are put together
_SUFFIX = ".run"
_FINE = 4  # splitters are off by at most a range's size over this
_SAMPLES = 1024  # of a run at most
_WEIGHED = 1 << 18  # samples that splitters are chosen from, of all runs together, about
_GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly, however many


class Form:
    """What the records of a run are: a dtype, and the fields that they are sorted by, all of unsigned integers.

    The first field of `order` is the key, which no two ranges share: let it have many values. `unique` records that are
    equal in all fields of `order` are written and merged once (any of them).
    """

    def __init__(self, fields: list[tuple[str, str]], order: tuple[str, ...], unique: bool = False) -> None:
        self.dtype = np.dtype(fields)
        self.order = order
        self.unique = unique

    @property
    def key(self) -> str:
        return self.order[0]

    def empty(self, size: int) -> Records:
        return np.empty(size, self.dtype)

    def make(self, **columns: Any) -> Records:
        """Records of columns of equal length, some of them scalars; every field must be named."""
        records = self.empty(next(len(c) for c in columns.values() if np.ndim(c)))
        assert set(columns) == set(self.dtype.names or ())
        for name, column in columns.items():
            records[name] = column
        return records

    def sort(self, records: Records) -> Records:
        """A sorted copy, unique where the form says so."""
        order = np.argsort(records[self.key])
        again = equal_to_last(records[self.key][order])
        tied = again.copy()
        tied[:-1] |= again[1:]
        if len(self.order) > 1 and tied.any():
            # numpy sorts by several fields slowly; ties are few, and sorted among themselves they keep their places
            some = order[tied]
            order[tied] = some[np.lexsort([records[f][some] for f in reversed(self.order)])]
        records = records.take(order)  # many times faster than by brackets
        if not self.unique or not again.any():
            return records
        for field in self.order[1:]:
            again &= equal_to_last(records[field])
        return records[~again]


def equal_to_last(column: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(n,) whether an element equals the one before it."""
    again = np.zeros(len(column), np.bool_)
    np.equal(column[1:], column[:-1], out=again[1:])
    return again


def starts(*columns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(groups + 1,) where groups of rows that are equal in all sorted columns begin; the last is the number of rows."""
    size = len(columns[0])
    if not size:
        return np.zeros(1, np.int64)
    same = equal_to_last(columns[0])
    for column in columns[1:]:
        same &= equal_to_last(column)
    return np.append(np.flatnonzero(~same), size).astype(np.int64)


class Writer:
    """Collects records and writes a sorted run whenever `budget` bytes (BUDGET) of them have come together.

    Files are `folder/NAME.NUMBER.run`: let every task have its own name. `rows` counts the records written.
    """

    def __init__(self, folder: Path, name: str, form: Form, budget: int | None = None) -> None:
        self.folder, self.name, self.form = folder, name, form
        self.rows = 0
        self._held = form.empty(max(1, (budget or BUDGET) // form.dtype.itemsize))
        self._size = 0
        self._files = 0

    def add(self, records: Records) -> None:
        assert records.dtype == self.form.dtype
        while len(records):
            room = len(self._held) - self._size
            piece, records = records[:room], records[room:]
            self._held[self._size : self._size + len(piece)] = piece
            self._size += len(piece)
            if self._size == len(self._held):
                self.flush()

    def flush(self) -> None:
        if not self._size:
            return
        records = self.form.sort(self._held[: self._size])
        self._size = 0
        records.tofile(self.folder / f"{self.name}.{self._files:05d}{_SUFFIX}")
        self._files += 1
        self.rows += len(records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.flush()


def runs_in(folder: Path) -> list[Path]:
    """All runs of a step's folder."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def rows_in(paths: Sequence[Path], form: Form) -> int:
    return sum(path.stat().st_size for path in paths) // form.dtype.itemsize


def merge(
    paths: Sequence[Path], form: Form, *, budget: int | None = None, part: int = 0, parts: int = 1
) -> Iterator[Records]:
    """The records of all runs in the form's order, range by range of the key; of `parts` tasks' work the `part`-th.

    A range is of about `budget` bytes (BUDGET) or, where one key has more records than that, of that key alone. Ranges
    that turn out empty are left out.
    """
    runs = [_Run(path, form) for path in paths]
    rows = sum(run.rows for run in runs)
    if not rows:
        return
    target = max(1, min((budget or BUDGET) // form.dtype.itemsize, -(-rows // parts)))
    splitters = _splitters(runs, max(1, target // (_FINE * len(runs))), target)
    ranges = len(splitters) + 1
    first, last = part * ranges // parts, (part + 1) * ranges // parts
    if first < last and first > 0:
        for run in runs:
            run.seek(splitters[first - 1])
    pile = _Pile(form, target)
    for number in range(first, last):
        upper = splitters[number] if number < len(splitters) else None
        pile.clear()
        for run in runs:
            run.below(upper, pile)
        records = form.sort(pile.records)
        if len(records):
            yield records
        del records


def _splitters(runs: list["_Run"], step: int, target: int) -> npt.NDArray[Any]:
    """Keys, ascending, between which lie about `target` rows, from every `step`-th key of every run, or fewer.

    A sample stands for as many rows as it is taken from, so that runs of any length are sampled `_SAMPLES` times at
    most, and of many runs only some samples are weighed. Where every run spans all keys, samples at the same places
    of each would be near the same keys, with no splitter to be had between: each run's begin at a place of their own.
    """
    held = sum(len(run.sample(step, number * _GOLDEN % 1)) for number, run in enumerate(runs))
    thinned = -(-held // _WEIGHED) or 1
    weighed = [run.samples[number % thinned :: thinned] for number, run in enumerate(runs)]
    samples = np.concatenate(weighed)
    order = np.argsort(samples, kind="stable")
    steps = np.repeat([run.step * thinned for run in runs], [len(some) for some in weighed])[order]
    before = (np.cumsum(steps) - steps) // target  # rows, about, that stand before each sample, in ranges
    ends = np.flatnonzero(before[1:] != before[:-1]) + 1
    return np.unique(samples[order[ends]])


class _Pile:
    """Records of many runs put together, in memory that the next range uses again: thousands of small arrays a range
    would leave the heap in pieces, and peak at twice the size when they are joined."""

    def __init__(self, form: Form, rows: int) -> None:
        self.size, self._usual = 0, rows + rows // 4
        self._held = form.empty(self._usual)

    def clear(self) -> None:
        """Empty it; the memory of a range far larger than the others is not kept."""
        self.size = 0
        if len(self._held) > 2 * self._usual:
            self._held = np.empty(self._usual, self._held.dtype)

    @property
    def records(self) -> Records:
        return self._held[: self.size]

    def room(self, rows: int) -> Records:
        """Where the next `rows` go; what of them is to stay is added to `size`."""
        end = self.size + rows
        if end > len(self._held):
            held = np.empty(end + end // 4, self._held.dtype)
            held[: self.size] = self.records
            self._held = held
        return self._held[self.size : end]


@dataclass
class _Run:
    """One file, read from the front, never memory-mapped: mapped pages count as memory."""

    path: Path
    form: Form
    at: int = 0

    def __post_init__(self) -> None:
        self.rows = self.path.stat().st_size // self.form.dtype.itemsize
        self.samples = np.empty(0, self.form.dtype[self.form.key])
        self.first, self.step = 0, 1  # row of the first sample, rows from one to the next

    def sample(self, step: int, phase: float) -> npt.NDArray[Any]:
        """The keys of every `step`-th row, the first one `phase` steps in; of a long run the steps are longer."""
        self.step = max(step, -(-self.rows // _SAMPLES))
        self.first = int(phase * self.step)
        numbers = np.arange(self.first, self.rows, self.step)
        self.samples = gather(self.path, self.form.dtype, numbers)[self.form.key].copy()
        return self.samples

    def below(self, upper: Any, pile: _Pile) -> None:
        """Pile up the rows from here on whose key is less than `upper` (all where it is None); they are then read."""
        stop = self.rows
        if upper is not None:
            stop = min(self.rows, self.first + int(np.searchsorted(self.samples, upper)) * self.step)
        if stop <= self.at:
            return
        records = pile.room(stop - self.at)
        with open(self.path, "rb") as file:  # buffered: it reads on where the system gives less than asked
            file.seek(self.at * self.form.dtype.itemsize)
            read = file.readinto(records.view(np.uint8).data)
        if read != records.nbytes:
            had = self.rows * self.form.dtype.itemsize
            raise StoreError(
                f"{self.path} is damaged: {self.path.stat().st_size} bytes of the {had} that it had; "
                f"remove {self.path.parent} and run the same command again"
            )
        size = len(records) if upper is None else int(np.searchsorted(records[self.form.key], upper))
        pile.size += size
        self.at += size

    def seek(self, key: Any) -> None:
        """Stand at the first row whose key is not less than `key`."""
        self.at = max(0, self.first + (int(np.searchsorted(self.samples, key)) - 1) * self.step)
        self.below(key, _Pile(self.form, self.step))


def gather(path: Path, dtype: npt.DTypeLike, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The records of those numbers in a plain file of records; read one by one, so that no page stays mapped."""
    kind = np.dtype(dtype)
    size, found = kind.itemsize, np.empty(len(numbers), kind)
    with open(path, "rb", buffering=0) as file:
        for first in range(0, len(numbers), _GATHERED):
            some = numbers[first : first + _GATHERED].tolist()
            read = b"".join([os.pread(file.fileno(), size, n * size) for n in some])
            found[first : first + len(some)] = np.frombuffer(read, kind)
    return found
