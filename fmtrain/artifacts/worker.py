"""The frame every stage worker runs in: `python -m fmtrain.train STAGE_DIR` and its like.

It dies with its parent, turns exceptions into exit codes and a report (`error_file`), and writes `result.json` last,
with the hash of every file that it leaves. What it writes is for its user alone until the driver commits it. Only the
first rank writes results; RANK and WORLD_SIZE come from the launcher.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fmtrain import redact, show
from fmtrain.artifacts.sources import check_named
from fmtrain.artifacts.stage import Stage, read_stage
from fmtrain.artifacts.storage import disk_errors, fresh_dir, fsync_tree, list_files, write_json, write_sealed
from fmtrain.errors import ExitCode, FmtrainError, HeldError, StoreError

SAID = "said.txt"
ERROR = "error.json"  # the report of the first rank to fail: the others may fail because of it
RESULT = "result.json"
_PR_SET_PDEATHSIG = 1


@dataclass
class Result:
    """What a stage says of its output. Counts are integers, metrics floats; numerics say what bits depend on."""

    counts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    numerics: dict[str, Any] = field(default_factory=dict)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), and leave where it has died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = os.environ.get("FMTRAIN_PARENT")
        if parent and os.getppid() != int(parent):
            os._exit(ExitCode.INTERRUPTED)


def hear_term() -> None:
    """Unblock SIGTERM: Ray in a Slurm job is deaf to it, and with it all that it starts (launch/backends/node.py)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank that failed says why: exit_code, error, message, rank. One that was killed has none."""
    return folder / f"error-rank{rank}.json"


class Progress:
    """How far the stage is, in `progress.json`, at most twice a second. Only rank 0 writes."""

    def __init__(self, stage: Stage, unit: str, total: int | None = None) -> None:
        self.path = stage.folder / "progress.json"
        self.unit, self.total = unit, total
        self.start, self.last, self.first = time.monotonic(), 0.0, 0

    def begin(self, done: int) -> None:
        """Where the work goes on from: what an earlier attempt did does not count in the rate."""
        self.first, self.start = done, time.monotonic()

    def update(self, done: int, *, force: bool = False, **extra: float) -> None:
        now = time.monotonic()
        if rank() != 0 or (now - self.last < 0.5 and not force):
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-9)
        left = (self.total - done) / rate if self.total is not None and rate > 0 else None
        state = {"done": done, "total": self.total, "unit": self.unit, "rate": rate, "seconds_left": left, **extra}
        tmp = self.path.with_suffix(".tmp")
        tmp.write_text(json.dumps(state))  # no fsync: this is on the training path, and worth nothing after a crash
        os.replace(tmp, self.path)


def announce(stage: Stage, text: str) -> None:
    """Say something that whoever started the run shall see: it goes to the log, and to the terminal from `said.txt`."""
    print(text, file=sys.stderr, flush=True)
    with open(stage.folder / SAID, "a", encoding="utf-8") as f:
        f.write(redact.shown(text) + "\n")


def tell(stage: Stage, what: str, total: int, reasons: dict[str, int]) -> None:
    """Announce in one line what became of all that the stage was given: `tell(stage, "rows", 9, {"repeated": 1})`."""
    parts = [f"{number:,} {reason}" for reason, number in reasons.items() if number]
    announce(stage, f"{total:,} {what}: {', '.join(parts) or 'nothing left out'}")


@show.log()
def main(run: Callable[[Stage], Result], argv: list[str] | None = None) -> None:
    """Run one stage worker and leave the process with its exit code."""
    args = sys.argv[1:] if argv is None else argv
    if len(args) != 1:
        print("usage: python -m MODULE STAGE_DIR (a folder with stage.json, written by `fmtrain run`)", file=sys.stderr)
        os._exit(ExitCode.CONFIG)
    die_with_parent()
    hear_term()
    os.umask(0o077)
    folder = Path(args[0])
    code = ExitCode.INTERNAL
    try:
        stage = read_stage(folder)
        with disk_errors(stage.work_dir), _fenced(stage.work_dir):
            _run(run, stage)
        code = ExitCode.DONE
    except FmtrainError as e:
        code = ExitCode(e.exit_code)
        _report(folder, e, code, traceback.format_exc() if e.__cause__ else "")
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BaseException as e:
        code = ExitCode.STAGE_FAILED
        _report(folder, e, code, traceback.format_exc())
    leave(code)


def _run(run: Callable[[Stage], Result], stage: Stage) -> None:
    check_named(stage.sources)
    if stage.plugins:
        from fmtrain.schema import plugins  # which knows every setting, and most stages have none

        plugins.verify(plugins.Plugin(**plugin) for plugin in stage.plugins)
    if rank() != 0:
        run(stage)
        return
    begun = time.time()
    fresh_dir(stage.out)
    result = run(stage)
    fsync_tree(stage.out)
    seconds = round(time.time() - begun, 3)
    write_sealed(stage.work_dir / RESULT, {**asdict(result), "seconds": seconds, "files": list_files(stage.out)})


@contextlib.contextmanager
def _fenced(work: Path) -> Iterator[None]:
    """Say what it means when the work folder is gone: whoever took over its lease has renamed it (Store.adopt)."""
    try:
        yield
    except Exception as e:
        if work.is_dir():
            raise
        raise HeldError(f"{work} is gone: another run has taken the work over, and this one writes nothing more") from e


def _report(folder: Path, error: BaseException, code: int, trace: str) -> None:
    """Say why on stderr and in the stage's folder; on a full disk neither may work, and the exit code still tells."""
    name = type(error).__name__
    message = str(error) if isinstance(error, FmtrainError) else f"{name}: {error}"
    said = {"exit_code": int(code), "error": name, "message": redact.shown(message), "rank": rank()}
    with contextlib.suppress(OSError, StoreError):
        print(f"{trace}error: {message}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, StoreError):
        write_json(error_file(folder, rank()), said)
        with open(folder / ERROR, "x", encoding="utf-8") as f:  # one rank makes it, whatever their clocks say
            json.dump(said, f)


def leave(code: int) -> None:
    """Leave at once: no atexit hook of a library, no thread that hangs, changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
