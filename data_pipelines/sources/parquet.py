"""Parquet: row group by row group, only the columns that hold what we ask for, batch by batch in bounded memory.

A part is every n-th row group. A document's place is its row's number in the file. Page checksums are verified where
the file has them; a row group that does not decode is one fault for as many rows as are left of it, and the next is
read. What expands too far ends the file; a row over `data.max_line_mb` is a fault and never becomes a Python object.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO

from data_pipelines.document import Document
from data_pipelines.lines import POSITION_BITS
from data_pipelines.sources.fields import Fields
from data_pipelines.sources.records import RAW_BYTES, Damage, Fault, Unit
from fmtrain.artifacts.parquet import ERRORS, ROW, batches, bounded, first_line, open_table
from fmtrain.artifacts.parquet_pages import Bomb
from fmtrain.artifacts.unpack import Allowance
from fmtrain.schema.sources import Keys


def read(data: Keys, unit: Unit, file: BinaryIO) -> Iterator[Document | Fault]:
    name = unit.source.name
    try:
        table, pages, groups = open_table(file, 1 << POSITION_BITS)
    except Damage as e:
        if unit.offset == 0:
            yield Fault(name, 0, 0, "damaged", str(e))
        return
    columns, nested = _columns(table, data)
    fields, allowance = Fields(data, name), Allowance(bytes_in=unit.source.size)
    starts = [0, *accumulate(groups)]
    for group in range(unit.offset, len(groups), unit.stride):
        unit.alive()
        row = first = starts[group]
        try:
            for batch in batches(table, pages, group, columns):
                unit.alive()
                allowance.take(batch.nbytes + ROW * batch.num_rows)
                for item in bounded(batch, data.max_line_mb * 1_000_000):
                    yield record(fields, item, row, nested)
                    row += 1
        except (Bomb, Damage) as e:
            left = first + groups[group] - row + sum(groups[group + unit.stride :: unit.stride])
            yield Fault(name, 0, row, "expands", f"the rest, {left} rows: {e}", records=max(left, 1))
            return
        except ERRORS as e:
            left = first + groups[group] - row
            detail = f"{left} rows of row group {group}: {first_line(e)}"
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
