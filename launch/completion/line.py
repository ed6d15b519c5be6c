"""A line of a shell as far as it is typed. Knows quotes and backslashes, and nothing of what is expanded."""

import re
from dataclasses import dataclass

_SPECIAL = re.compile(r"([^\w@%+=:,./~^-])")


@dataclass(frozen=True)
class Typed:
    """Whole words, and the one that is being typed.

    The shell puts what it is answered in the place of `current[kept:]` alone: bash begins a word anew behind `=` and
    `:`, at `@` (which it keeps), and behind an open quote.
    """

    words: list[str]
    current: str
    kept: int = 0
    quoted: bool = False

    def answer(self, candidate: str, final: bool) -> str:
        """What to give the shell for a candidate that begins with `current`; a final one ends the word."""
        rest = candidate[self.kept :]
        return rest if self.quoted else _SPECIAL.sub(r"\\\1", rest) + " " * final


def read(line: str, replaced: int) -> Typed:
    """`line` up to the cursor, of which the shell will replace the last `replaced` characters."""
    words, current, quote = _split(line)
    end = line[len(line) - replaced :]
    part = end.removeprefix(quote) if quote else _split(end)[1]
    return Typed(words, current, len(current) - len(part) if current.endswith(part) else 0, bool(quote))


def _split(line: str) -> tuple[list[str], str, str]:
    """Whole words, the one that is being typed, and the quote that is still open in it."""
    words: list[str] = []
    current, begun, quote, escaped = "", False, "", False
    for letter in line:
        if escaped:
            current, escaped = current + letter, False
        elif letter == "\\" and quote != "'":
            begun = escaped = True
        elif quote:
            quote, current = ("", current) if letter == quote else (quote, current + letter)
        elif letter in "'\"":
            quote, begun = letter, True
        elif letter.isspace():
            if current or begun:
                words.append(current)
            current, begun = "", False
        else:
            current += letter
    return words, current, quote
