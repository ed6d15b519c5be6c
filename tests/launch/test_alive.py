"""A run goes on where somebody who was asked says so: its process, its queue, a sign of life; else nobody knows."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fmtrain.run import lease
from fmtrain.run.stage import PRIVATE
from launch import alive, status
from launch.cli import main
from launch.status import store_at
from tests.launch.test_cli import program, run_json


def found(store: Path) -> dict[str, Any]:
    (run,) = status.runs(store_at(str(store)))
    return run


def test_a_process_of_this_machine_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = {name: value for name, value in asdict(lease.owner("a")).items() if name != "run"}
    record = {**me, "pid": child.pid, "started": lease.process_start(child.pid), "state": "running", "stage": "corpus"}
    folder = run_json(tmp_path, "a", **record)
    (folder / "plan.json").write_text(json.dumps([{"stage": "corpus", "action": "run", "reason": ""}]))
    (folder / "stages" / "corpus").mkdir(parents=True)
    left = {"done": 1, "total": 2, "unit": "steps", "seconds_left": 120}
    (folder / "stages" / "corpus" / "progress.json").write_text(json.dumps(left))
    assert found(tmp_path)["state"] == "running"
    child.kill()
    child.wait()
    run = found(tmp_path)
    assert run["state"] == "died" and run["asked"] == [f"process {child.pid} on {me['host']} is gone"]
    assert main(["status", "a", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "is gone" in out and "2 min" not in out and "unfinished" in out


def test_a_run_elsewhere_lives_by_the_signs_of_its_lease(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(tmp_path, "a", state="running")
    with lease.held(tmp_path / "leases" / "corpus-f", "a", "corpus"):
        run = found(tmp_path)
    assert run["state"] == "running" and run["asked"][-1] == "its lease has given a sign of life"
    run = found(tmp_path)
    assert run["state"] == "unknown"
    assert run["asked"] == [
        "process 1 on elsewhere cannot be asked from here", "it holds no lease, whose signs of life would tell"
    ]  # fmt: skip
    assert main(["status", "--json", "--store", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "unknown"


FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
SILENT = "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"


def answer(state: str) -> str:
    return f"printf 'JobId=17 JobName=x\\n   JobState={state} Reason=None\\n   Requeue=1 Restarts=0\\n'"


@pytest.mark.parametrize(
    ("recorded", "scontrol", "state", "said"),
    [
        ("running", answer("RUNNING"), "running", "Slurm: job 17 is RUNNING"),
        ("running", answer("PENDING"), "queued", "Slurm: job 17 is PENDING"),
        ("running", answer("CANCELLED"), "cancelled", "Slurm: job 17 is CANCELLED"),
        ("running", answer("NODE_FAIL"), "died", "Slurm: job 17 is NODE_FAIL"),
        ("running", FORGOTTEN, "died", "Slurm has forgotten job 17"),
        ("running", SILENT, "unknown", "Unable to contact slurm controller"),
        ("queued", answer("PENDING"), "queued", "Slurm: job 17 is PENDING"),
        ("queued", answer("CANCELLED"), "cancelled", "Slurm: job 17 is CANCELLED"),
        ("queued", answer("FAILED"), "failed", "Slurm: job 17 is FAILED"),
        ("queued", FORGOTTEN, "failed", "Slurm has forgotten job 17"),
        ("queued", SILENT, "queued", "Unable to contact slurm controller"),
        ("queued", None, "queued", "no scontrol on this machine"),
        ("requeue", answer("CANCELLED"), "cancelled", "Slurm: job 17 is CANCELLED"),
        ("done", answer("CANCELLED"), "done", ""),
    ],
)
def test_the_queue_is_asked(
    recorded: str, scontrol: str | None, state: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_json(tmp_path, "a", state=recorded, job="17", pid=None if recorded == "queued" else 1)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    if scontrol is not None:
        program(tmp_path / "bin", "scontrol", scontrol)
        os.symlink("/bin/sh", tmp_path / "bin" / "sh")
    run = found(tmp_path)
    assert run["state"] == state, run
    assert said in " ".join(run["asked"])


def test_a_damaged_record_is_that_run_s_alone(tmp_path: Path) -> None:
    run_json(tmp_path, "a", state="running", pid="one", started=["x"])
    run_json(tmp_path, "b", state="done")
    assert [run["state"] for run in status.runs(store_at(str(tmp_path)))][1] == "done"


def test_a_ray_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = run_json(tmp_path, "a", state="running")
    (folder / "config.json").write_text(json.dumps({"launch": {"address": "127.0.0.1:1"}}))
    assert any("Ray at 127.0.0.1:1 takes no connection" in answer for answer in found(tmp_path)["asked"])


def test_what_killed_runs_left_of_secrets_goes_with_the_next(tmp_path: Path) -> None:
    """Not that of a run that lives, of one elsewhere, or whose record is damaged."""
    me = {name: value for name, value in asdict(lease.owner("a")).items() if name != "run"}
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = {**me, "pid": gone.pid, "started": "1"}
    records = {"killed": dead, "here": me, "elsewhere": {**dead, "host": "elsewhere"}, "damaged": dead}
    folders = {run: run_json(tmp_path, run, state="running", **record) for run, record in records.items()}
    left = {run: folder / "stages" / "s" / PRIVATE for run, folder in folders.items()}
    for path in left.values():
        path.parent.mkdir(parents=True)
        path.touch()
    (left["damaged"].parents[2] / "run.json").write_text("[")
    alive.forget_secrets(store_at(str(tmp_path)))
    assert {run for run, path in left.items() if not path.exists()} == {"killed"}
