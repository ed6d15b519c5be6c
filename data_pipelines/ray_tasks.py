"""The tasks of a step on Ray: dealt out over the nodes, watched, and given up where they die or fall silent.

All retries are ours: Ray runs an attempt once, so that one attempt never has two processes. A task's own errors come
back as values; Ray's errors say that its worker or its node is gone. Silence is measured on the driver's clock, from
sign of life to sign of life, so that the nodes' clocks do not matter. It knows nothing of where files go.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from data_pipelines.tasks import Beat, Call, Done, Failure, Retries, Watch, attempt, beats, clear, last_beat
from fmtrain.artifacts.lease import process_start
from fmtrain.artifacts.ray_logs import failed_starts, last_words
from fmtrain.errors import StageFailed

POLL_SECONDS = 0.5
GRACE_SECONDS = 15.0  # for a silent task's process to end once it is killed; then it is left to itself
STARVED_SECONDS = 60.0  # with no task begun we say so; Ray gives a worker that does not start as long
STARVED_TIMES = 3  # after which we end, where the cluster has room
_WHOLE = 0.99  # what a task asks of a CPU: the stage's own process holds 0.001, which would leave a whole one idle
_OWN = ("RAY_", "FMTRAIN_", "OMP_", "PYTHON")  # of the environment: what is each process's own
_AHEAD = 2  # tasks given to Ray for each that can run: enough to keep it busy, and few items copied


@dataclass
class _Running:
    """An attempt that Ray has: its last sign of life, when that came, and when we ended it."""

    call: Call
    beat: Beat | None = None
    changed: float = field(default_factory=time.monotonic)
    killed: float | None = None
    ender: Any = None  # the Ray task that kills it

    @property
    def host(self) -> str:
        return f"{self.beat.host} (pid {self.beat.pid})" if self.beat else "a host unknown, before it began"


class RayTasks:
    """One named Ray task each, spread over the nodes of the cluster at RAY_ADDRESS."""

    def __init__(self, name: str, stage: str, cpus: float, heartbeat: float) -> None:
        self.name, self.stage, self.cpus, self.heartbeat = name, stage, cpus, heartbeat
        _connect(name.partition(":")[0])
        import ray

        self.remote = ray.remote(num_cpus=cpus * _WHOLE, max_retries=0, scheduling_strategy="SPREAD")(_work)
        self.end = ray.remote(num_cpus=0, max_retries=0)(_end)
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(_OWN)}
        self.running: dict[Any, _Running] = {}
        self.avoid: dict[int, str] = {}  # rank -> the node where it failed last
        self.looked = self.alive = time.monotonic()
        self.starved = 0
        self._count()

    def __call__(
        self, waiting: deque[Call], watch: Watch, retries: Retries, take: Callable[[Call, Done], None]
    ) -> None:
        """Run all; `take` is given each attempt that ended well."""
        import ray

        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.slots * _AHEAD:
                    self._submit(waiting.popleft())
                ready, _ = ray.wait(list(self.running), num_returns=1, timeout=POLL_SECONDS)
                outcomes = [(run := self.running.pop(ref), self._get(ref, run)) for ref in ready]
                if time.monotonic() - self.looked >= POLL_SECONDS:
                    self.looked = time.monotonic()
                    outcomes += self._look(watch)
                for run, done in outcomes:
                    if isinstance(done, Done):
                        take(run.call, done)
                        continue
                    clear(run.call)
                    watch.set(run.call.rank, 0, 0)
                    retries.failed(run.call.rank, done)
                    self.avoid[run.call.rank] = run.beat.node if run.beat else ""
                    waiting.appendleft(run.call.again())
            _show(self.name, watch)
        finally:
            for ref in self.running:
                ray.cancel(ref, force=True)
            if self.running:  # what comes next shall not meet their last moments
                ray.wait(list(self.running), num_returns=len(self.running), timeout=GRACE_SECONDS / 3)

    def _count(self) -> None:
        """The nodes that can take a task, and how many tasks can run at a time."""
        import ray

        cpus = {n["NodeID"]: n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"]}
        room = {node: int(have / max(self.cpus, 0.01)) for node, have in cpus.items()}
        self.nodes = sorted(node for node, tasks in room.items() if tasks)
        self.slots = max(sum(room.values()), 1)

    def _submit(self, call: Call) -> None:
        """The first wave is dealt to the nodes in turn, since SPREAD favours one whose workers are up; then SPREAD.
        A task that failed goes to another node, where there is one."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {"name": f"{self.name}:{call.rank}"}
        nodes = [node for node in self.nodes if node != self.avoid.get(call.rank)]
        if nodes and (call.rank < self.slots or call.rank in self.avoid):
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(nodes[call.rank % len(nodes)], soft=True)
        self.running[self.remote.options(**options).remote(call, self.environment)] = _Running(call)

    def _get(self, ref: Any, run: _Running) -> Done | Failure:
        """What became of an attempt that Ray says has ended."""
        import ray

        try:
            done: Done | Failure = ray.get(ref)
        except ray.exceptions.RayTaskError as e:  # before or after the task itself: it could not be read, or its counts
            return Failure(f"{type(e.cause).__name__}: {e.cause}", run.host, str(e))
        except ray.exceptions.RayError as e:
            run.beat = run.beat or last_beat(run.call.beat)
            if run.killed:
                return self._silent(run)
            text = next(iter(str(e).strip().splitlines()), "")
            hint = f"look at that node's memory; more, smaller tasks need less of it: stages.{self.stage}.tasks=N"
            return Failure(f"it was lost ({type(e).__name__}: {text}; {hint})", run.host)
        if isinstance(done, Done):
            print(f"task {self.name}:{run.call.rank} done on {done.host}", file=sys.stderr)
        return done

    def _silent(self, run: _Running) -> Failure:
        text = f"no sign of life for {self.heartbeat:g} s; to wait longer: stages.{self.stage}.heartbeat_seconds=N"
        return Failure(text, run.host)

    def _look(self, watch: Watch) -> list[tuple[_Running, Done | Failure]]:
        """Read the signs of life, end the silent, and return those that would not end."""
        self._count()
        now = time.monotonic()
        given_up: list[tuple[_Running, Done | Failure]] = []
        for ref, run in list(self.running.items()):
            beat = last_beat(run.call.beat)
            if beat is not None and beat != run.beat:
                run.beat, run.changed, self.alive, self.starved = beat, now, now, 0
                watch.set(run.call.rank, beat.units, beat.bytes)
            if run.killed is not None:
                if now - run.killed > GRACE_SECONDS:
                    given_up.append((self.running.pop(ref), self._silent(run)))
            elif run.beat is not None and now - run.changed > self.heartbeat:
                self._kill(ref, run, run.beat)
        if now - self.alive > STARVED_SECONDS * (self.starved + 1) and not any(r.beat for r in self.running.values()):
            self._starve()
        watch.show()
        _show(self.name, watch)
        return given_up

    def _starve(self) -> None:
        """No task has begun for long: say so, and end where the cluster has room and starts nothing in it."""
        import ray

        self.starved += 1
        free = ray.available_resources().get("CPU", 0)
        logs = Path(ray._private.worker._global_node.get_logs_dir_path())
        said = last_words(logs) if failed_starts(logs) else ""
        seconds = STARVED_SECONDS * self.starved
        text = f"{self.name}: {len(self.running)} tasks wait, and none has begun for {seconds:.0f} s"
        if free >= self.cpus * _WHOLE and self.starved >= STARVED_TIMES:
            raise StageFailed(f"{text}, though {free:g} CPUs are free: Ray's workers do not start{said}")
        print(f"{text}; {free:g} CPUs are free on the cluster{said}", file=sys.stderr, flush=True)

    def _kill(self, ref: Any, run: _Running, beat: Beat) -> None:
        """Ray's way, which asks the process itself, and the kernel's, which a stopped one cannot refuse."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        run.killed = time.monotonic()
        print(f"task {self.name}:{run.call.rank} on {run.host} is silent; it is killed", file=sys.stderr, flush=True)
        ray.cancel(ref, force=True)
        there = NodeAffinitySchedulingStrategy(beat.node, soft=False)
        run.ender = self.end.options(name=f"{self.name}:{run.call.rank}:kill", scheduling_strategy=there).remote(
            beat.pid, beat.started
        )


def _work(call: Call, environment: dict[str, str]) -> Done | Failure:
    """In Ray's worker, which has no keys: those that this stage was given come with the task and stand nowhere else."""
    import ray

    os.umask(0o077)  # a cluster's worker has its own, and unfinished work is its user's alone
    for name, text in environment.items():
        os.environ.setdefault(name, text)
    return attempt(call, beats(call.beat, ray.get_runtime_context().get_node_id()))


