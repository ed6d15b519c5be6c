"""Rows to fine-tune on out of Parquet: only the columns that a form may have, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any

from fmtrain.artifacts.lines import Input
from fmtrain.artifacts.parquet import ERRORS, ROW, batches, bounded, first_line, open_table
from fmtrain.artifacts.parquet_pages import Bomb
from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.unpack import Allowance, Damage
from fmtrain.errors import InputError
from fmtrain.schema.rows import FOREIGN, forms_told
from fmtrain.schema.sources import Rows

_MOST = 1 << 40  # rows
_NAMED = 20  # columns in a message
_OURS = ("messages", "prompt", "chosen", "rejected")


def read_table(
    source: Source, data: Rows, spend: Callable[[int], bool], hashes: dict[str, str] | None = None
) -> Iterator[tuple[int, Any, str]]:
    """(number of the row from 1, the row, "") of every row, or why it is none; as `rows.read_rows`, which calls it.

    A column that no form has is there with None, so that a message can name it.
    """
    with Input(source) as file:
        try:
            table, pages, groups = open_table(file.file, _MOST)
            wanted, leaves, lists = _columns(table, data)
            if not leaves:
                names = ", ".join(table.schema_arrow.names[:_NAMED])
                raise InputError(f"{source.path} has the columns {names}. Expected one of the forms - {forms_told()}")
            blank = {name: None for name in table.schema_arrow.names if name not in wanted}
            allowance, number = Allowance(bytes_in=source.size), 0
            for group in range(len(groups)):
                for batch in batches(table, pages, group, leaves, lists):
                    allowance.take(cost := batch.nbytes + ROW * batch.num_rows)
                    more = spend(cost)
                    for item in bounded(batch, data.max_line_mb * 1_000_000):
                        number += 1
                        yield (number, *_row(item, blank))
                    if not more:
                        return
        except (Bomb, Damage, *ERRORS) as e:
            raise InputError(f"{source.path}: {first_line(e)}. Get the file again, or leave it out") from None
        if not is_url(source.path):  # what a hub has at a commit does not change
            digest = file.finish()
            if hashes is not None:
                hashes[source.name] = digest


def _columns(table: Any, data: Rows) -> tuple[set[str], list[str], frozenset[str]]:
    """The columns to read, their leaves, and those among these that hold lists."""
    keys = {*_OURS, data.prompt_key, data.completion_key, *(key for form in FOREIGN.values() for key in form.keys)}
    wanted = keys & set(table.schema_arrow.names)
    found = [table.schema.column(n) for n in range(len(table.schema))]
    leaves = [leaf for leaf in found if leaf.path in wanted or leaf.path.partition(".")[0] in wanted]
    lists = frozenset(leaf.path for leaf in leaves if leaf.max_repetition_level)
    return wanted, [leaf.path for leaf in leaves], lists


def _row(item: "dict[str, Any] | UnicodeDecodeError | int", blank: dict[str, None]) -> tuple[Any, str]:
    if isinstance(item, int):
        return None, f"line_too_long: {item} bytes, and data.max_line_mb allows less"
    if isinstance(item, UnicodeDecodeError):
        return None, f"not_utf8: {item.reason}"
    return item | blank, ""
