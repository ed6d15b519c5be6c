"""One run: its folder, its stages in turn or side by side, each made by a worker and committed here.

State lives on disk: this process may die at any time, and the same command goes on from what is committed and from
what lies in work/. Knows plan, store and backend; knows nothing of Hydra and nothing of what a stage does.
"""

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fmtrain import redact, show
from fmtrain.artifacts import lease
from fmtrain.artifacts.lease import Lease
from fmtrain.artifacts.manifest import Artifact, Manifest, verify
from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.sources import BESIDE, HUB
from fmtrain.artifacts.stage import Source, Stage, forget_secrets, write_stage
from fmtrain.artifacts.storage import disk_errors, list_files, read_sealed, unwatched
from fmtrain.artifacts.store import Store
from fmtrain.artifacts.worker import RESULT
from fmtrain.errors import ExitCode, FmtrainError, StoreError
from fmtrain.schema.load import dump
from fmtrain.schema.root import Root
from launch import alive, provenance
from launch.backends import slurm
from launch.backends.choose import open_backend
from launch.backends.command import Backend, Command, Failure, Job
from launch.backends.environment import module
from launch.beside import Work, side_by_side
from launch.cause import ASKED, cause
from launch.fetch import NAME as FETCH
from launch.fetch import fetch, wanted
from launch.graph import Folder, Node
from launch.hub_rows import told
from launch.plan import KEPT, Step
from launch.record import Run, now
from launch.signals import Signals, Stopped
from launch.terminal import AND, Live, duration
from launch.turns import stand

LOOK = 0.4  # seconds between two looks at the stages that run
TOLD = 2.0  # seconds within which this process is told to stop, where its ranks were
REPORT = "report.html"
LEAST_TASKS = 4  # of a stage that fans out, unless it says how many
INLINE_BYTES = 1 << 28  # of input for each task, where they run one after another: what an interrupted run may lose


