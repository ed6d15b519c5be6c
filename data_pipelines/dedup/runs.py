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

Records = npt.NDArray[Any]  # (n,) of a form's dtype
BUDGET = 16 << 20  # bytes of records sorted at a time; memory is about four times that
_GATHERED = 1 << 14  # records read one by one before they are put together
_SUFFIX = ".run"
_FINE = 4  # splitters are off by at most a range's size over this
_SAMPLES = 1024  # of a run at most; ranges are then off by a thousandth of all rows at most


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
    for number in range(first, last):
        upper = splitters[number] if number < len(splitters) else None
        # no name for the unsorted records: they would be held while the sorted ones are worked on
        records = form.sort(np.concatenate([run.below(upper) for run in runs]))
        if len(records):
            yield records
        del records


def _splitters(runs: list["_Run"], step: int, target: int) -> npt.NDArray[Any]:
    """Keys, ascending, between which lie about `target` rows, from every `step`-th key of every run, or fewer.

    A sample stands for as many rows as it is taken from, so that runs of any length are sampled `_SAMPLES` times at
    most, and memory does not grow with the square of their number.
    """
    samples = np.concatenate([run.sample(step) for run in runs])
    order = np.argsort(samples, kind="stable")
    steps = np.repeat(np.array([run.step for run in runs], np.int64), [len(run.samples) for run in runs])[order]
    before = np.cumsum(steps)  # in place from here on: of 20 GB these are some millions, and the peak
    before -= steps  # rows, about, that stand before each sample
    before //= target
    ends = np.flatnonzero(before[1:] != before[:-1]) + 1
    return np.unique(samples[order[ends]])


@dataclass
class _Run:
    """One file, read from the front; only samples are memory-mapped, since mapped pages count as memory."""

    path: Path
    form: Form
    at: int = 0

    def __post_init__(self) -> None:
        self.rows = self.path.stat().st_size // self.form.dtype.itemsize
        self.samples = np.empty(0, self.form.dtype[self.form.key])
        self.step = 1

    def sample(self, step: int) -> npt.NDArray[Any]:
        """The keys of rows 0, step, 2 step ...; of a long run the steps are longer."""
        if self.rows:
            self.step = max(step, -(-self.rows // _SAMPLES))
            self.samples = np.array(np.memmap(self.path, self.form.dtype, "r")[:: self.step][self.form.key])
        return self.samples

    def below(self, upper: Any) -> Records:
        """The rows from here on whose key is less than `upper` (all where it is None); they are then read."""
        stop = self.rows
        if upper is not None:
            stop = min(self.rows, int(np.searchsorted(self.samples, upper)) * self.step)
        if stop <= self.at:
            return self.form.empty(0)
        records = np.fromfile(self.path, self.form.dtype, stop - self.at, offset=self.at * self.form.dtype.itemsize)
        if upper is not None:
            records = records[: int(np.searchsorted(records[self.form.key], upper))]
        self.at += len(records)
        return records

    def seek(self, key: Any) -> None:
        """Stand at the first row whose key is not less than `key`."""
        self.at = max(0, (int(np.searchsorted(self.samples, key)) - 1) * self.step)
        self.below(key)


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