def _end(pid: int, started: str | None) -> None:
    """Kill a process of this node, unless its number is another's by now."""
    if started is not None and process_start(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@cache
def _gauges() -> dict[str, Any]:
    """Ray's dashboard and its Prometheus show them as ray_fmtrain_corpus_*."""
    from ray.util.metrics import Gauge

    said = {
        "documents": "Documents that the tasks of a step have done so far",
        "bytes": "Bytes of text that the tasks of a step have done so far",
    }
    return {name: Gauge(f"fmtrain_corpus_{name}", text, tag_keys=("stage", "step")) for name, text in said.items()}


def _show(name: str, watch: Watch) -> None:
    """How far the step is, as metrics; steps that count something else than documents have bytes alone."""
    stage, _, step = name.partition(":")
    values = {"bytes": watch.bytes, **({"documents": watch.units} if watch.unit == "documents" else {})}
    for what, value in values.items():
        _gauges()[what].set(value, tags={"stage": stage, "step": step})


def _connect(stage: str) -> None:
    """Join the running Ray cluster; its workers find our packages, and plug-ins, where this process found them."""
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise StageFailed("executor 'ray' needs a running cluster, and RAY_ADDRESS is not set; use executor 'inline'")
    root = str(Path(__file__).resolve().parents[1])
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), root])), "PYTHONSAFEPATH": "1"}
    runtime: dict[str, Any] = {"env_vars": env}
    if shlex.quote(sys.executable) != sys.executable:  # a blank, say: Ray hands it to a shell as it is
        runtime["py_executable"] = shlex.quote(sys.executable)
    job = ray.job_config.JobConfig(metadata={"job_name": f"fmtrain {stage}: tasks"})
    try:
        # Ray's workers import from the folder that a job was started in, before all others: let it be the standard
        # library's, which every worker has anyway
        with contextlib.chdir(os.path.dirname(os.__file__)):
            ray.init(address=address, log_to_driver=False, logging_level="WARNING", runtime_env=runtime, job_config=job)
    except (ConnectionError, RuntimeError) as e:
        raise StageFailed(f"no Ray answers at RAY_ADDRESS={address}: {e}") from e
