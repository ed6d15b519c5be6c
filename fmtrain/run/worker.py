"""The frame every stage worker runs in: `python -m fmtrain.train STAGE_DIR` and its like.

It dies with its parent, holds the work folder's lock, turns exceptions into exit codes and a report (`error_file`), and
writes `result.json` last. Only the first rank writes results; RANK and WORLD_SIZE come from the launcher.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from fmtrain.errors import ExitCode, FmtrainError, StoreError
from fmtrain.run.stage import Stage, read_stage
from fmtrain.run.storage import disk_errors, fresh_dir, fsync_tree, write_json

LOCK_WAIT = 20.0  # seconds; a killed run's last worker is gone well within this
SAID = "said.txt"
ERROR = "error.json"  # the report of the first rank to fail: the others may fail because of it
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
        f.write(text + "\n")


def main(run: Callable[[Stage], Result], argv: list[str] | None = None) -> None:
    """Run one stage worker and leave the process with its exit code."""
    args = sys.argv[1:] if argv is None else argv
    if len(args) != 1:
        print("usage: python -m MODULE STAGE_DIR (a folder with stage.json, written by `fmtrain run`)", file=sys.stderr)
        os._exit(ExitCode.CONFIG)
    die_with_parent()
    hear_term()
    folder = Path(args[0])
    code = ExitCode.INTERNAL
    try:
        stage = read_stage(folder)
        with disk_errors(stage.work_dir):
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
    if rank() != 0:
        run(stage)
        return
    stage.work_dir.mkdir(parents=True, exist_ok=True)
    lock = _lock(stage.work_dir / "worker.lock")
    begun = time.time()
    fresh_dir(stage.out)
    result = run(stage)
    fsync_tree(stage.out)
    write_json(stage.work_dir / "result.json", {**asdict(result), "seconds": round(time.time() - begun, 3)})
    lock.close()


def _lock(path: Path) -> IO[str]:
    """Wait for a killed run's worker to be gone; two workers never write one folder."""
    f = open(path, "w")  # noqa: SIM115 - held until the process ends
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return f
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreError(f"{path.parent} is being written by another process; end it first") from None
            time.sleep(0.1)


def _report(folder: Path, error: BaseException, code: int, trace: str) -> None:
    """Say why on stderr and in the stage's folder; on a full disk neither may work, and the exit code still tells."""
    name = type(error).__name__
    message = str(error) if isinstance(error, FmtrainError) else f"{name}: {error}"
    said = {"exit_code": int(code), "error": name, "message": message, "rank": rank()}
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
