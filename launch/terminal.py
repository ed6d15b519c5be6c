"""What a person sees while a run goes on: one live line a stage in a terminal, plain lines elsewhere."""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from fmtrain import show
from fmtrain.artifacts.storage import read_left
from fmtrain.artifacts.worker import SAID

_LEAST = 24  # characters that a wrapped column has, however narrow the terminal
AND = ", "  # between the names of stages that run side by side
PLAIN_EVERY = 15.0  # seconds between progress lines where the output is no terminal


def duration(seconds: float) -> str:
    """`8 s`, `2 min 05 s`, `1 h 03 min`, `3 d 04 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600:02d} h"


def columns() -> int | None:
    """How wide the terminal is; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Columns padded to their widest cell; the first row is the header.

    Within `columns` characters the last is wrapped; where it would be too narrow, it stands below the others.
    """
    rows = [[show.line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if columns is not None and sum(widths) + 2 * (len(widths) - 1) > columns:
        left = sum(widths[:-1]) + 2 * (len(widths) - 1)
        beside = columns - left >= _LEAST
        indent = " " * (left if beside else 4)
        lines = []
        for row in rows:
            first, *more = textwrap.wrap(row[-1], max(_LEAST, columns - len(indent))) or [""]
            head = "  ".join(cell.ljust(w) for cell, w in zip(row[:-1], widths, strict=False))
            lines.append(f"{head}  {first}" if beside else head)
            lines += [indent + part for part in (more if beside else [first, *more])]
        return "\n".join(line.rstrip() for line in lines if line.strip())
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


_LIVE: list["Live"] = []  # those that share the terminal's last line


class Live:
    """The progress of one stage, read from its `progress.json`."""

    def __init__(self, stage: str, path: Path, out: TextIO | None = None) -> None:
        self.stage, self.path, self.heard = stage, path, 0
        out = out or sys.stdout
        self.out = out if isinstance(out, show.Terminal) else show.Terminal(out)
        self.begun, self.last, self.shown = time.monotonic(), time.monotonic(), ""
        self.now = ""
        _LIVE.append(self)

    def poll(self) -> None:
        """Show how far the stage is, when there is something new to show."""
        self.hear()
        state = read_progress(self.path)
        self.now = self._line(state)
        if self.out.isatty():
            self.out.erase_line()
            all_of_them = "  |".join(live.now for live in _LIVE if live.now)
            self.out.write(show.line(all_of_them)[: shutil.get_terminal_size().columns - 1])
            self.out.flush()
        elif state and time.monotonic() - self.last >= PLAIN_EVERY:
            self.last = time.monotonic()
            line = self._line(state)
            if line != self.shown:
                self.shown = line
                print(line, file=self.out, flush=True)

    def hear(self) -> None:
        """Print what the stage has announced since the last look."""
        try:
            with open(self.path.with_name(SAID), "rb") as f:
                f.seek(self.heard)
                said = f.read()
        except OSError:
            return
        said = said[: said.rfind(b"\n") + 1]  # what is being written is not there yet
        self.heard += len(said)
        if text := said.decode("utf-8", "replace"):
            self.out.erase_line()
            whose = f"    {self.stage}: " if len(_LIVE) > 1 else "    "
            print(textwrap.indent(text.rstrip("\n"), whose), file=self.out, flush=True)

    def end(self) -> None:
        """Nothing more is to be shown of it."""
        self.hear()
        self.out.erase_line()
        if self in _LIVE:
            _LIVE.remove(self)

    def close(self, line: str) -> None:
        self.end()
        print(line, file=self.out, flush=True)

    def _line(self, state: dict[str, Any] | None) -> str:
        spent = duration(time.monotonic() - self.begun)
        return f"  {self.stage:<10} {progress_text(state) if state else 'starting'} ({spent})"


def read_progress(path: Path) -> dict[str, Any] | None:
    """What a worker says of itself in its progress.json; None before it has said something."""
    return read_left(path, dict) or None


def progress_text(state: dict[str, Any]) -> str:
    """`120/450 steps, 2.1/s, loss 3.214, 2 min 37 s left`; a worker's unit is a plural.

    `12,345/50,000 documents, 1,234/s, 5.6 MB/s, 31 s left`: of text, where the worker counts it.
    """
    total = f"/{state['total']:,}" if state.get("total") else ""
    parts = [f"{state['done']:,}{total} {state['unit']}"]
    if state.get("rate"):
        parts.append(f"{state['rate']:,.{0 if state['rate'] >= 100 else 1}f}/s")
    if state.get("mb_per_second"):
        parts.append(f"{state['mb_per_second']:,.1f} MB/s")
    if state.get("loss") is not None:
        parts.append(f"loss {state['loss']:.3f}")
    if state.get("tokens_per_second"):
        parts.append(f"{state['tokens_per_second']:,.0f} tokens/s")
    if state.get("seconds_left") is not None:
        parts.append(f"{duration(state['seconds_left'])} left")
    return ", ".join(parts)
