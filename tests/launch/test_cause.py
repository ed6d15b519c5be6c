"""Whose fault a failed stage is: real processes in the worker's frame, started inline, ending in every way."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from fmtrain.artifacts.stage import Stage, write_stage
from fmtrain.errors import ConfigError, FmtrainError, InputError, RankLost, StageFailed
from launch.backends.command import Command
from launch.backends.inline import InlineJob
from launch.cause import cause

# What a rank does, by its name in the command line; `lost` is what the other rank does, once the first has ended.
RANKS = """
import os, signal, sys, time
from pathlib import Path
from fmtrain.train.signals import STOP
STOP.install()
folder, ends = Path(sys.argv[1]), sys.argv[2].split(",")
rank = int(os.environ["RANK"])
(folder / f"pid{rank}").write_text(str(os.getpid()))
if ends[rank] == "unborn":
    print("no module named so", flush=True)
    os._exit(1)
if ends[rank] == "killed unborn":
    os.kill(os.getpid(), signal.SIGKILL)
from fmtrain.errors import ConfigError, InputError
from fmtrain.artifacts.worker import Result, main

def other_is_gone():
    path = folder / f"pid{1 - rank}"
    while not (path.exists() and path.read_text()):
        time.sleep(0.01)
    stat = Path(f"/proc/{path.read_text()}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
        time.sleep(0.01)

def run(stage):
    STOP.framed = True
    end = ends[rank]
    if end == "killed":
        print("the last words of rank", rank, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "real time":
        os.kill(os.getpid(), signal.SIGRTMIN + 1)
    if end == "silent":
        os._exit(7)
    if end == "input":
        raise InputError("rows.jsonl is empty")
    if end == "config":
        raise ConfigError("lr=big is not a number")
    if end == "error":
        raise ZeroDivisionError("our own mistake")
    if end == "lost":
        other_is_gone()
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")
    if end == "told":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return Result()

main(run, [str(folder)])
"""


def end(folder: Path, ends: str) -> FmtrainError:
    stage = Stage("pretrain", "model", "pretrain", "f" * 32, "test", {}, {}, {}, [], str(folder / "work"))
    write_stage(folder / "stage", stage)
    stage.work_dir.mkdir()
    script = folder / "ranks.py"
    script.write_text(RANKS)
    command = Command(
        "pretrain", [sys.executable, "-P", str(script), str(folder / "stage"), ends], folder / "logs", ranks=2
    )
    job = InlineJob(command)
    failures = job.wait(60)
    assert failures
    return cause("pretrain", command, folder / "stage", job.hosts, failures)


@pytest.mark.parametrize(
    ("ends", "kind", "said"),
    [
        ("lost,killed", RankLost, "rank 1 on {host} was killed by signal 9 (SIGKILL"),
        ("killed,lost", RankLost, "rank 0 on {host} was killed by signal 9 (SIGKILL"),
        ("sleep,killed unborn", RankLost, "rank 1 on {host} was killed by signal 9"),
        ("lost,real time", RankLost, f"rank 1 on {{host}} was killed by signal {signal.SIGRTMIN + 1} (SIGRTMIN+1)"),
        ("sleep,unborn", StageFailed, "rank 1 on {host} left with exit code 1 and said nothing"),
        ("lost,silent", StageFailed, "rank 1 on {host} left with exit code 7"),
        ("lost,input", InputError, "rows.jsonl is empty"),
        ("lost,config", ConfigError, "lr=big"),
        ("error,lost", StageFailed, "rank 0 on {host}: ZeroDivisionError: our own mistake"),
        ("lost,error", StageFailed, "rank 1 on {host}: ZeroDivisionError: our own mistake"),
        ("sleep,told", RankLost, "rank 1 on {host} was told to stop by somebody else than this run"),
    ],
)
def test_the_cause_is_told_and_not_a_consequence(
    ends: str, kind: type[FmtrainError], said: str, tmp_path: Path
) -> None:
    error = end(tmp_path, ends)
    assert type(error) is kind, error
    assert said.format(host=os.uname().nodename) in str(error)
    if "killed" in ends and "unborn" not in ends:
        assert f"the last words of rank {ends.split(',').index('killed')}" in str(error)
        assert "Connection closed" not in str(error)
    if ends == "sleep,unborn":
        assert "no module named so" in str(error)
    for path in (tmp_path / "stage").glob("pid*"):
        assert not Path(f"/proc/{path.read_text()}").exists(), "the others are gone too"


def test_reports_of_all_ranks_stay(tmp_path: Path) -> None:
    """The first to fail is `error.json`, by being first to make it and not by a clock; each has its own."""
    end(tmp_path, "error,lost")
    first, own = (json.loads((tmp_path / "stage" / name).read_text()) for name in ("error.json", "error-rank0.json"))
    said = {"exit_code": 4, "error": "ZeroDivisionError", "message": "ZeroDivisionError: our own mistake", "rank": 0}
    assert first == own == said
