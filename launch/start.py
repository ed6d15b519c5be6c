"""From overrides to a plan, a run or a job: what `fmtrain plan` and `fmtrain run` do, and Python's door behind them."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from fmtrain.artifacts.storage import disk_errors, private_files
from fmtrain.artifacts.store import Store
from fmtrain.errors import FmtrainError, StoreError
from fmtrain.schema.launch import Slurm
from fmtrain.schema.root import Root
from launch import driver, submit
from launch.asked import asked
from launch.backends.environment import misleading
from launch.compose import compose
from launch.fetch import notes
from launch.graph import Graph, build, pinned
from launch.plan import KEPT, Step, plan
from launch.record import Run, new_run_id
from launch.reproduce import Published
from launch.status import store_at
from launch.vocabulary import check_vocabulary


@dataclass(frozen=True)
class Planned:
    """What a configuration comes to in its store as it is now."""

    root: Root
    store: Store
    graph: Graph
    steps: list[Step]


@dataclass(frozen=True)
class Begun:
    """A run that was driven to its end here, or a job that goes on without us; neither where a script was printed."""

    run_id: str = ""
    ended: driver.Ended | None = None
    job: submit.Submitted | None = None


def planned(root: Root, source: Published | None = None) -> Planned:
    """`source` is a published folder that is to be made again."""
    if source is not None:
        source.check_inputs(root)
    store, graph = store_at(root.store), build(root)
    if source is not None:
        source.recognise(graph)
        source.check_pins(graph, store)
    steps = plan(graph, store)
    check_vocabulary(steps)
    graph.notes += notes(steps)
    return Planned(root, store, graph, steps)


def begin(root: Root, overrides: list[str], config_dir: Path | None, source: Published | None = None) -> Begun:
    """Make every stage that is not made yet, as `root.launch` says; what it prints is for whoever waits.

    ConfigError where `source` is given, and something else would be made.
    """
    with private_files():
        return _begin(root, overrides, config_dir, source)


def _begin(root: Root, overrides: list[str], config_dir: Path | None, source: Published | None) -> Begun:
    store = store_at(root.store)
    inside_job = "FMTRAIN_JOB" in os.environ
    if isinstance(root.launch, Slurm) and root.launch.dry_run and not inside_job:
        submit.show_script(root, root.launch, store, overrides, config_dir, source)
        return Begun()
    run_id = os.environ.get("FMTRAIN_RUN") if inside_job else None
    try:
        with disk_errors(store.root):
            store.prepare()
            found = planned(root, source)
            if source is not None:
                source.check_same(found.steps)
    except FmtrainError as e:
        if run_id:  # what follows on this turn of the job hangs on it
            with contextlib.suppress(OSError, StoreError):
                record = Run(store, run_id, root, overrides)
                record.update(state="failed", exit_code=int(e.exit_code), error=type(e).__name__, message=str(e))
        raise
    if isinstance(root.launch, Slurm) and not inside_job:
        words = [*overrides, *pinned(found.graph)]
        job = submit.submit(root, root.launch, store, words, config_dir, found.steps, source)
        return Begun(job.run_id, job=job)
    run_id = run_id or new_run_id()
    print(f"run {run_id}  recipe={root.recipe} launch={root.launch.name}  store {store.root}")
    for line in found.graph.said:
        print(f"  {line}")
    if others := misleading():
        print(
            f"  {', '.join(others)}: set by another launcher; this run starts ranks of its own and heeds none of them"
        )
    hands_on = any(step.node.kind.hands_on and step.action not in KEPT for step in found.steps)
    told = asked(_pinned(found, overrides, config_dir), overrides) if hands_on else {}
    return Begun(run_id, driver.run(root, found.steps, store, run_id, overrides, config_dir, told))


def _pinned(found: Planned, overrides: list[str], config_dir: Path | None) -> Root:
    """The configuration with the commits that names on the hub stood for."""
    pins = pinned(found.graph)
    return compose([*overrides, *pins], config_dir) if pins else found.root
