"""Parquet in bounded memory, for the planner and the corpus wing: batches of a row group, rows no larger than a limit.

Page checksums are verified where the file has them; what expands too far is a Bomb before Arrow makes room for it.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow
from pyarrow.parquet import ParquetFile

from fmtrain.artifacts.parquet_pages import LargePage, Pages, footer
from fmtrain.artifacts.unpack import Damage

ROW = 64  # bytes that a row counts as beside its values: a null is free in the file and not in what is made of it
ERRORS = (pyarrow.ArrowException, OSError)  # Arrow's word for most damage is OSError
_BATCH = 64  # rows, or fewer where a page is large
_FOOTER = 16 << 20  # bytes; Arrow makes some forty times as many of them
_NO_VALUE = object()  # stands for a value that is none in Python: of no type that anything is made of


def open_table(file: BinaryIO, most: int) -> tuple[Any, Pages, list[int]]:
    """The file as Arrow reads it, and the rows of each of its row groups; Damage where it is none, or says that it has
    `most` rows or more."""
    pages = Pages(file)
    try:
        footer(file, _FOOTER)
        table = ParquetFile(pages, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
        groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
    except ERRORS as e:
        raise Damage("damaged", f"no Parquet file: {first_line(e)}") from None
    if min(groups, default=0) < 0 or sum(groups) >= most:
        raise Damage("damaged", f"no Parquet file: it says that it has {sum(groups)} rows")
    return table, pages, groups


def batches(
    table: Any, pages: Pages, group: int, columns: list[str], lists: frozenset[str] = frozenset()
) -> Iterator[Any]:
    """The record batches of a row group, begun anew with fewer rows each where a page asks for it.

    `columns` are leaves; `lists` are those of them of which a row may have several values.
    """
    rows, done = _BATCH, 0
    while True:
        pages.begin(table.metadata.row_group(group), columns, rows, lists)
        at = 0
        try:
            for batch in table.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                at += batch.num_rows
                if at > done:
                    yield batch.slice(batch.num_rows - (at - done))
                    done = at
            return
        except LargePage as e:
            rows = e.rows


def bounded(batch: Any, limit: int) -> Iterator["dict[str, Any] | UnicodeDecodeError | int"]:
    """The rows of a batch, or how many bytes one has that is over the limit."""
    if batch.nbytes <= limit:
        yield from rows(batch)
        return
    for n in range(batch.num_rows):
        one = batch.slice(n, 1)
        if one.nbytes > limit:
            yield one.nbytes
        else:
            yield from rows(one)


def rows(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The rows of a record batch or table as Python objects; one by one where there is one that is none as a whole."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError as e:
        if batch.num_rows == 1:
            yield e
        else:
            yield from _one_by_one(batch)
    except (OverflowError, LookupError, ValueError):  # a time that Python has no date for, a zone that nobody knows
        if batch.num_rows == 1:
            try:
                yield {name: _value(batch[name][0]) for name in batch.schema.names}
            except UnicodeDecodeError as e:
                yield e
        else:
            yield from _one_by_one(batch)


def _one_by_one(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    for n in range(batch.num_rows):
        yield from rows(batch.slice(n, 1))


def _value(scalar: Any) -> Any:
    """The value, or _NO_VALUE; of a nested one its parts."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (OverflowError, LookupError, ValueError):
        if isinstance(scalar, pyarrow.StructScalar):
            return {name: _value(inner) for name, inner in scalar.items()}
        return _NO_VALUE


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