class Driver:
    """Makes the stages of one run."""

    def __init__(self, run: Run, steps: list[Step], signals: Signals, asked: dict[str, Any] | None = None) -> None:
        self.run, self.store, self.steps, self.signals = run, run.store, steps, signals
        self.asked = asked or {}  # what stages that hand something on are told of the run
        self.made: dict[str, Artifact] = {s.node.stage: s.artifact for s in steps if s.artifact is not None}
        self.seconds: dict[str, float] = {}
        self.active: list[str] = []  # the stages that are being made
        self.jobs: list[Job] = []  # those of them that have been started
        self.deadline: float | None = None  # by which they are to have saved, once they have been asked to

    def execute(self) -> None:
        """Make every stage that is not reused; leaves with an FmtrainError or Stopped."""
        todo = [s for s in self.steps if s.action not in KEPT]
        for step in self.steps:
            if step.action in KEPT:
                self._say(step, f"{step.action} {step.reason}")
            if step.action == "reuse":
                self.made[step.node.stage] = self._named(step, self.made[step.node.stage])
        if not todo:
            return
        if wanted(todo):
            self.run.update(stage=FETCH)
            fetch(todo, self.run.folder, self.run.root.launch.env, self.signals.check, self.run.event)
        with open_backend(self.run.root.launch, self.run.folder, self.run.root.recipe, self.signals.check) as backend:
            for note in backend.notes:
                print(f"  {note}", flush=True)
            self.run.update(notes=backend.notes)
            for node in [step.node for step in todo if step.node.kind.ranks]:  # before hours of the stages before it
                ranks = self.run.root.launch.count(backend.gpus)
                node.kind.check_ranks(node.job.stage, f"stages.{node.stage}", ranks)
            most = self.run.root.launch.parallel
            side_by_side(todo, lambda step: self._stage(step, backend), partial(self._fits, backend), most, self._halt)

    def ordered(self) -> list[Artifact]:
        """What there is of each stage, in the order of the plan."""
        return [self.made[step.node.stage] for step in self.steps if step.node.stage in self.made]

    def _stage(self, step: Step, backend: Backend) -> Work:
        """One stage from its lease to its commit."""
        self.signals.check()
        begun, name, makes = time.monotonic(), step.node.stage, step.node.kind.makes
        path = self.store.lease(makes, step.fingerprint)
        with lease.held(path, self.run.id, f"{name} ({makes} {step.fingerprint[:12]})", self.signals.check) as held:
            self.active.append(name)
            self.run.update(stage=AND.join(self.active))
            self.made[name] = yield from self._make(step, backend, held)
        self.seconds[name] = time.monotonic() - begun
        self.active.remove(name)
        if self.active:
            self.run.update(stage=AND.join(self.active))

    def _make(self, step: Step, backend: Backend, held: Lease) -> Generator[None, None, Artifact]:
        """The step's artifact: found, finished earlier but not committed, or made now."""
        node = step.node
        found = self.store.find(node.kind.makes, step.fingerprint, node.name)
        if found is not None:
            self._say(step, f"reuse {found.ref}")
            return self._named(step, found)
        work = self.store.adopt(node.kind.makes, step.fingerprint, held.me.token)
        if not _is_finished(work, self.signals.check):
            yield from self._work(step, backend, work, held)
        artifact = self._commit(step, work, held)
        self._say(step, f"{artifact.ref} in {duration(artifact.manifest.seconds)}")
        self.run.event("committed", stage=node.stage, artifact=artifact.ref, seconds=artifact.manifest.seconds)
        return artifact

    def _named(self, step: Step, found: Artifact) -> Artifact:
        """What is reused, as a version of the name that the stage gives it."""
        name = step.node.name
        if found.manifest.name == name:
            return found
        fields = {"name": name, "stage": step.node.stage, "run": self.run.id, "created": now()}
        return self.store.under(found, self.signals.check, **fields)

    def _work(self, step: Step, backend: Backend, work: Path, held: Lease) -> Work:
        node = step.node
        folder = self.run.folder / "stages" / node.stage
        shutil.rmtree(folder, ignore_errors=True)
        command = self._command(step, backend, folder)
        inputs, refs = self._inputs(step)
        wanted = vars(node.job.stage)
        tasks = wanted.get("tasks") or tasks_of(node, backend)
        resources = {"ranks": command.ranks, "tasks": tasks, "executor": backend.executor}
        if "heartbeat_seconds" in wanted:
            resources["heartbeat_seconds"] = wanted["heartbeat_seconds"]
        write_stage(
            folder,
            Stage(node.stage, node.kind.makes, node.name, step.fingerprint, self.run.id, dump(node.job), inputs, refs,
                  [*node.sources, *_folders(step)], str(work), resources, plugins=node.plugins,
                  asked=self.asked if node.kind.hands_on else {}, bases=_bases(step)),
        )  # fmt: skip
        if step.action != "resume":
            (work / "code").write_text(step.code)  # what unfinished work was begun with
        live = Live(node.stage, folder / "progress.json")
        try:
            hosts, failures = yield from self._ended(step, backend, command, live, held, work)
        finally:
            live.end()
            forget_secrets(folder)
        held.check()
        if failures or not (work / RESULT).is_file():
            live.close(f"  {node.stage:<10} failed")
            error = cause(node.stage, command, folder, hosts, failures)
            self.run.event("failed", stage=node.stage, exit_code=int(error.exit_code), message=str(error))
            raise error

    def _halt(self) -> None:
        """Ask every stage that runs to save and leave: in as many seconds as were given, else all that there are."""
        if self.deadline is None:
            given = self.run.root.launch.grace_seconds
            self.deadline = time.monotonic() + (slurm.grace(self.run.folder) if given is None else given)
        for job in self.jobs if len(self.jobs) > 1 else []:
            job.ask()

    def _fits(self, backend: Backend, step: Step, others: list[Step]) -> bool:
        """Whether a stage finds processors and GPUs beside others."""
        needs = [self._needs(one, backend) for one in [step, *others]]
        return sum(cpus for cpus, _ in needs) <= backend.cpus and sum(gpus for _, gpus in needs) <= backend.gpus

    def _needs(self, step: Step, backend: Backend) -> tuple[int, int]:
        """The processors and GPUs that a stage takes."""
        command = self._command(step, backend, Path())
        return backend.cpus if command.pool else command.ranks * command.cpus, command.ranks * command.gpus

    def _ended(
        self, step: Step, backend: Backend, command: Command, live: Live, held: Lease, work: Path
    ) -> Generator[None, None, tuple[list[str], list[Failure]]]:
        """Start the command and follow it: its hosts, and how it ended."""
        job = backend.submit(command)
        self.jobs.append(job)
        name = step.node.stage
        try:
            failures = yield from self._follow(step, command, job, live, held)
        except BaseException:
            self._halt()
            assert self.deadline is not None
            job.stop(max(0.0, self.deadline - time.monotonic()))
            live.close(f"  {name:<10} stopped: {stand(work)}")
            raise
        finally:
            self.jobs.remove(job)
        return job.hosts, failures

    def _follow(
        self, step: Step, command: Command, job: Job, live: Live, held: Lease
    ) -> Generator[None, None, list[Failure]]:
        """How the job ended; Stopped where it was this run that was told to stop, and its ranks with it."""
        told = False
        while True:
            if job.hosts and not told:
                told, name = True, step.node.stage
                self.run.event("started", stage=name, action=step.action, ranks=command.ranks, hosts=job.hosts)
            if (failures := job.wait(LOOK / len(self.jobs))) is not None:
                break
            live.poll()
            self.signals.check()
            if held.lost.is_set():
                held.check()
            yield
        if any(failure.code in ASKED for failure in failures):
            self.signals.wait(TOLD)
        return failures

    def _command(self, step: Step, backend: Backend, folder: Path) -> Command:
        node, launch = step.node, self.run.root.launch
        gpus = 1 if node.kind.ranks and backend.gpus else 0
        ranks = launch.count(backend.gpus) if node.kind.ranks else 1
        one_gpu = 1 if backend.gpus and node.kind.gpu else 0
        return Command(
            name=node.stage,
            argv=module(node.kind.worker, str(folder)),
            log_dir=self.run.folder / "logs" / node.stage,
            ranks=ranks,
            cpus=launch.cpus_per_rank if node.kind.ranks else backend.node_cpus(gpus or one_gpu),
            gpus=gpus or one_gpu,
            pool=node.kind.pool,
            kind="network" if any(is_url(s.path) or s.path.startswith(HUB) for s in node.sources) else "compute",
            passed=tuple(launch.env),
            interface=launch.interface,
        )

    def _inputs(self, step: Step) -> tuple[dict[str, str], dict[str, str]]:
        paths, refs = {}, {}
        for role, parent in step.parents.items():
            if isinstance(parent, Folder):
                paths[role], refs[role] = str(parent.root), parent.ref
                continue
            artifact = parent if isinstance(parent, Artifact) else self.made[parent.node.stage]
            verify(artifact, self.signals.check)
            paths[role], refs[role] = str(artifact.path), artifact.ref
        return paths, refs

    def _commit(self, step: Step, work: Path, held: Lease) -> Artifact:
        node, result = step.node, read_sealed(work / RESULT)
        parents = {}
        for role, parent in step.parents.items():
            artifact = parent if isinstance(parent, Artifact) else None
            if isinstance(parent, Step):
                artifact = self.made[parent.node.stage]
            print_of = step.prints[role]
            ref = artifact.ref if artifact else redact.shown(_folder(parent))
            parents[role] = {"ref": ref, "fingerprint": print_of}
        manifest = Manifest(
            kind=node.kind.makes, name=node.name, version=0, fingerprint=step.fingerprint,
            payload=redact.shown_in(step.payload),
            parents=parents, stage=node.stage, revision=node.kind.revision, code=step.code, run=self.run.id,
            created=now(), seconds=result["seconds"], git=provenance.git(), packages=provenance.packages(),
            host=provenance.host(), numerics=result["numerics"], counts=result["counts"], metrics=result["metrics"],
            files=result["files"], bases=redact.shown_in(_bases(step)),
        )  # fmt: skip
        held.check()
        return self.store.commit(work / "out", manifest, self.signals.check)

    def _say(self, step: Step, text: str) -> None:
        print(f"  {step.node.stage:<10} {text}", flush=True)


