"""What deduplication found, by row: which documents go, why, and in favour of which one that stays.

A keeper may itself go in a later step, by a near copy; then its own keeper, which stays, is named in its place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.order import GONE, REASONS, Bits, all_runs, rows_file
from data_pipelines.dedup.runs import Form, Records, Writer, gather, merge, runs_in, starts
from data_pipelines.schedule import Counts, Task

RESULT_STEP = "dedup-result"
ROW = np.dtype([("reason", "u1"), ("keeper", "<u8"), ("value", "<f4")])  # of every row; reason 0: the document stays
_GONE, _RESOLVED = "gone.rows", "resolved.u8"
_WINDOW = 1 << 20  # records written at a time
_BY_ROW = Form([("row", "<u8"), ("keeper", "<u8"), ("reason", "u1"), ("value", "<f4")], order=("row",))
_BY_KEEPER = Form([("keeper", "<u8")], order=("keeper",))


@dataclass(frozen=True)
class Largest:
    """The document that the most were removed in favour of: how many, and its row."""

    copies: int = 0
    row: int = 0


@dataclass(frozen=True)
class Result:
    """What was found. `gone` is a file of ROW for every row; `reasons[code]` names a reason of it."""

    gone: Path
    rows: int
    largest: Largest
    counts: dict[str, int]  # removed by each reason; candidates compared, pairs verified
    reasons: tuple[str, ...] = REASONS

    def open(self) -> npt.NDArray[Any]:
        """(rows,) of ROW, memory-mapped."""
        if not self.rows:
            return np.empty(0, ROW)
        return np.memmap(self.gone, ROW, "r")


@dataclass(frozen=True)
class ResultItem:
    """The steps that removed documents, and the last of their bits."""

    steps: tuple[str, ...]
    bits: str | None
    documents: int


def result_task(task: Task, item: ResultItem) -> Counts:
    """`gone.rows`, from the records of all steps."""
    gone = Bits.load(task.parts, item.bits) if item.bits else Bits.none(item.documents)
    rows = rows_file(task.parts)
    by_row, by_keeper = Writer(task.scratch, "row", _BY_ROW), Writer(task.scratch, "keeper", _BY_KEEPER)
    with by_row, by_keeper, open(task.scratch / _RESOLVED, "w+b") as resolved:
        for records in merge(all_runs(task.parts, item.steps), GONE):
            _resolve(records, gone, resolved)
            kept = records["keeper"]
            by_row.add(
                _BY_ROW.make(
                    row=gather(rows, "<u8", records["ordinal"]),
                    keeper=gather(rows, "<u8", kept),
                    reason=records["reason"],
                    value=records["value"],
                )
            )
            by_keeper.add(_BY_KEEPER.make(keeper=kept))
            task.tick(by_row.rows)
    copies, keeper = _largest(merge(sorted(task.scratch.glob("keeper.*")), _BY_KEEPER))
    row = int(gather(rows, "<u8", np.array([keeper]))[0]) if copies else 0
    with open(task.scratch / _GONE, "wb") as file:
        for records in merge(sorted(task.scratch.glob("row.*")), _BY_ROW):
            _put(file, records["row"], _dense(records))
            task.tick(by_row.rows)
        file.truncate(item.documents * ROW.itemsize)  # what is not written reads as zeros: the document stays
    for path in [*runs_in(task.scratch), task.scratch / _RESOLVED]:
        path.unlink()
    return {"removed": by_row.rows, "copies": copies, "row": row}


def _resolve(records: Records, gone: Bits, resolved: IO[bytes]) -> None:
    """Put for each keeper that is gone the one that stays, in place; note them in the file, by ordinal.

    A keeper is better than what it stands for, so that it was resolved before, in these records or in the file.
    """
    ordinals, keepers = np.ascontiguousarray(records["ordinal"]), np.ascontiguousarray(records["keeper"])
    for at in np.flatnonzero(gone.has(keepers)).tolist():
        keeper = keepers[at]
        if keeper >= ordinals[0]:
            keepers[at] = keepers[np.searchsorted(ordinals, keeper)]
        else:
            resolved.seek(8 * int(keeper))
            keepers[at] = np.frombuffer(resolved.read(8), "<u8")[0]
    records["keeper"] = keepers
    _put(resolved, ordinals, keepers)


def _put(file: IO[bytes], numbers: npt.NDArray[np.uint64], values: npt.NDArray[Any]) -> None:
    """Write values at their ascending numbers; what lies between them reads as zeros."""
    bounds = starts(numbers // np.uint64(_WINDOW))
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        at = (numbers[first:end] - numbers[first]).astype(np.int64)
        dense = np.zeros(int(at[-1]) + 1, values.dtype)
        dense[at] = values[first:end]
        file.seek(int(numbers[first]) * values.dtype.itemsize)
        file.write(dense.tobytes())


def _largest(ranges: Iterable[Records]) -> tuple[int, int]:
    """The greatest number of copies and the ordinal of the document, the best of several."""
    most, keeper = 0, 0
    for records in ranges:
        bounds = starts(records["keeper"])
        sizes = np.diff(bounds)
        at = int(np.argmax(sizes))
        if sizes[at] > most:
            most, keeper = int(sizes[at]), int(records["keeper"][bounds[at]])
    return most, keeper


def _dense(records: Records) -> npt.NDArray[Any]:
    """The records as ROW has them."""
    values = np.empty(len(records), ROW)
    for name in ROW.names or ():
        values[name] = records[name]
    return values
