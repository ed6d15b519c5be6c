"""`fmtrain run launch=slurm` outside a job: submit the job that runs the same command inside."""

import argparse
import datetime
import shlex
import shutil
from pathlib import Path

from fmtrain.errors import FmtrainError
from fmtrain.run import lease
from fmtrain.run.storage import disk_errors, read_json, write_json
from fmtrain.run.store import Store
from fmtrain.schema.launch import Slurm
from fmtrain.schema.root import Root
from launch import driver
from launch.backends import slurm
from launch.backends.environment import module


def submit(root: Root, config: Slurm, store: Store, args: argparse.Namespace) -> int:
    run_id = driver.new_run_id()
    folder = store.run_dir(run_id)
    words = module("launch.cli", "run", *args.overrides)
    if config.dry_run:
        print(slurm.render(config, folder, words), end="")
        return 0
    with disk_errors(store.root):
        folder.mkdir(parents=True)
        _record_queued(folder, root, args.overrides)
        try:
            job = slurm.submit(config, folder, words)
        except FmtrainError as e:
            shutil.rmtree(folder)
            script = f"The script is {folder / slurm.SCRIPT}"
            raise type(e)(str(e).replace(script, "launch.dry_run=true prints the script")) from None
        _note_job(folder, job)
    print(f"job {job}  run {run_id}")
    print(f"  output  {folder / f'slurm-{job}.out'}")
    print(f"  follow  fmtrain status {run_id} --store {shlex.quote(str(store.root))}", flush=True)
    return slurm.wait(job, folder / f"slurm-{job}.out") if args.wait else 0


def _record_queued(folder: Path, root: Root, overrides: list[str]) -> None:
    """The run's state until the job begins and records its own; it may begin before sbatch has returned."""
    state = {
        **lease.owner(folder.name),
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
