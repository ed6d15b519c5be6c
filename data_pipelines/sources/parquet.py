"""Parquet: row group by row group, only the columns that hold what we ask for, batch by batch in bounded memory.

A part is every n-th row group. A document's place is its row's number in the file. Page checksums are verified where
the file has them; a row group that does not decode is one fault for as many rows as are left of it, and the next is
read. What expands too far ends the file; a row over `data.max_line_mb` is a fault and never becomes a Python object.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO

import pyarrow
from pyarrow.parquet import ParquetFile

from data_pipelines.document import Document
from data_pipelines.lines import POSITION_BITS
from data_pipelines.sources.fields import Fields
from data_pipelines.sources.parquet_pages import Bomb, LargePage, Pages, footer
from data_pipelines.sources.records import RAW_BYTES, Damage, Fault, Unit
from fmtrain.artifacts.unpack import Allowance
from fmtrain.schema.sources import Keys

_BATCH = 64  # rows, or fewer where a page is large
_FOOTER = 16 << 20  # bytes; Arrow makes some forty times as many of them
_ROW = 64  # bytes that a row counts as beside its values: a null is free in the file and not in what is made of it
_ERRORS = (pyarrow.ArrowException, OSError)  # Arrow's word for most damage is OSError
_NO_VALUE = object()  # stands for a value that is none in Python: of no type that anything is made of


def read(data: Keys, unit: Unit, file: BinaryIO) -> Iterator[Document | Fault]:
    name, pages = unit.source.name, Pages(file)
    try:
        footer(file, _FOOTER)
        table = ParquetFile(pages, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
        groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
        if min(groups, default=0) < 0 or sum(groups) >> POSITION_BITS:
            raise Damage("damaged", f"no Parquet file: it says that it has {sum(groups)} rows")
    except (*_ERRORS, Damage) as e:
        if unit.offset == 0:
            detail = str(e) if isinstance(e, Damage) else f"no Parquet file: {_first_line(e)}"
            yield Fault(name, 0, 0, "damaged", detail)
        return
    columns, nested = _columns(table, data)
    fields, allowance = Fields(data, name), Allowance(bytes_in=unit.source.size)
    starts = [0, *accumulate(groups)]
    for group in range(unit.offset, len(groups), unit.stride):
        unit.alive()
        row = first = starts[group]
        try:
            for batch in _batches(table, pages, group, columns):
                unit.alive()
                allowance.take(batch.nbytes + _ROW * batch.num_rows)
                for item in bounded(batch, data.max_line_mb * 1_000_000):
                    yield record(fields, item, row, nested)
                    row += 1
        except (Bomb, Damage) as e:
            left = first + groups[group] - row + sum(groups[group + unit.stride :: unit.stride])
            yield Fault(name, 0, row, "expands", f"the rest, {left} rows: {e}", records=max(left, 1))
            return
        except _ERRORS as e:
            left = first + groups[group] - row
            detail = f"{left} rows of row group {group}: {_first_line(e)}"
            yield Fault(name, 0, row, "damaged", detail, records=max(left, 1))


def record(
    fields: Fields, item: "dict[str, Any] | UnicodeDecodeError | int", row: int, nested: dict[str, Any] | None = None
) -> Document | Fault:
    """What an item of `bounded` gives, at its place; `nested` is added to a row."""
    if isinstance(item, int):
        return Fault(fields.file, 0, row, "record_too_long", f"{item} bytes, more than data.max_line_mb allows")
    if isinstance(item, UnicodeDecodeError):
        return Fault(fields.file, 0, row, "not_utf8", f"{item.reason} in row {row}", item.object[:RAW_BYTES])
    return fields.document(item | nested if nested else item, 0, row, lambda: repr(item).encode()[:RAW_BYTES])


def _columns(table: Any, data: Keys) -> tuple[list[str], dict[str, Any]]:
    """The columns to read, and what stands for those that hold no single value: one row of a list may be endless."""
    keys = (data.url_key, data.date_key, data.license_key, data.content_type_key, data.source_key)
    wanted = {data.text_key, data.id_key, *keys}
    leaves = [table.schema.column(n) for n in range(len(table.schema))]
    single = [leaf.path for leaf in leaves if leaf.path in wanted and not leaf.max_repetition_level]
    nested: dict[str, Any] = {
        key: [] for key in wanted if any(f"{leaf.path}.".startswith(f"{key}.") for leaf in leaves)
    }
    return single, {key: value for key, value in nested.items() if key not in single}


def _batches(table: Any, pages: Pages, group: int, columns: list[str]) -> Iterator[Any]:
    """The record batches of a row group, begun anew with fewer rows each where a page asks for it."""
    rows, done = _BATCH, 0
    while True:
        pages.begin(table.metadata.row_group(group), columns, rows)
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
