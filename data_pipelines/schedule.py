"""Runs the tasks of a stage, in this process or on Ray, so that any of them may die at any time.

A task is a module-level function `(task, item) -> counts`. It writes into its own scratch folder; what it leaves there
is moved to the step's folder by rename and a marker is written last, so a finished task is not run again. Everything
stands under a key that the stage computes from all that the result depends on: with another key (another number of
tasks, other inputs, other code) the work starts anew. A task that fails fails the stage with its own error.
It knows nothing of documents, and of datatrove only how to keep it quiet.
"""

import contextlib
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from fmtrain.errors import ConfigError, FmtrainError, StageFailed
from fmtrain.run.fingerprint import fingerprint
from fmtrain.run.stage import Stage
from fmtrain.run.storage import disk_errors, fsync_dir, fsync_tree, read_json, sha256_file, write_json
from fmtrain.run.worker import Progress

Counts = dict[str, int]
T = TypeVar("T")

MAX_RETRIES = 2  # by Ray, of a task whose worker died
MAX_RESUBMISSIONS = 2  # by us, of a task that Ray gave up: its node died, its memory ran out
STARVED_SECONDS = 60.0  # without a sign of life we say that the cluster may have no free CPU
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """Where a task stands: its rank among `world_size`, its scratch folder, and the folder of all finished steps."""

    rank: int
    world_size: int
    scratch: Path
    parts: Path
    tick: Callable[[int], None]  # says how many units the task has done so far


class Scheduler:
    """Runs steps one after the other; `with Scheduler(stage, key) as scheduler: scheduler.run(...)`."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.stage = stage
        self.executor = str(stage.resources.get("executor", "inline"))
        if self.executor not in ("inline", "ray"):
            raise ConfigError(f"resources.executor: {self.executor!r} is neither 'inline' nor 'ray'")
        self.parts = stage.work_dir / "parts" / key

    def __enter__(self) -> Self:
        root = self.parts.parent
        for stale in root.iterdir() if root.exists() else ():
            if stale != self.parts:
                shutil.rmtree(stale, ignore_errors=True)
        self.parts.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()

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
        (folder / ".done").mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".scratch-*"):
            shutil.rmtree(stale, ignore_errors=True)
        for stale in (folder / ".done").glob("*.tick"):
            stale.unlink()
        results: dict[int, Counts] = {r: read_json(p) for r in range(len(items)) if (p := _marker(folder, r)).exists()}
        calls = {
            rank: _Call(function, item, folder, rank, len(items))
            for rank, item in enumerate(items)
            if rank not in results
        }
        watch = _Watch(Progress(self.stage, unit, total), folder, {r: c.get(unit, 1) for r, c in results.items()}, unit)
        if calls:
            execute = _inline if self.executor == "inline" else _Ray(f"{self.stage.stage}:{step}", cpus)
            execute(calls, results, watch)
        watch.show(force=True)
        return [results[rank] for rank in range(len(items))]


def parts_key(payload: Any) -> str:
    """The key of a stage's parts: `payload`, and the code of this package, since a part made by other code is stale."""
    package = Path(__file__).parent
    code = {p.relative_to(package).as_posix(): sha256_file(p) for p in sorted(package.rglob("*.py"))}
    return fingerprint({"payload": payload, "code": code, "python": list(sys.version_info[:3])})


def quiet() -> None:
    """datatrove logs everything to stderr through loguru: warnings are enough."""
    from datatrove.utils.logging import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING", colorize=False)


@dataclass(frozen=True)
class _Call:
    """One task as it travels to a worker."""

    function: Callable[[Task, Any], Counts]
    item: Any
    folder: Path
    rank: int
    world_size: int

    def __call__(self, tick: Callable[[int], None] | None = None) -> Counts:
        """Do the work in a scratch folder of this attempt's own, move the files, write the marker last."""
        scratch = self.folder / f".scratch-{self.rank:05d}-{uuid.uuid4().hex}"
        with disk_errors(self.folder):
            scratch.mkdir()
            task = Task(self.rank, self.world_size, scratch, self.folder.parent, tick or self._ticker())
            counts = self.function(task, self.item)
            fsync_tree(scratch)
            for file in sorted(p for p in scratch.rglob("*") if p.is_file()):
                target = self.folder / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
                fsync_dir(target.parent)
            write_json(_marker(self.folder, self.rank), counts)
            shutil.rmtree(scratch, ignore_errors=True)
        return counts

    def _ticker(self) -> Callable[[int], None]:
        """For a task in another process: leave the number where the driver looks; a lost one costs nothing."""
        path, last = _tick_file(self.folder, self.rank), 0.0

        def tick(done: int) -> None:
            nonlocal last
            if time.monotonic() - last < _POLL_SECONDS:
                return
            last = time.monotonic()
            with contextlib.suppress(OSError):
                path.with_suffix(".tmp").write_text(str(done))
                os.replace(path.with_suffix(".tmp"), path)

        return tick


def _marker(folder: Path, rank: int) -> Path:
    return folder / ".done" / f"{rank:05d}.json"


