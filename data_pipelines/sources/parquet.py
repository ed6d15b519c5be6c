"""Parquet: row group by row group, only the columns that hold what we ask for, batch by batch in bounded memory.

A part is every n-th row group. A document's place is its row's number in the file. Page checksums are verified where
the file has them; a row group that does not decode is one fault for as many rows as are left of it, and the next is
read.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow
from pyarrow.parquet import ParquetFile

from data_pipelines.document import Document
from data_pipelines.sources.fields import Fields
from data_pipelines.sources.records import RAW_BYTES, Fault, Unit
from fmtrain.schema.sources import Keys

_BATCH = 64  # rows
_ERRORS = (pyarrow.ArrowException, OSError)  # Arrow's word for most damage is OSError
_NO_VALUE = object()  # stands for a value that is none in Python: of no type that anything is made of


def read(data: Keys, unit: Unit, file: BinaryIO) -> Iterator[Document | Fault]:
    name = unit.source.name
    try:
        table = ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
        groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
    except _ERRORS as e:
        if unit.offset == 0:
            yield Fault(name, 0, 0, "damaged", f"no Parquet file: {_first_line(e)}")
        return
    columns = [data.text_key, data.id_key, data.url_key, data.date_key, data.license_key, data.source_key]
    fields = Fields(data, name)
    for group in range(unit.offset, len(groups), unit.stride):
        row = first = sum(groups[:group])
        try:
            for batch in table.iter_batches(_BATCH, row_groups=[group], columns=columns):
                unit.alive()
                for item in rows(batch):
                    if isinstance(item, UnicodeDecodeError):
                        yield Fault(name, 0, row, "not_utf8", f"{item.reason} in row {row}", item.object[:RAW_BYTES])
                    else:
                        yield fields.document(item, 0, row, lambda item=item: repr(item).encode()[:RAW_BYTES])  # type: ignore[misc]
                    row += 1
        except _ERRORS as e:
            left = first + groups[group] - row
            detail = f"{left} rows of row group {group}: {_first_line(e)}"
            yield Fault(name, 0, row, "damaged", detail, records=max(left, 1))


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