@dataclass
class Ended:
    """How a run ended: what its stages made, or what stopped it, and that in words."""

    code: int
    made: dict[str, Artifact] = field(default_factory=dict)
    error: BaseException | None = None
    message: str = ""


def run(
    root: Root,
    steps: list[Step],
    store: Store,
    run_id: str,
    overrides: list[str],
    config_dir: Path | None = None,
    asked: dict[str, Any] | None = None,
) -> Ended:
    """Execute a planned run. Whatever ends it is a state in run.json; what is nobody's setting is raised."""
    signals = Signals()
    state, code, message, kind = "failed", int(ExitCode.INTERNAL), "", ""
    error: BaseException | None = None
    made: dict[str, Artifact] = {}
    record: Run | None = None
    try:
        with disk_errors(store.root):
            record = Run(store, run_id, root, overrides, config_dir)
            record.record(steps)
            alive.forget_secrets(store)
            driver = Driver(record, steps, signals, asked)
            begun = time.monotonic()
            driver.execute()
            _finish(driver, time.monotonic() - begun)
        state, code, made = "done", int(ExitCode.DONE), driver.made
    except Stopped as e:
        error = e
        interrupted = e.number == signal.SIGINT
        state, code = ("interrupted", ExitCode.INTERRUPTED) if interrupted else ("requeue", ExitCode.REQUEUE)
        message = f"stopped by {e}; the same command goes on from what is saved"
    except FmtrainError as e:
        error, code, message, kind = e, int(e.exit_code), str(e), type(e).__name__
        state = "requeue" if code == ExitCode.REQUEUE else "failed"
    except BrokenPipeError as e:  # `fmtrain run | head`: nobody reads what we print; the run is recorded all the same
        show.nobody_listens()
        error, state, code, message = e, "interrupted", ExitCode.INTERRUPTED, "standard output was closed"
    finally:
        if record is not None:
            _close(record, state, int(code), message, kind)
    return Ended(int(code), made, error, f"error: {message}" if state == "failed" and message else message)