def _tick_file(folder: Path, rank: int) -> Path:
    return folder / ".done" / f"{rank:05d}.tick"


class _Watch:
    """Adds up what the tasks have done, for the progress file."""

    def __init__(self, progress: Progress, folder: Path, done: dict[int, int], unit: str) -> None:
        self.progress, self.folder, self.done, self.unit = progress, folder, done, unit
        progress.begin(sum(done.values()))

    def set(self, rank: int, done: int) -> None:
        self.done[rank] = done
        self.show()

    def finished(self, rank: int, counts: Counts) -> None:
        self.set(rank, counts.get(self.unit, 1))

    def look(self, ranks: Sequence[int]) -> None:
        """Read the ticks that tasks elsewhere have left."""
        for rank in ranks:
            with contextlib.suppress(OSError, ValueError):
                self.done[rank] = int(_tick_file(self.folder, rank).read_text())
        self.show()

    def show(self, *, force: bool = False) -> None:
        self.progress.update(sum(self.done.values()), force=force)


def _inline(calls: dict[int, _Call], results: dict[int, Counts], watch: _Watch) -> None:
    """One task after the other in this process, for debuggers and machines without Ray."""
    for rank, call in calls.items():
        results[rank] = call(lambda done, rank=rank: watch.set(rank, done))  # type: ignore[misc]
        watch.finished(rank, results[rank])


class _Ray:
    """One named Ray task each, spread over the nodes of the cluster at RAY_ADDRESS."""

    def __init__(self, name: str, cpus: float) -> None:
        self.name = name
        _connect()
        import ray

        self.remote = ray.remote(
            num_cpus=cpus, max_retries=MAX_RETRIES, retry_exceptions=False, scheduling_strategy="SPREAD"
        )(_call)

        self.nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= cpus]
        self.first = int(ray.cluster_resources().get("CPU", 1) // max(cpus, 0.01))

    def _submit(self, call: _Call) -> Any:
        """The first wave is dealt to the nodes in turn, since SPREAD favours one whose workers are up; then SPREAD."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {"name": f"{self.name}:{call.rank}"}
        if call.rank < self.first and self.nodes:
            node = self.nodes[call.rank % len(self.nodes)]
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        return self.remote.options(**options).remote(call)

    def __call__(self, calls: dict[int, _Call], results: dict[int, Counts], watch: _Watch) -> None:
        import ray

        attempts = dict.fromkeys(calls, 1)
        pending = {self._submit(call): rank for rank, call in calls.items()}
        alive, seen = time.monotonic(), -1
        try:
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
                watch.look(list(pending.values()))
                if (done := sum(watch.done.values())) != seen:
                    alive, seen = time.monotonic(), done
                elif time.monotonic() - alive > STARVED_SECONDS:
                    alive = time.monotonic()
                    print(f"{self.name}: {len(pending)} tasks wait; is a CPU free on the cluster?", file=sys.stderr)
                for ref in ready:
                    rank = pending.pop(ref)
                    counts = self._take(ref, rank, attempts)
                    if counts is None:
                        pending[self._submit(calls[rank])] = rank
                    else:
                        results[rank] = counts
                        watch.finished(rank, counts)
        finally:
            for ref in pending:
                ray.cancel(ref, force=True)

    def _take(self, ref: Any, rank: int, attempts: dict[int, int]) -> Counts | None:
        """The task's counts; None where it is to be tried again; its own error where it raised one."""
        import ray

        try:
            counts: Counts
            counts, host = ray.get(ref)
            print(f"task {self.name}:{rank} done on {host}", file=sys.stderr)
            return counts
        except ray.exceptions.RayTaskError as e:
            if isinstance(e.cause, FmtrainError):
                raise e.cause from None
            raise e.cause from e
        except ray.exceptions.RayError as e:
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            spent = isinstance(e, ray.exceptions.WorkerCrashedError)  # Ray itself has tried again by then
            if spent or attempts[rank] > MAX_RESUBMISSIONS:
                raise StageFailed(
                    f"task {self.name}:{rank} was lost for good ({type(e).__name__}: {reason}). Look at "
                    "that node's memory; more, smaller tasks need less of it: stages.corpus.tasks=N"
                ) from e
            attempts[rank] += 1
            print(f"task {self.name}:{rank} was lost ({type(e).__name__}: {reason}); again", file=sys.stderr)
            return None


def _call(call: _Call) -> tuple[Counts, str]:
    """The counts and the host that they were made on."""
    return call(), socket.gethostname()


def _connect() -> None:
    """Join the running Ray cluster; its workers find our packages where this process found them."""
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise StageFailed("executor 'ray' needs a running cluster, and RAY_ADDRESS is not set; use executor 'inline'")
    # Ray's workers take the driver's working directory, not PYTHONPATH; an installed package needs neither.
    root = str(Path(__file__).resolve().parents[1])
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="WARNING", runtime_env={"env_vars": env})
    except (ConnectionError, RuntimeError) as e:
        raise StageFailed(f"no Ray answers at RAY_ADDRESS={address}: {e}") from e
