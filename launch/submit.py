"""A run with launch=slurm outside a job: submit the job that runs the same command inside."""

import dataclasses
import datetime
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from fmtrain import redact
from fmtrain.artifacts import lease
from fmtrain.artifacts.stage import GIVEN
from fmtrain.artifacts.storage import disk_errors, private_dir, read_json, unwatched, write_json, write_private
from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import of
from fmtrain.schema.launch import Slurm
from fmtrain.schema.root import Root
from launch.backends import slurm, slurm_script
from launch.backends.environment import module
from launch.fetch import fetch
from launch.keys import GROUPS
from launch.plan import KEPT, Step
from launch.recipes import files, is_file
from launch.record import new_run_id
from launch.reproduce import Published


@dataclass(frozen=True)
class Submitted:
    """A run that waits in the queue, or runs there."""

    run_id: str
    folder: Path
    job: str
    output: Path

    def wait(self) -> int:
        """Follow the job to its end; its exit code."""
        return slurm.wait(self.job, self.output, self.folder)


def show_script(
    root: Root,
    config: Slurm,
    store: Store,
    overrides: list[str],
    config_dir: Path | None,
    source: Published | None = None,
) -> None:
    """Print the batch script that `submit` would hand to Slurm."""
    run_id, config = _named(root, config)
    shown = redact.shown_in(overrides)
    if shown != overrides:
        print("note: a secret is left out of this script; give it as ${oc.env:NAME}", file=sys.stderr)
    here = str(Path.cwd()).replace("%", "%%")  # its output cannot go to a folder that nobody has made yet
    config = dataclasses.replace(config, output=config.output or f"{here}/slurm-%j.out")
    words = module("launch.cli", "run", *_where(config_dir, source), *shown)
    print(slurm_script.render(config, store.run_dir(run_id), words), end="")


def submit(
    root: Root,
    config: Slurm,
    store: Store,
    overrides: list[str],
    config_dir: Path | None,
    steps: list[Step],
    source: Published | None = None,
) -> Submitted:
    """Hand the same command to Slurm, and say where it can be followed.

    What the steps need of a hub is fetched before: nodes may have no way there, and see the same cache.
    """
    run_id, config = _named(root, config)
    folder = store.run_dir(run_id)
    with disk_errors(store.root):
        private_dir(folder)
        try:
            fetch([step for step in steps if step.action not in KEPT], folder, [], unwatched)
        except BaseException:
            shutil.rmtree(folder)
            raise
        overrides = _kept(overrides, folder, config_dir)
        if config_dir:
            config_dir = _kept_options(config_dir, folder / "options")
        shown = redact.shown_in(overrides)
        words = module("launch.cli", "run", *_where(config_dir, source), *shown)
        _record_queued(folder, root, shown)
        if shown != overrides:  # every user of a node sees the words of its processes
            write_private(folder / GIVEN, overrides)
            words = module("launch.cli", "run", *_where(config_dir, source), "--given", str(folder / GIVEN))
        try:
            job = slurm.submit(config, folder, words)
        except ConfigError as e:
            shutil.rmtree(folder)
            script = f"The script is {folder / slurm_script.SCRIPT}"
            raise type(e)(str(e).replace(script, "launch.dry_run=true prints the script")) from None
        _note_job(folder, job)
    output = slurm.output(folder, job, config.output)
    print(f"job {job}  run {run_id}")
    print(f"  output  {output}")
    print(f"  follow  fmtrain status {run_id} --store {shlex.quote(str(store.root))}", flush=True)
    return Submitted(run_id, folder, job, output)


def _named(root: Root, config: Slurm) -> tuple[str, Slurm]:
    """A new run's id, and the job's settings with the names that tell of it."""
    check_room(root, config)
    run_id = new_run_id()
    named = config.job_name or f"{root.recipe}-{run_id}"  # the recipe first: squeue shows eight letters
    return run_id, dataclasses.replace(config, job_name=named, comment=config.comment or f"fmtrain run {run_id}")


def _where(config_dir: Path | None, source: Published | None) -> list[str]:
    words = [f"--config-dir={config_dir.absolute()}"] if config_dir else []
    return words + ([f"--from={source.folder}"] if source else [])


def _kept(overrides: list[str], folder: Path, config_dir: Path | None = None) -> list[str]:
    """The overrides with a recipe that is a file as a copy in the run's folder: what a job runs is what was planned."""
    found = []
    for word in overrides:
        name, _, given = word.partition("=")
        if name == "recipe" and is_file(given := given.strip("'\"")):
            private_dir(folder / "recipe")
            copies = [shutil.copyfile(file, folder / "recipe" / file.name) for file in files(given, config_dir)]
            word = "recipe='" + str(copies[0].absolute()).replace("'", "\\'") + "'"
        found.append(word)
    return found


def _kept_options(given: Path, folder: Path) -> Path:
    """A copy of the options in `given`."""
    for file in (path for group in (*GROUPS, "recipe") for path in (given / group).glob("*.yaml")):
        private_dir(folder / file.parent.name)
        shutil.copyfile(file, folder / file.parent.name / file.name)
    return private_dir(folder)


def check_room(root: Root, config: Slurm) -> None:
    """ConfigError for ranks that the job's nodes have no room for: else only the job would find that out, hours on."""
    training = {name: stage for name, stage in root.stages.items() if stage is not None and of(stage).ranks}
    if not training:
        return
    each = slurm_script.gpus_per_node(config)
    ranks = config.count(each * config.nodes)
    if each and ranks > each * config.nodes:
        raise ConfigError(
            f"launch.ranks={ranks}: {config.nodes} node(s) with {each} GPUs have one for {each * config.nodes} ranks; "
            f"e.g. launch.ranks={each * config.nodes}, or launch.nodes={-(-ranks // each)}"
        )
    needed = -(-ranks // config.nodes) * config.cpus_per_rank
    if needed > config.cpus_per_task:
        raise ConfigError(
            f"launch.cpus_per_task={config.cpus_per_task}: {ranks} ranks on {config.nodes} node(s), each with "
            f"launch.cpus_per_rank={config.cpus_per_rank}, need {needed} CPUs on a node; e.g. "
            f"launch.cpus_per_task={needed}, or fewer launch.ranks"
        )
    for name, stage in training.items():
        of(stage).check_ranks(stage, f"stages.{name}", ranks)


def _record_queued(folder: Path, root: Root, overrides: list[str]) -> None:
    """The run's state until the job begins and records its own; it may begin before sbatch has returned."""
    state = {
        **asdict(lease.owner(folder.name)),
        "pid": None,
        "started": None,
        "recipe": root.recipe,
        "overrides": overrides,
        "launch": root.launch.name,
        "state": "queued",
        "stage": None,
        "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "notes": [],
    }
    write_json(folder / "run.json", state)


def _note_job(folder: Path, job: str) -> None:
    state = read_json(folder / "run.json")
    if state["state"] == "queued":
        write_json(folder / "run.json", {**state, "job": job, "notes": [f"slurm job {job}"]})