def _close(record: Run, state: str, code: int, message: str, error: str) -> None:
    if isinstance(sys.stdout, show.Terminal) and sys.stdout.gone:
        record.state["notes"] = [*record.state["notes"], f"from some moment on nothing was printed: {sys.stdout.gone}"]
    with contextlib.suppress(OSError):  # a full disk: the message is on the terminal, and the dead run shows as ended
        record.update(state=state, exit_code=code, error=error, message=message, ended=now())


def _finish(driver: Driver, seconds: float) -> None:
    """The end of a run that is done: where everything is, seconds a stage, what to try next."""
    from launch.summary import summary

    for artifact in driver.ordered():
        if (artifact.path / REPORT).is_file():
            shutil.copyfile(artifact.path / REPORT, driver.run.folder / REPORT)  # the last one's stays
    print(summary(driver.run, driver.steps, driver.made, driver.seconds, seconds), flush=True)
    driver.run.event("done", artifacts={stage: a.ref for stage, a in driver.made.items()})


def _is_finished(work: Path, check: Callable[[], None] = unwatched) -> bool:
    """Whether an earlier run has made all of it, and only the commit is missing; what has changed since is unmade."""
    if not (work / RESULT).exists():
        return False
    try:
        if list_files(work / "out", check) == read_sealed(work / RESULT)["files"]:
            return True
        why = f"{work / 'out'} is not as its stage left it"
    except (StoreError, KeyError) as e:
        why = str(e)
    print(f"warning: {why}; the end of the stage is made again", file=sys.stderr, flush=True)
    (work / RESULT).unlink()
    return False


def _folders(step: Step) -> list[Source]:
    """The files of the user's folders among a stage's inputs, for its worker to compare before it reads them."""
    folders = {role: parent for role, parent in step.parents.items() if isinstance(parent, Folder)}
    return [replace(f, name=f"{BESIDE}{role}:{f.name}") for role, folder in folders.items() for f in folder.files]


def _folder(parent: Any) -> str:
    return parent.ref if isinstance(parent, Folder) else ""


def _bases(step: Step) -> dict[str, dict[str, Any]]:
    """What there is to say of a stage's inputs that are no artifacts of ours: models by role, rows of a hub as data."""
    rows = told(getattr(step.node.job, "data", None), step.node.sources)
    bases = {role: parent.told for role, parent in step.parents.items() if isinstance(parent, Folder)}
    return bases | ({"data": rows} if rows else {})


def tasks_of(node: Node, backend: Backend) -> int:
    """How many a stage fans out to. A task decompresses the whole of a file it shares: inline, small inputs get one."""
    data = [source for source in node.sources if not source.name.startswith(BESIDE)]
    if backend.executor == "inline" and not any(source.path.startswith(HUB) for source in data):
        return min(LEAST_TASKS, 1 + sum(source.size for source in data) // INLINE_BYTES)
    return max(LEAST_TASKS, backend.cpus)
