"""A rank that is killed, while it starts and in the middle of training, and a run that is told to stop: whose fault is
told, with which exit code."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fmtrain.artifacts.lease import process_start
from launch.backends.reaper import descendants

PRETRAIN_ALONE = [f"stages.{stage}=null" for stage in ("examples", "sft", "reference", "dpo", "evaluate", "publish")]


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    """With tokens and nothing trained."""
    shutil.copytree(tiny_store, tmp_path / "store", ignore=shutil.ignore_patterns("model", "runs"))
    return tmp_path / "store"


def start(store: Path, stdout: int = subprocess.PIPE, launch: str = "inline") -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "launch.cli", "run", "recipe=quickstart_tiny", f"launch={launch}"]
    command += [*PRETRAIN_ALONE, f"store={store}"]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def rank_one(driver: int) -> int | None:
    for pid in descendants(driver):
        try:
            if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        except OSError:
            continue
    return None


def until(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    while not ready():
        assert process.poll() is None
        time.sleep(0.01)


def trains(store: Path) -> bool:
    return any(path.stat().st_size for path in store.glob("work/model/*/metrics.jsonl"))


def imports_torch(pid: int | None) -> bool:
    return pid is not None and "libtorch" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("when", ["starting", "importing", "training"])
def test_a_killed_rank_is_named(when: str, store: Path) -> None:
    run = start(store)
    until(run, lambda: rank_one(run.pid) is not None)
    if when != "starting":
        until(run, lambda: imports_torch(rank_one(run.pid)) if when == "importing" else trains(store))
    victim = rank_one(run.pid)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 4, said
    assert f"pretrain failed: rank 1 on {os.uname().nodename} was killed by signal 9 (SIGKILL" in said
    assert "requeue" not in said.lower() and "SIGTERM" not in said and "logs/pretrain/rank1.log" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_told_to_stop_while_its_ranks_start_may_be_run_again(number: int, store: Path) -> None:
    run = start(store)
    until(run, lambda: rank_one(run.pid) is not None)
    family = descendants(run.pid)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 75 and "the same command goes on from what is saved" in said
    assert not [pid for pid, started in family.items() if started and process_start(pid) == started]


def test_a_rank_that_somebody_else_told_to_stop_is_no_requeue(store: Path) -> None:
    run = start(store)
    until(run, lambda: trains(store))
    victim = rank_one(run.pid)
    assert victim is not None
    os.kill(victim, signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 4 and "told to stop by somebody else" in said


def test_a_terminal_that_was_closed_is_not_a_full_store(store: Path) -> None:
    """The run was told to go on without it (nohup): it does."""
    ours, theirs = os.openpty()
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = start(store, stdout=theirs)
    finally:
        signal.signal(signal.SIGHUP, previous)
    os.close(theirs)
    until(run, lambda: rank_one(run.pid) is not None)
    os.close(ours)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 0 and "cannot write" not in said
    assert any(store.glob("artifacts/model/pretrain/v*/manifest.json"))
