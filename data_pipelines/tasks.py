"""One task of a step, as it travels: what it is given, how it tells that it lives, and how its files are published.

An attempt at a task works in a scratch folder of its own and leaves its files there, hashed. The driver alone moves
them to the step's folder, and the marker, which holds the hashes, comes last. So a file that has changed is noticed,
and an attempt that was given up may go on, on a node that nobody reaches, and end late: what it made is never seen.
What happens in between, here or on Ray, stands in schedule.py and ray_tasks.py.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import xxhash

from fmtrain.artifacts.lease import process_start
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import disk_errors, fsync_dir, fsync_tree, read_sealed, write_sealed
from fmtrain.artifacts.worker import Progress
from fmtrain.errors import FmtrainError, StageFailed, StoreError, Unavailable

Counts = dict[str, int]

MAX_RETRIES = 3  # of a task that raised, died or fell silent; then its error is the stage's
TICK_SECONDS = 0.5  # a task tells how far it is no oftener


class Tick(Protocol):
    """Says how many units, and bytes of text, the task has done so far; each call is a sign of life."""

    def __call__(self, units: int, bytes: int = 0) -> None: ...


@dataclass(frozen=True)
class Task:
    """Where a task stands: its rank among `world_size`, its scratch folder, and the folder of all finished steps."""

    rank: int
    world_size: int
    scratch: Path
    parts: Path
    tick: Tick


@dataclass(frozen=True)
class Call:
    """One attempt at a task, as it is sent to a worker. `attempt` names it, and its files, alone."""

    function: Callable[[Task, Any], Counts]
    item: Any
    folder: Path
    rank: int
    world_size: int
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)

    def again(self) -> "Call":
        return replace(self, attempt=uuid.uuid4().hex)

    @property
    def scratch(self) -> Path:
        return self.folder / f".scratch-{self.rank:05d}-{self.attempt}"

    @property
    def marker(self) -> Path:
        return self.folder / ".done" / f"{self.rank:05d}.json"

    @property
    def beat(self) -> Path:
        return self.folder / ".done" / f"{self.rank:05d}-{self.attempt}.tick"


@dataclass(frozen=True)
class Part:
    """A file that a task has left: its size in bytes, when it was written last (ns), the XXH3-128 of its bytes."""

    size: int
    written: int
    digest: str


@dataclass(frozen=True)
class Done:
    """A finished task: its counts, how much it has ticked, where it ran, its files by their names in the step."""

    counts: Counts
    units: int
    bytes: int
    host: str
    files: dict[str, Part] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """An attempt that failed: the error in words, its traceback, and the error itself where it is one of ours."""

    text: str
    host: str
    trace: str = ""
    ours: FmtrainError | None = None


class _Meter:
    """A task's `tick`: remembers the last numbers, and passes them on no oftener than TICK_SECONDS."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self.tell, self.units, self.bytes, self.last = tell, 0, 0, time.monotonic()
        tell(0, 0)

    def __call__(self, units: int, bytes: int = 0) -> None:
        self.units, self.bytes = units, bytes
        if time.monotonic() - self.last >= TICK_SECONDS:
            self.last = time.monotonic()
            self.tell(units, bytes)


def attempt(call: Call, tell: Callable[[int, int], None]) -> Done | Failure:
    """Do the work in the scratch folder and leave it there, flushed to the disk. An error is told, not raised: not
    every error survives being sent from process to process."""
    try:
        with disk_errors(call.folder):
            call.scratch.mkdir()
            meter = _Meter(tell)
            counts = call.function(Task(call.rank, call.world_size, call.scratch, call.folder.parent, meter), call.item)
            fsync_tree(call.scratch)
            names = sorted(p for p in call.scratch.rglob("*") if p.is_file())
            files = {p.relative_to(call.scratch).as_posix(): _part(p) for p in names}
        return Done(counts, meter.units, meter.bytes, socket.gethostname(), files)
    except FmtrainError as e:
        return Failure(str(e), socket.gethostname(), traceback.format_exc() if e.__cause__ else "", e)
    except Exception as e:
        text = "".join(traceback.format_exception_only(e)).strip()
        return Failure(text, socket.gethostname(), traceback.format_exc())


def publish(call: Call, done: Done) -> None:
    """Move what the attempt made to the step's folder, the marker last. The driver alone does, one attempt a task."""
    with disk_errors(call.folder):
        if not call.scratch.is_dir():
            raise StageFailed(
                f"{done.host} has finished a task, and its folder {call.scratch} is not to be seen from "
                f"{socket.gethostname()}; all nodes need the store on one shared file system: give it with store=PATH"
            )
        folders = set()
        for name in done.files:
            target = call.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(call.scratch / name, target)
            folders.add(target.parent)
        for folder in sorted(folders):
            fsync_dir(folder)
        write_sealed(call.marker, asdict(done))
    clear(call)


def clear(call: Call) -> None:
    """Remove what an attempt has left."""
    shutil.rmtree(call.scratch, ignore_errors=True)
    with contextlib.suppress(OSError):
        call.beat.unlink(missing_ok=True)


