"""What becomes of a text before somebody looks at it: inert on a terminal, inert in Markdown.

Documents, ids, file names, settings, logs, libraries' messages and what a model writes come from anywhere, and a
terminal and a renderer obey what stands in them. `terminal()` puts `printable` between this process and its terminal,
so that no `print` need think of it; a Markdown template renders with `finalize=show.inert`.
"""

import contextlib
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# C0 but tab and newline, DEL and C1 (a terminal's commands); marks, overrides and isolates of direction, line and
# paragraph separators, invisible operators, BOM, annotations and tags (a reader sees another text than there is);
# surrogates (a file name that is no UTF-8). Joiners stay: scripts and emoji are written with them.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_GONE = (errno.EIO, errno.ENXIO)  # of a write to a terminal that was closed
_ERASE_LINE = "\r\x1b[2K"


def printable(text: str) -> str:
    """`text` with all that a terminal would obey, or that shows as another text, as an escape: ESC is `\\u001b`.

    The escapes are JSON's, so that JSON stays what it was; a byte that was no UTF-8 is `\\xff`. Doing it twice changes
    nothing.
    """
    return _ACTIVE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not read
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Inert(str):
    """Markdown that may stand in a document as it is."""

    __slots__ = ()


def markdown(text: str) -> Inert:
    """`text` as one code span on one line, in a table or out of it: there a renderer obeys nothing but the fence.

    A pipe ends a table's cell even there, so it is an escape.
    """
    line = " ".join(printable(text).replace("|", "\\u007c").split())
    if not line:
        return Inert("(empty)")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in (line[0], line[-1]) else ""
    return Inert(f"{fence}{pad}{line}{pad}{fence}")


def fenced(text: str, language: str = "") -> Inert:
    """Lines as a code block that nothing in them can end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Inert(f"{fence}{language}\n{printable(text)}\n{fence}")


def inert(value: Any) -> Any:
    """`finalize` of a Markdown template: every text that is not Inert already becomes a code span; numbers stay."""
    return markdown(value) if isinstance(value, str) and not isinstance(value, Inert) else value


def visible(value: Any) -> Any:
    """`finalize` of an HTML template, whose autoescape leaves what is invisible."""
    return type(value)(printable(value)) if isinstance(value, str) else value


class Terminal(io.TextIOBase):
    """A text stream that writes `printable` text to another one, in whatever encoding that has.

    `gone` is why nothing can be written any more, where its terminal was closed: what is printed then is dropped, for
    the work need not end with who looked at it. A closed pipe is an error as ever.
    """

    def __init__(self, under: TextIO | None) -> None:
        self.under, self.gone = under, ""
        if isinstance(under, io.TextIOWrapper):
            under.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.under, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.under is not None and not self.gone and self.under.isatty()

    def fileno(self) -> int:
        if self.under is None:
            raise io.UnsupportedOperation("there is no stream")
        return self.under.fileno()

    def write(self, text: str) -> int:
        self._write(printable(text))
        return len(text)

    def write_exactly(self, text: str) -> None:
        """`text` as it is to a file or a pipe; to a terminal `printable`."""
        self._write(printable(text) if self.isatty() else text)

    def erase_line(self) -> None:
        """Begin the line anew, where this is a terminal."""
        if self.isatty():
            self._write(_ERASE_LINE)

    def flush(self) -> None:
        self._write("", flush=True)

    def _write(self, text: str, flush: bool = False) -> None:
        if self.under is None or self.gone:
            return
        try:
            if text:
                self.under.write(text)
            if flush:
                self.under.flush()
        except OSError as e:
            if e.errno not in _GONE or not stat.S_ISCHR(os.fstat(self.under.fileno()).st_mode):
                raise
            self.gone = f"the terminal was closed ({e.strerror})"
            null = os.open(os.devnull, os.O_WRONLY)  # what is buffered still, and what children print, goes there
            os.dup2(null, self.under.fileno())
            os.close(null)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """For the block everything that this process prints, on either stream, passes a Terminal; the one of stdout."""
    before = sys.stdout, sys.stderr
    out, err = (stream if isinstance(stream, Terminal) else Terminal(stream) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
