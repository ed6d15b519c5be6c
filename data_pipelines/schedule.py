"""Runs the tasks of a stage, in this process or on Ray, so that any of them may die at any time.

A task is a module-level function `(task, item) -> counts`. It writes into its own scratch folder; what it leaves there
is moved to the step's folder by rename and a marker is written last, so a finished task is not run again: its files are
hashed when an interrupted run goes on, and looked at once more before what is made of them counts. Everything
stands under a key that the stage computes from all that the result depends on: with another key (another number of
tasks, other inputs, other code) the work starts anew. A task that raises, dies or falls silent is tried again
MAX_RETRIES times, then the stage fails with that task's error; a FmtrainError would come again, and ends it at once.
It knows nothing of documents, and of datatrove only how to keep it quiet.
"""

import ctypes
import shutil
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import fmtrain
from data_pipelines.ray_tasks import RayTasks
from data_pipelines.tasks import Call, Counts, Done, Retries, Task, Watch, attempt, check, clear, finished, publish
from fmtrain.artifacts.fingerprint import fingerprint
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import ConfigError, StoreError

__all__ = ["Counts", "Scheduler", "Task", "parts_key", "quiet"]
T = TypeVar("T")

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # musl has none
HEARTBEAT_SECONDS = 600.0  # a task that has not ticked for so long is taken for hung, unless the stage says


class Scheduler:
    """Runs steps one after the other; `with Scheduler(stage, key) as scheduler: scheduler.run(...)`."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.stage = stage
        self.executor = str(stage.resources.get("executor", "inline"))
        if self.executor not in ("inline", "ray"):
            raise ConfigError(f"resources.executor: {self.executor!r} is neither 'inline' nor 'ray'")
        self.heartbeat = float(stage.resources.get("heartbeat_seconds", HEARTBEAT_SECONDS))
        self.parts = stage.work_dir / "parts" / key
        self.made: dict[str, list[Done]] = {}  # step -> its tasks
        self.damaged = False  # a step before this one was: what later steps have made of it goes with it

    def __enter__(self) -> Self:
        root = self.parts.parent
        for stale in root.iterdir() if root.exists() else ():
            if stale != self.parts:
                shutil.rmtree(stale, ignore_errors=True)
        root.mkdir(exist_ok=True)  # never the work folder: where it is gone, the work is another run's
        self.parts.mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        if error is None:
            self.check(whole=False)

    def check(self, *steps: str, whole: bool) -> None:
        """StoreError where a file of these steps, or of any, has changed since its task left it; see tasks.check."""
        for step in steps or self.made:
            for done in self.made[step]:
                for name, part in done.files.items():
                    check(self.parts / step / name, part, whole=whole)

    def run(
        self,
        step: str,
        function: Callable[[Task, T], Counts],
        items: Sequence[T],
        *,
        unit: str = "tasks",
        total: int | None = None,
        cpus: float = 1,
    ) -> list[Counts]:
        """Run `function` once an item, skipping what an earlier attempt finished; the counts in the items' order."""
        folder = self.parts / step
        _prepare(folder)
        calls = [Call(function, item, folder, rank, len(items)) for rank, item in enumerate(items)]
        results = self._finished(calls)
        watch = Watch(self.stage, unit, total)
        watch.begin(results)

        def take(call: Call, done: Done) -> None:
            publish(call, done)
            results[call.rank] = done
            watch.finished(call.rank, done)

        if waiting := deque(call for call in calls if call.rank not in results):
            name = f"{self.stage.stage}:{step}"
            execute = _inline if self.executor == "inline" else RayTasks(name, self.stage.stage, cpus, self.heartbeat)
            execute(waiting, watch, Retries(name), take)
        watch.show(force=True)
        _prepare(folder)
        self.made[step] = [results[rank] for rank in range(len(items))]
        return [done.counts for done in self.made[step]]

    def _finished(self, calls: list[Call]) -> dict[int, Done]:
        """What an earlier run has finished of a step; what is damaged is named and unmade, and all that follows it."""
        found, spoilt = {}, self.damaged
        for call in calls:
            try:
                if not spoilt and (done := finished(call)):
                    found[call.rank] = done
            except StoreError as e:
                self.damaged = True
                print(f"warning: {e}; it is made again, and what was made of it", file=sys.stderr, flush=True)
            if call.rank not in found:
                call.marker.unlink(missing_ok=True)
        return found


def _prepare(folder: Path) -> None:
    """The step's folder without what attempts have left that died or were given up."""
    folder.mkdir(exist_ok=True)
    (folder / ".done").mkdir(exist_ok=True)
    for stale in folder.glob(".scratch-*"):
        shutil.rmtree(stale, ignore_errors=True)
    for pattern in ("*.tick", "*.tmp"):
        for file in (folder / ".done").glob(pattern):
            file.unlink(missing_ok=True)


def _inline(waiting: deque[Call], watch: Watch, retries: Retries, take: Callable[[Call, Done], None]) -> None:
    """One task after the other in this process, for debuggers and machines without Ray; a hung one hangs it."""
    while waiting:
        call = waiting.popleft()
        done = attempt(call, lambda units, size, rank=call.rank: watch.set(rank, units, size))  # type: ignore[misc]
        if isinstance(done, Done):
            take(call, done)
            _give_back()
            continue
        clear(call)
        watch.set(call.rank, 0, 0)
        retries.failed(call.rank, done)
        waiting.appendleft(call.again())


def _give_back() -> None:
    """Let the C library return to the system what a task has freed: glibc keeps all below the last block in use."""
    if _TRIM is not None:
        _TRIM(0)


def parts_key(payload: Any) -> str:
    """The key of a stage's parts: `payload`, and the code that makes them, since a part made by other code is stale."""
    rooms = [Path(__file__).parent, *(Path(fmtrain.__file__).parent / room for room in ("artifacts", "schema"))]
    code = {f"{room.name}/{p.relative_to(room)}": sha256_file(p) for room in rooms for p in sorted(room.rglob("*.py"))}
    return fingerprint({"payload": payload, "code": code, "python": list(sys.version_info[:3])})


def quiet() -> None:
    """datatrove logs everything to stderr through loguru: warnings are enough."""
    from datatrove.utils.logging import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING", colorize=False)
