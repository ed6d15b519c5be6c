"""`fmtrain.plan` and `fmtrain.run`: the two verbs as functions, in a process that lives on.

They print what the command line prints, and fail with the exception behind its message. What they change of the
process they change back: standard streams, signals, umask, Hydra, plug-ins, what is known of secrets.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fmtrain import redact, show
from fmtrain.artifacts.storage import expanded
from fmtrain.errors import ConfigError, FmtrainError, HeldError, Requeue
from fmtrain.schema import plugins
from launch import signals
from launch.python.store import Store, Version

if TYPE_CHECKING:
    from launch.start import Begun, Planned

_busy = threading.Lock()


@dataclass(frozen=True)
class PlannedStage:
    """What a run would do about a stage; `pandas.DataFrame(plan.stages)` has a row for each."""

    stage: str
    kind: str  # of stage
    action: str  # reuse, run, resume or skip
    reason: str
    seconds: float | None  # estimated; None where nothing is made, or nobody can tell
    parameters: int | None  # of the model that is trained
    steps: int | None  # of the optimizer; at most so many where epochs are given
    tokens: int | None  # positions that go through the model
    fingerprint: str
    makes: str  # the kind of artifact
    artifact: str | None  # NAME@vN, where it is made already


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do; printed it is the table of `fmtrain plan`."""

    recipe: str
    store: Store
    stages: list[PlannedStage]
    left_out: list[str]  # stages that the data has nothing for, and why
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __getitem__(self, stage: str) -> PlannedStage:
        found = next((one for one in self.stages if one.stage == stage), None)
        if found is None:
            raise KeyError(f"no stage {stage!r} in this plan; there are {', '.join(one.stage for one in self.stages)}")
        return found

    @property
    def seconds(self) -> float:
        """Estimated, of all that is made and can be told."""
        return sum(one.seconds or 0.0 for one in self.stages)


@dataclass(frozen=True)
class Run:
    """A run that is done, or that a queue has: then `job` is its number, and nothing is made yet.

    Where launch.dry_run only printed a script there is no run: its id is empty.
    """

    id: str
    folder: Path | None
    artifacts: dict[str, Version]  # by stage
    job: str | None = None


def plan(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Plan:
    """What `fmtrain plan` would print of these overrides; nothing is made.

    `fmtrain.plan(["recipe=quickstart", "stages.dpo.objective.beta=0.2"])`. `config_dir` is a folder with groups of
    one's own, as --config-dir.
    """
    with _call("plan"):
        return _plan(*_given("plan", overrides, config_dir))


def run(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Run:
    """What `fmtrain run` does with these overrides, printing how far it is; every failure is an FmtrainError.

    Ctrl-C saves what can be saved and is a KeyboardInterrupt; the same call goes on from there, as it does after any
    kill. With launch=slurm it submits the job and comes back at once.
    """
    with _call("run"), signals.given_back():
        return _run(*_given("run", overrides, config_dir))


def _plan(overrides: list[str], config_dir: Path | None) -> Plan:
    from launch import start
    from launch.compose import compose
    from launch.figures import measure
    from launch.summary import plan_text

    found = start.planned(compose(overrides, config_dir))
    measure(found.steps, found.root.launch, found.store)
    left_out = [redact.shown(line) for line in found.graph.left_out]
    text = show.printable(redact.shown(plan_text(found.steps, found.graph.said)))
    return Plan(found.root.recipe, Store(found.store.root), _stages(found), left_out, text)


def _stages(found: "Planned") -> list[PlannedStage]:
    stages = []
    for step in found.steps:
        node, amount = step.node, step.amount
        stages.append(
            PlannedStage(
                stage=node.stage, kind=node.kind.name, action=step.action, reason=redact.shown(step.reason),
                seconds=step.seconds, parameters=step.shape.parameters if amount and step.shape else None,
                steps=amount.steps if amount else None, tokens=amount.tokens if amount else None,
                fingerprint=step.fingerprint, makes=node.kind.makes,
                artifact=step.artifact.ref if step.artifact else None,
            )
        )  # fmt: skip
    return stages


def _run(overrides: list[str], config_dir: Path | None) -> Run:
    from launch import start
    from launch.compose import compose

    root = compose(overrides, config_dir)
    begun = start.begin(root, overrides, config_dir)
    if begun.job is not None:
        return Run(begun.run_id, begun.job.folder, {}, begun.job.job)
    if begun.ended is None:
        return Run("", None, {})
    if begun.ended.error is not None:
        raise _failure(begun)
    store = Store(root.store)
    made = {stage: Version(store, artifact) for stage, artifact in begun.ended.made.items()}
    return Run(begun.run_id, store.at.run_dir(begun.run_id), made)


def _failure(begun: "Begun") -> BaseException:
    """What to raise for the end of a run: Ctrl-C as Python has it, another signal as what it means."""
    assert begun.ended is not None and begun.ended.error is not None
    error, message = begun.ended.error, begun.ended.message
    if not isinstance(error, signals.Stopped):
        return error
    return KeyboardInterrupt(message) if error.number == signal.SIGINT else Requeue(message)


def _given(verb: str, overrides: Sequence[str], config_dir: str | Path | None) -> tuple[list[str], Path | None]:
    if isinstance(overrides, str):
        raise ConfigError(f"fmtrain.{verb}({overrides!r}): expected a list, fmtrain.{verb}([{overrides!r}])")
    return list(overrides), None if config_dir is None else expanded(config_dir, f"config_dir={config_dir}")


@contextlib.contextmanager
def _call(verb: str) -> Iterator[None]:
    """The frame of a call: alone in this process, printing through a Terminal, its plug-ins its own; its failures
    without secrets and without the frames of ours that no user can mend."""
    if not _busy.acquire(blocking=False):
        raise HeldError(
            f"fmtrain.{verb}: another thread of this process plans or runs; wait for it, or call from another process"
        )
    try:
        with redact.apart(), plugins.apart(), show.terminal():
            try:
                yield
                sys.stdout.flush()
            except (FmtrainError, KeyboardInterrupt) as e:
                e.args = tuple(show.printable(redact.shown(a)) if isinstance(a, str) else a for a in e.args)
                raise e.with_traceback(None) from None
    finally:
        _busy.release()
