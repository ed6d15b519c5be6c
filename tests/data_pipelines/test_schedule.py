"""The scheduler: what is finished is not run again, and a failure keeps its type and its words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.schedule import Counts, Scheduler, Task
from fmtrain.errors import InputError
from fmtrain.run.stage import Stage

# Tasks for Ray are imported by its workers, so they stand in a file that the driver's folder holds.
_TASKS = """
import os, sys
from pathlib import Path
from data_pipelines.schedule import Scheduler
from fmtrain.errors import FmtrainError, InputError
from fmtrain.run.stage import Stage

def good(task, item):
    (task.scratch / f"{task.rank}.txt").write_text(item)
    task.tick(1)
    return {"tasks": 1, "pid": os.getpid()}

def bad_input(task, item):
    if item == "b": raise InputError("b.jsonl is damaged")
    return {"tasks": 1}

def bug(task, item):
    return {"tasks": int(item)}

def dies_once(task, item):
    mark = task.parts / f"mark-{item}"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return {"tasks": 1}

def dies(task, item):
    os._exit(1)

def full(task, item):
    raise OSError(28, "No space left on device", "x")

if __name__ == "__main__":
    work, executor, name = sys.argv[1:]
    stage = Stage("corpus", "corpus", "c", "f", "r", {}, {}, {}, [], work, {"executor": executor}, Path(work))
    import tasks_for_test
    try:
        with Scheduler(stage, "key") as scheduler:
            print(scheduler.run("step", getattr(tasks_for_test, name), ["a"] if name == "dies" else ["a", "b", "c"]))
    except Exception as e:
        print(type(e).__name__, str(e))
    print("ray" in sys.modules)
"""


@pytest.fixture
def scheduler(tmp_path: Path) -> Scheduler:
    resources = {"executor": "inline"}
    return Scheduler(
        Stage("corpus", "corpus", "c", "f", "r", {}, {}, {}, [], str(tmp_path), resources, tmp_path), "key"
    )


def write(task: Task, item: str) -> Counts:
    if item == "stop":
        raise InputError("stopped")
    (task.scratch / "sub").mkdir()
    (task.scratch / "sub" / f"{task.rank}.txt").write_text(item)
    (task.parts / f"ran-{task.rank}").write_bytes(b"x")
    return {"tasks": 1}


def test_finished_tasks_are_not_run_again(scheduler: Scheduler) -> None:
    with scheduler:
        with pytest.raises(InputError, match="stopped"):
            scheduler.run("step", write, ["a", "stop", "c"])
        assert (scheduler.parts / "ran-0").exists()
        (scheduler.parts / "ran-0").unlink()
    with scheduler:
        assert scheduler.run("step", write, ["a", "b", "c"]) == [{"tasks": 1}] * 3
        assert not (scheduler.parts / "ran-0").exists()
        files = sorted(p.name for p in (scheduler.parts / "step").rglob("*.txt"))
        assert files == ["0.txt", "1.txt", "2.txt"] and not list((scheduler.parts / "step").glob(".scratch*"))


def test_another_key_starts_anew(scheduler: Scheduler) -> None:
    with scheduler:
        scheduler.run("step", write, ["a"])
    other = Scheduler(scheduler.stage, "other")
    with other:
        assert not scheduler.parts.exists() and other.parts.exists()


def drive(folder: Path, executor: str, name: str, env: dict[str, str]) -> str:
    (folder / "tasks_for_test.py").write_text(_TASKS)
    command = [sys.executable, str(folder / "tasks_for_test.py"), str(folder / "work"), executor, name]
    (folder / "work").mkdir(exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("good", "[{'tasks': 1, 'pid'"),
        ("bad_input", "InputError b.jsonl is damaged"),
        ("bug", "ValueError invalid literal"),
        ("full", "StoreError cannot write under"),
    ],
)
def test_a_task_s_error_is_the_stage_s(
    tmp_path: Path, ray_env: dict[str, str], executor: str, name: str, outcome: str
) -> None:
    said = drive(tmp_path, executor, name, ray_env if executor == "ray" else {})
    assert outcome in said
    assert said.splitlines()[-1] == str(executor == "ray")


def test_a_dead_worker_s_task_is_run_again(tmp_path: Path, ray_env: dict[str, str]) -> None:
    assert "[{'tasks': 1}, {'tasks': 1}" in drive(tmp_path, "ray", "dies_once", ray_env)


@pytest.mark.long
def test_a_task_that_always_dies_fails_the_stage(tmp_path: Path, ray_env: dict[str, str]) -> None:
    assert "StageFailed task corpus:step:" in drive(tmp_path, "ray", "dies", ray_env)


def test_no_cluster_is_said_plainly(tmp_path: Path, ray_env: dict[str, str]) -> None:
    env = {k: v for k, v in ray_env.items() if k != "RAY_ADDRESS"}
    assert "RAY_ADDRESS is not set" in drive(tmp_path, "ray", "good", {**env, "RAY_ADDRESS": ""})
