"""Parquet: row group by row group, only the columns that hold what we ask for, batch by batch in bounded memory.

A part is every n-th row group. A document's place is its row's number in the file. Page checksums are verified where
the file has them; a row group that does not decode is one fault, and the next is read.
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
                for item in _rows(batch):
                    if isinstance(item, UnicodeDecodeError):
                        yield Fault(name, 0, row, "not_utf8", f"{item.reason} in row {row}", item.object[:RAW_BYTES])
                    else:
                        yield fields.document(item, 0, row, lambda item=item: repr(item).encode()[:RAW_BYTES])  # type: ignore[misc]
                    row += 1
        except _ERRORS as e:
            left = first + groups[group] - row
            yield Fault(name, 0, row, "damaged", f"{left} rows of row group {group}: {_first_line(e)}")


def _rows(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The rows as Python objects; one by one where a text among them is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError as e:
        if batch.num_rows == 1:
            yield e
            return
        for n in range(batch.num_rows):
            yield from _rows(batch.slice(n, 1))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