def finished(call: Call) -> Done | None:
    """What an earlier run of the step has recorded of the task; StoreError where its files are not as it left them."""
    if not call.marker.exists():
        return None
    try:
        data = read_sealed(call.marker)
        done = Done(**{**data, "files": {name: Part(**part) for name, part in data["files"].items()}})
    except (TypeError, KeyError, AttributeError) as e:
        raise StoreError(f"{call.marker} is damaged: {e}") from None
    for name, part in done.files.items():
        check(call.folder / name, part, whole=True)
    return done


def check(path: Path, part: Part, *, whole: bool) -> None:
    """StoreError where the file has changed since its task left it, by its looks or, for `whole`, by its bytes."""
    try:
        status = path.stat()
        same = (status.st_size, status.st_mtime_ns) == (part.size, part.written)
        if whole:
            same = _part(path).digest == part.digest
    except FileNotFoundError:
        raise StoreError(f"{path} is missing") from None
    if not same:
        raise StoreError(f"{path} is not as its task left it: the disk is failing, or somebody has changed it")


def _part(path: Path) -> Part:
    digest, status = xxhash.xxh3_128(), path.stat()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return Part(status.st_size, status.st_mtime_ns, digest.hexdigest())


@dataclass(frozen=True)
class Beat:
    """A sign of life: which process works at the task, how far it is. `number` makes each differ from the last."""

    host: str
    node: str
    pid: int
    started: str | None
    number: int
    units: int
    bytes: int


def beats(path: Path, node: str) -> Callable[[int, int], None]:
    """Leaves signs of life at `path`, where the driver looks; a lost one costs nothing."""
    who = (socket.gethostname(), node, os.getpid(), process_start(os.getpid()))
    number = 0

    def tell(units: int, size: int) -> None:
        nonlocal number
        number += 1
        with contextlib.suppress(OSError):
            path.with_suffix(".tmp").write_text(json.dumps([*who, number, units, size]))
            os.replace(path.with_suffix(".tmp"), path)

    return tell


def last_beat(path: Path) -> Beat | None:
    try:
        return Beat(*json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


class Retries:
    """Counts the failures of each task of a step, and ends the stage where there were enough."""

    def __init__(self, step: str) -> None:
        self.step, self.failures = step, Counter[int]()

    def failed(self, rank: int, failure: Failure) -> None:
        """Say it on stderr; raise where the task is not tried again.

        An error of ours (settings, inputs, a full disk) would be the same again; every other might not, nor might a
        store that did not answer.
        """
        if failure.trace:
            print(failure.trace.rstrip(), file=sys.stderr)
        if failure.ours and not isinstance(failure.ours, Unavailable):
            raise failure.ours from None  # its cause is in the traceback that we have just printed
        self.failures[rank] += 1
        times = self.failures[rank]
        said = f"task {self.step}:{rank} failed on {failure.host}: {failure.text}"
        if times > MAX_RETRIES and failure.ours:
            raise failure.ours from None  # it says what to mend
        if times > MAX_RETRIES:
            raise StageFailed(f"{said} (attempt {times}, the last). The log has the traceback, where there is one.")
        print(f"{said} (attempt {times} of {MAX_RETRIES + 1}); again", file=sys.stderr, flush=True)


class Watch:
    """Adds up what the tasks of a step have done, for the progress file and for Ray's dashboard."""

    def __init__(self, stage: Stage, unit: str, total: int | None) -> None:
        self.progress, self.unit = Progress(stage, unit, total), unit
        self.ranks: dict[int, tuple[int, int]] = {}  # units, bytes
        self.units = self.bytes = 0  # of all ranks
        self.before = 0  # bytes done by earlier runs of the step
        self.begun = time.monotonic()

    def begin(self, done: dict[int, Done]) -> None:
        """Where the work goes on from: what was done before does not count in the speed."""
        for rank, what in done.items():
            self._add(rank, *self._all_of(what))
        self.before, self.begun = self.bytes, time.monotonic()
        self.progress.begin(self.units)

    def set(self, rank: int, units: int, size: int) -> None:
        """So far is the task's present attempt."""
        self._add(rank, units, size)
        self.show()

    def finished(self, rank: int, done: Done) -> None:
        self.set(rank, *self._all_of(done))

    def show(self, *, force: bool = False) -> None:
        extra = {}
        if self.bytes > self.before:
            extra["mb_per_second"] = (self.bytes - self.before) / 1e6 / max(time.monotonic() - self.begun, 1e-9)
        self.progress.update(self.units, force=force, **extra)

    def _add(self, rank: int, units: int, size: int) -> None:
        before = self.ranks.get(rank, (0, 0))
        self.ranks[rank] = units, size
        self.units += units - before[0]
        self.bytes += size - before[1]

    def _all_of(self, done: Done) -> tuple[int, int]:
        return done.counts.get(self.unit, done.units or 1), done.bytes
