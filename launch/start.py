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
from launch.backends.environment import misleading
from launch.fetch import notes
from launch.graph import Graph, build, pinned
from launch.plan import Step, plan
from launch.record import Run, new_run_id
from launch.status import store_at


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


def planned(root: Root) -> Planned:
    store, graph = store_at(root.store), build(root)
    steps = plan(graph, store)
    graph.notes += notes(steps)
    return Planned(root, store, graph, steps)


def begin(root: Root, overrides: list[str], config_dir: Path | None) -> Begun:
    """Make every stage that is not made yet, as `root.launch` says; what it prints is for whoever waits."""
    with private_files():
        return _begin(root, overrides, config_dir)


def _begin(root: Root, overrides: list[str], config_dir: Path | None) -> Begun:
    store = store_at(root.store)
    inside_job = "FMTRAIN_JOB" in os.environ
    if isinstance(root.launch, Slurm) and root.launch.dry_run and not inside_job:
        submit.show_script(root, root.launch, store, overrides, config_dir)
        return Begun()
    run_id = os.environ.get("FMTRAIN_RUN") if inside_job else None
    try:
        with disk_errors(store.root):
            store.prepare()
            found = planned(root)
    except FmtrainError as e:
        if run_id:  # what follows on this turn of the job hangs on it
            with contextlib.suppress(OSError, StoreError):
                record = Run(store, run_id, root, overrides)
                record.update(state="failed", exit_code=int(e.exit_code), error=type(e).__name__, message=str(e))
        raise
    if isinstance(root.launch, Slurm) and not inside_job:
        job = submit.submit(root, root.launch, store, [*overrides, *pinned(found.graph)], config_dir, found.steps)
        return Begun(job.run_id, job=job)
    run_id = run_id or new_run_id()
    print(f"run {run_id}  recipe={root.recipe} launch={root.launch.name}  store {store.root}")
    for line in found.graph.said:
        print(f"  {line}")
    if others := misleading():
        print(
            f"  {', '.join(others)}: set by another launcher; this run starts ranks of its own and heeds none of them"
        )
    return Begun(run_id, driver.run(root, found.steps, store, run_id, overrides, config_dir))
