"""A run goes on where somebody who was asked says so: its process, its queue, a sign of life; else nobody knows."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts import lease
from fmtrain.artifacts.stage import GIVEN, PRIVATE
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


@pytest.mark.parametrize(("said", "asked"), [(answer("RUNNING"), 15), (SILENT, 1)])
def test_no_more_is_asked_than_is_shown_and_nothing_more_of_who_is_silent(
    said: str, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that is down costs every question a minute."""
    for number in range(20):
        run_json(tmp_path, f"r{number:02}", state="running", job=str(number))
    program(tmp_path / "bin", "scontrol", f"echo x >> {tmp_path}/asked; {said}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    store = store_at(str(tmp_path))
    shown = status.runs(store)
    assert [run["id"] for run in shown] == [f"r{number:02}" for number in range(5, 20)]
    assert len((tmp_path / "asked").read_text().split()) == asked
    assert all("connect failure" in " ".join(run["asked"]) for run in shown) == (said == SILENT)
    assert [run["id"] for run in status.runs(store, "r01")] == ["r01"]


def test_a_controller_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "_PATIENCE", 0.2)
    program(tmp_path / "bin", "scontrol", "exec sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    run_json(tmp_path, "a", state="running", job="17")
    assert "no answer within" in " ".join(found(tmp_path)["asked"])


def test_a_damaged_record_is_that_run_s_alone(tmp_path: Path) -> None:
    run_json(tmp_path, "a", state="running", pid="one", started=["x"])
    run_json(tmp_path, "b", state="done")
    assert [run["state"] for run in status.runs(store_at(str(tmp_path)))][1] == "done"


def test_a_ray_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = run_json(tmp_path, "a", state="running")
    (folder / "config.json").write_text(json.dumps({"launch": {"address": "127.0.0.1:1"}}))
    assert any("Ray at 127.0.0.1:1 takes no connection" in answer for answer in found(tmp_path)["asked"])


JOBS = {
    "1": answer("RUNNING"),
    "2": answer("PENDING"),
    "3": answer("CANCELLED"),
    "4": answer("TIMEOUT"),
    "5": FORGOTTEN,
}


def test_what_ended_runs_left_of_secrets_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a run that lives, of one elsewhere, or whose record is damaged; nor what another turn may need: a job
    that goes back to the queue may be called cancelled for a moment."""
    cases = "".join(f"{job}) {said} ;;\n" for job, said in JOBS.items())
    program(tmp_path / "bin", "scontrol", f'case "$3" in\n{cases}esac')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    me = {name: value for name, value in asdict(lease.owner("a")).items() if name != "run"}
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = {**me, "pid": gone.pid, "started": "1"}
    records = {"killed": dead, "here": me, "elsewhere": {**dead, "host": "elsewhere"}, "damaged": dead}
    records["here, in a job that Slurm has forgotten"] = {**me, "job": "5"}
    records |= {f"job {job}": {"state": "queued", "pid": None, "job": job} for job in JOBS}
    records |= {f"turn of {job}": {"host": "elsewhere", "job": job} for job in JOBS}
    left = dict[str, Path]()
    for run, record in records.items():
        folder = run_json(tmp_path, run, **{"state": "running", **record})
        left[run] = folder / (GIVEN if run.startswith("job") else f"stages/s/{PRIVATE}")
        left[run].parent.mkdir(parents=True, exist_ok=True)
        left[run].touch()
    (left["damaged"].parents[2] / "run.json").write_text("[")
    alive.forget_secrets(store_at(str(tmp_path)))
    over = {f"{what} {job}" for what in ("job", "turn of") for job in ("4", "5")}
    assert {run for run, path in left.items() if not path.exists()} == {"killed", *over}
