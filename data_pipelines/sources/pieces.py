"""Cutting a text into documents as it is read: `data.split`. Memory is bounded by the longest piece that may be.

Nothing is lost: the pieces of a text, one behind the other, are the text. A piece that is too long, or that holds bytes
that are no UTF-8, is a fault of its own, and the next one is read. Files and ids are the reader's affair.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

from data_pipelines.sources.records import RAW_BYTES, Damage
from fmtrain.schema.splits import Split

_PARTS = 1024  # joined as soon as they are so many: a line of a few letters takes ten times its size
_BOM = "\ufeff"
_ESCAPED = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte that is no UTF-8


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece: its number from 1, where it begins in the text's UTF-8 in bytes; its text, or why it is none."""

    number: int
    start: int
    text: str
    reason: str = ""  # not_utf8, record_too_long, or a damage of what it was read from
    detail: str = ""
    raw: bytes = b""  # of one that is no text, the first 64 KiB


def decoded(content: Iterator[bytes]) -> Iterator[str]:
    """The content as text; a byte that is no UTF-8 becomes a lone surrogate, which `pieces` makes a fault of."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in content:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", True)


def pieces(split: Split, text: Iterator[str], limit: int, *, is_file: bool = False) -> Iterator[Piece]:
    """The pieces of a text that comes in chunks; one over `limit` bytes is a fault. A byte order mark that a file
    begins with is no content."""
    held = _Held(limit)
    try:
        first = next(text, "")
        if is_file and first.startswith(_BOM):
            held.start, first = len(_BOM.encode()), first[1:]
        text = chain([first], text)
        for begins, part in _CUT[split.how](split, text, limit):
            if begins and (piece := held.take()):
                yield piece
            held.add(part)
    except Damage as e:
        yield held.lost(e)
        return
    if piece := held.take():
        yield piece


class _Held:
    """The piece that is being read: its parts, as long as they may still become one."""

    def __init__(self, limit: int) -> None:
        self.limit, self.number, self.start, self.size = limit, 1, 0, 0
        self.joined, self.parts = list[str](), list[str]()

    def add(self, part: str) -> None:
        if self.size <= self.limit:  # of what is too long already its beginning is enough
            self.parts.append(part)
            if len(self.parts) == _PARTS:
                self.joined.append("".join(self.parts))
                self.parts.clear()
        self.size += len(part) if part.isascii() else len(_encoded(part))

    def take(self) -> Piece | None:
        """What was added since the last time, as a piece; None where that is nothing."""
        if not self.size:
            return None
        text, at = "".join([*self.joined, *self.parts]), self.start
        piece = Piece(self.number, at, text)
        if self.size > self.limit:
            detail = f"a piece of {self.size} bytes, and data.max_line_mb allows {self.limit}"
            piece = Piece(self.number, at, "", "record_too_long", detail, self._raw())
        elif not text.isascii() and (bad := _ESCAPED.search(text)):
            detail = f"byte {len(_encoded(text[: bad.start()]))} of the piece is no UTF-8"
            piece = Piece(self.number, at, "", "not_utf8", detail, self._raw())
        self.number, self.start, self.size = self.number + 1, at + self.size, 0
        self.joined, self.parts = [], []
        return piece

    def lost(self, damage: Damage) -> Piece:
        return Piece(self.number, self.start, "", damage.reason, damage.detail, self._raw())

    def _raw(self) -> bytes:
        return _encoded("".join([*self.joined, *self.parts])[:RAW_BYTES])[:RAW_BYTES]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


Cuts = Iterator[tuple[bool, str]]  # parts of the text, and whether a piece begins with each


def _lines(text: Iterator[str], most: int) -> Iterator[tuple[str, bool]]:
    """The lines with their ends, and whether they are whole: one of over `most` characters comes in parts."""
    held: list[str] = []
    size, whole = 0, True
    for chunk in text:
        *ended, rest = chunk.split("\n")
        for line in ended:
            yield "".join([*held, line, "\n"]), whole
            held, size, whole = [], 0, True
        if rest:
            held.append(rest)
            size += len(rest)
        if size > most:
            yield "".join(held), False
            held, size, whole = [], 0, False
    if held:
        yield "".join(held), whole


def _by_paragraphs(split: Split, text: Iterator[str], most: int) -> Cuts:
    """Paragraphs stand between blank lines, and are joined until there are `number` characters."""
    size, blank, fresh = 0, False, True
    for line, _ in _lines(text, most):
        empty = line.isspace()
        begins = fresh and blank and not empty and size >= split.number
        yield begins, line
        size = len(line) + (0 if begins else size)
        blank, fresh = empty and (fresh or blank), line.endswith("\n")


def _by_lines(split: Split, text: Iterator[str], most: int) -> Cuts:
    lines = 0
    for line, _ in _lines(text, most):
        begins = lines == split.number
        yield begins, line
        lines = line.endswith("\n") + (0 if begins else lines)


def _by_pattern(split: Split, text: Iterator[str], most: int) -> Cuts:
    """A piece begins at every match; the pattern is shown one line at a time, with its end."""
    pattern = re.compile(split.pattern)
    for line, whole in _lines(text, most):
        starts = sorted({match.start() for match in pattern.finditer(line)}) if whole else []
        if not starts or starts[0]:
            yield False, line[: starts[0]] if starts else line
        for start, end in pairwise([*starts, len(line)] if starts else []):
            if start < end:
                yield True, line[start:end]


def _by_characters(split: Split, text: Iterator[str], most: int) -> Cuts:
    """At most `number` characters: up to a line's end or white space in the second half of them, where there is one."""
    held, at, number = "", 0, split.number
    for chunk in text:
        held, at = held[at:] + chunk, 0
        while len(held) - at > number:
            end = _end(held, at, number)
            yield True, held[at:end]
            at = end
    if held[at:]:
        yield True, held[at:]


def _end(text: str, at: int, number: int) -> int:
    """Where a piece that begins at `at` ends, of a text that is longer than it may be."""
    half, last = at + (number + 1) // 2, at + number
    if (line := text.rfind("\n", half - 1, last)) >= 0:
        return line + 1
    for end in range(last, half - 1, -1):
        if text[end - 1].isspace():
            return end
    return last


_CUT = {"paragraphs": _by_paragraphs, "lines": _by_lines, "chars": _by_characters, "regex": _by_pattern}
