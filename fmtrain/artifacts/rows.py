"""The user's rows to fine-tune on, read for the plan and for the stage by the same rules and in the same words.

The plan must know which forms there are before anything runs, and answers at once: it looks at a fixed amount of each
file, whatever the files hold. What a usable row of a form is, is the examples stage's affair.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from fmtrain.artifacts.lines import Fault, Input, Line, read_lines
from fmtrain.artifacts.mistaken import START, mistaken
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.unpack import packing_of, unpack
from fmtrain.errors import InputError
from fmtrain.schema.rows import FOREIGN, form_of, forms_told, keys_of, no_form
from fmtrain.schema.sources import Rows

LOOKED_AT = 128 << 20  # bytes of content that the plan looks at, of all files together
_LEAST = 1 << 20  # of one file, while any are left
_CHUNK, _LINE = 1 << 12, 1 << 8  # bytes that a chunk and a line count as at least: what they cost to look at
_KEY_SETS = 1000  # different ones that are counted
_LOST = {"truncated": "is cut short", "damaged": "is damaged", "expands": "is not read to its end"}


@dataclass
class Tally:
    """What was met on the way to usable rows, for messages."""

    read: int = 0
    unfit: int = 0
    first: str = ""  # the first unfit row: its place and reason
    keys: Counter[str] = field(default_factory=Counter)

    def add_unfit(self, file: str, number: int, reason: str, row: Any) -> None:
        self.unfit += 1
        self.first = self.first or f"{file} line {number}: {reason}"
        if isinstance(row, dict) and ((keys := keys_of(row)) in self.keys or len(self.keys) < _KEY_SETS):
            self.keys[keys] += 1

    def found(self) -> str:
        seen = "; ".join(f"{n} rows with the keys {names}" for names, n in self.keys.most_common(3))
        return f"first {self.first}" + (f". Found: {seen}" if seen else "")

    def none_usable(self, files: list[Source], whole: bool = True) -> str:
        """What to say where no row of `files` is usable; unless `whole`, only the beginning was looked at."""
        named = files[0].path + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        if not self.unfit:
            lack = "hold no row at all" if whole else "begin with no row: blank lines, or one that does not end"
            return f"data.files ({named}) {lack}. Expected JSON lines of one of these forms - {forms_told()}"
        read = self.read if whole else f"first {self.read}"
        return (
            f"none of the {read} rows in {named} is usable; {self.found()}. Expected one of the forms - {forms_told()}"
        )


def read_rows(
    source: Source, data: Rows, spend: Callable[[int], bool] = lambda cost: True
) -> Iterator[tuple[int, Any, str]]:
    """(number of its line, the decoded row, "") of every row, or why it is none: (number, None, reason).

    Reading ends where `spend`, told what comes next costs, says no. InputError for what is no file of JSON lines, and
    for a damage: the file is to be mended, since nobody knows how many rows it takes.
    """
    if source.name.endswith(".parquet"):
        from fmtrain.artifacts.row_tables import read_table  # here: with it comes Arrow, which few runs need

        yield from read_table(source, data, spend)
        return
    packing = packing_of(source.name)
    with Input(source) as file:
        content = _sniffed(unpack(_spending(file.raw(), spend), packing), source, bool(packing))
        held: Line | Fault | None = None  # the last line: where reading stopped before the end it is none
        for line in read_lines(_spending(content, spend), source.name, data.max_line_mb * 1_000_000):
            spend(_LINE)
            if held is not None and (row := _row(held, source)):
                yield row
            held = line
        if spend(0):
            if held is not None and (row := _row(held, source)):
                yield row
            file.finish()


def _row(line: Line | Fault, source: Source) -> tuple[int, Any, str] | None:
    """The row on a line, None where it is blank."""
    if isinstance(line, Fault):
        if line.reason in _LOST:
            raise InputError(
                f"{source.path} {_LOST[line.reason]}: {line.detail}. Get the file again, or leave it out of data.files"
            )
        return line.line, None, f"{line.reason}: {line.detail}"
    number, _, text = line
    if not text.strip():
        return None
    try:
        return number, orjson.loads(text), ""  # refuses bad UTF-8, lone surrogates and NaN
    except orjson.JSONDecodeError as e:
        return number, None, f"not JSON: {str(e)[:120]}"


def _spending(chunks: Iterator[bytes], spend: Callable[[int], bool]) -> Iterator[bytes]:
    """The chunks until nothing is left to spend; the one that takes the last of it is still given."""
    while spend(0) and (chunk := next(chunks, None)) is not None:
        spend(max(len(chunk), _CHUNK))
        yield chunk


def _sniffed(content: Iterator[bytes], source: Source, packed: bool) -> Iterator[bytes]:
    begun = False
    for chunk in content:
        if chunk and not begun:
            begun = True
            if what := mistaken(chunk[:START], source.path, packed):
                raise InputError(f"{source.path} {what}")
        yield chunk


@dataclass
class Purse:
    """How much may still be looked at; once it is empty it stays so."""

    left: int

    def spend(self, cost: int) -> bool:
        self.left = max(0, self.left - cost)
        return self.left > 0


@dataclass(frozen=True)
class Look:
    """What the plan knows of the rows. `several`: there are two different ones or more; `whole`: all were looked at."""

    forms: frozenset[str]
    several: bool
    whole: bool


def look(data: Rows, files: list[Source], most: int = LOOKED_AT) -> Look:
    """Which forms the rows have; reading ends as soon as SFT and preference rows are seen, or `most` is spent.

    InputError with what was found instead where no row has a form.
    """
    tally, forms, different, whole = Tally(), set[str](), set[bytes](), True
    for n, source in enumerate(files):
        share = max(_LEAST, most // (len(files) - n))
        purse = Purse(min(share, most))
        begin = purse.left
        for number, row, reason in read_rows(source, data, purse.spend) if source.size else ():
            tally.read += 1
            if (form := form_of(row, data)) is None:
                tally.add_unfit(source.name, number, reason or no_form(row), row)
                continue
            forms.add(form)
            if len(different) < 2:
                different.add(orjson.dumps(row, default=repr))
            # forms of plug-ins are known by what is met of them, since their code belongs to what is made
            if "preference" in forms and len(forms) > 1 and len(different) > 1 and not FOREIGN:
                return Look(frozenset(forms), True, True)
        whole = whole and purse.left > 0
        most -= begin - purse.left
    if not forms:
        raise InputError(tally.none_usable(files, whole))
    return Look(frozenset(forms), len(different) > 1, whole)
