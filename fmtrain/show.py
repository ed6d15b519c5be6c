"""What becomes of a text before somebody looks at it: inert on a terminal, inert in Markdown.

Documents, ids, file names, settings, logs, libraries' messages and what a model writes come from anywhere, and a
terminal and a renderer obey what stands in them. `terminal()` puts `printable` between this process and its terminal,
so that no `print` need think of it, and `command` is the frame of a small program that has it; a Markdown template
renders with `finalize=show.inert`, one of HTML with `finalize=show.visible`.
"""

import contextlib
import errno
import functools
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TextIO

from fmtrain import redact
from fmtrain.errors import ExitCode, FmtrainError

P = ParamSpec("P")
# C0 but tab and newline, DEL and C1 (a terminal's commands); marks, overrides and isolates of direction, line and
# paragraph separators, invisible operators, BOM, annotations and tags (a reader sees another text than there is);
# surrogates (a file name that is no UTF-8). Joiners stay: scripts and emoji are written with them.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
CLOSED = "the terminal was closed"
_ERASE_LINE = "\r\x1b[2K"


def printable(text: str) -> str:
    """`text` with all that a terminal would obey, or that shows as another text, as an escape: ESC is `\\u001b`.

    The escapes are JSON's, so that JSON stays what it was; a byte that was no UTF-8 is `\\xff`. Doing it twice changes
    nothing.
    """
    return _ACTIVE.sub(_escape, text)


def line(text: str) -> str:
    """`text` as one printable line: a newline in an id or a file's name begins no line that seems to be ours."""
    return printable(text).replace("\n", "\\n")


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
    said = " ".join(printable(text).replace("|", "\\u007c").split())
    if not said:
        return Inert("(empty)")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", said)), default=0))
    pad = " " if "`" in (said[0], said[-1]) else ""
    return Inert(f"{fence}{pad}{said}{pad}{fence}")


def fenced(text: str, language: str = "") -> Inert:
    """Lines as a code block that nothing in them can end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Inert(f"{fence}{language}\n{printable(text)}\n{fence}")


def inert(value: Any) -> Any:
    """`finalize` of a Markdown template: all but numbers and what is Inert already becomes a code span."""
    return value if isinstance(value, (int, float, Inert)) else markdown(str(value))


def visible(value: Any) -> Any:
    """`finalize` of an HTML template, whose autoescape leaves what is invisible."""
    return type(value)(printable(value)) if isinstance(value, str) else value


class Terminal(io.TextIOBase):
    """A text stream that writes `printable` text without secrets to another one, in whatever encoding that has.

    `gone` says why nothing can be written any more (its terminal was closed, its disk is full): what is printed from
    then on is dropped, for the work need not end with who looked at it. A closed pipe is an error as ever, unless
    `lossy`, which stderr is: there is no place left to say so.
    """

    def __init__(self, under: TextIO | None, *, lossy: bool = False) -> None:
        self.under, self.lossy, self.gone = under, lossy, ""
        self._errors = under.errors if isinstance(under, io.TextIOWrapper) else None
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
        self._write(printable(redact.shown(text)))
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
            if isinstance(e, BrokenPipeError) and not self.lossy:
                raise
            closed = stat.S_ISCHR(os.fstat(self.fileno()).st_mode) and e.errno in (errno.EIO, errno.ENXIO)
            self.lose(CLOSED if closed else f"{self.under.name} cannot be written: {e.strerror}")

    def give_back(self) -> None:
        """Leave the stream as it was found: a notebook goes on with it."""
        if isinstance(self.under, io.TextIOWrapper) and self._errors is not None and not self.gone:
            with contextlib.suppress(OSError):  # it flushes, and whoever prints next hears of it
                self.under.reconfigure(errors=self._errors)

    def lose(self, why: str) -> None:
        """Drop what is printed from now on, what is buffered still, and what children print."""
        self.gone = why
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """For the block everything that this process prints, on either stream, passes a Terminal; gives that of stdout."""
    redact.learn_environment()
    before = sys.stdout, sys.stderr
    out, err = (
        stream if isinstance(stream, Terminal) else Terminal(stream, lossy=stream is sys.stderr) for stream in before
    )
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
        for one, stream in zip((out, err), before, strict=True):
            if one is not stream:
                one.give_back()


@contextlib.contextmanager
def log() -> Iterator[None]:
    """The same for a process whose output is a log: no bar overwrites a line, and a full disk stops nothing."""
    redact.learn_environment()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Log(stream, lossy=True) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Log(Terminal):
    def write(self, text: str) -> int:
        super().write(text.replace("\r\n", "\n").replace("\r", "\n"))
        return len(text)


def command(main: Callable[P, int]) -> Callable[P, int]:
    """The frame of a program that answers a question: it prints through a Terminal, and its failures are one message.

    A closed pipe or terminal is no failure: whoever asked has seen enough.
    """

    @functools.wraps(main)
    def framed(*args: P.args, **kwargs: P.kwargs) -> int:
        with terminal() as out:
            try:
                code = int(main(*args, **kwargs))
                out.flush()
            except FmtrainError as e:
                print(f"error: {e}", file=sys.stderr)
                return int(e.exit_code)
            except BrokenPipeError:
                nobody_listens()
                return int(ExitCode.DONE)
            except KeyboardInterrupt:
                return int(ExitCode.INTERRUPTED)
            return unheard() or code

    return framed


def exactly(text: str) -> None:
    """Print `text` as it is where stdout is a file or a pipe; on a terminal printable."""
    if isinstance(sys.stdout, Terminal):
        sys.stdout.write_exactly(text)
    else:
        sys.stdout.write(text)


def nobody_listens() -> None:
    """After a BrokenPipeError of stdout: what is printed from now on is dropped."""
    if isinstance(sys.stdout, Terminal):
        sys.stdout.lose(CLOSED)


def unheard() -> int:
    """The exit code of an answer that could not be written, with the message; 0 where it could, or nobody listens."""
    gone = sys.stdout.gone if isinstance(sys.stdout, Terminal) else ""
    if gone in ("", CLOSED):
        return 0
    print(f"error: {gone}", file=sys.stderr)
    return int(ExitCode.STORE)
