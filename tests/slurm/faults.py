"""Faults for a job on two nodes, and what a run makes of them: the table of tests/slurm/test_faults.py.

A case is a run of two ranks over two nodes that is struck once, in its corpus stage or in its training, and left alone.
Measured is the time from the fault to the next step that had not been made before it; what the run makes in the end is
compared with what an undisturbed run on one machine made.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch.templates.testing.cluster import Cluster
from tests.conftest import fmtrain

RECIPE = [
    "recipe=quickstart_tiny", "stages.corpus.tasks=24", "stages.pretrain.steps=300", "checkpoint.every_steps=5",
    "data.modules=[asyncio, email, multiprocessing, unittest, xml, http, logging, json, importlib, urllib, ctypes, "
    "typing, inspect, argparse, pickle, tarfile, doctest, pydoc, datetime, ssl, zipfile, random, statistics, html]",
    *(f"stages.{name}=null" for name in ("examples", "sft", "reference", "dpo", "evaluate", "publish")),
]  # fmt: skip
SLURM = ["launch=slurm", "launch.nodes=2", "launch.cpus_per_task=2", "launch.time=01:00:00"]
# A corpus that is not over before Slurm looks at a job's time, twice a minute: a rule of a plug-in that keeps
# every document and takes its time.
SLOW = """
import dataclasses, time

@dataclasses.dataclass
class Slow:
    seconds: float = 1.0

def make(settings):
    return lambda doc: time.sleep(settings.seconds)

def register(registry):
    registry.rule("slow", Slow, make)
"""
DONE = 10**6  # more steps than any stage here has
STAGES = {"corpus": "data_pipelines", "pretrain": "fmtrain.train"}  # and the module of its worker


@dataclass
class Case:
    """A job of this test: its cluster, its number, and its run's folder."""

    cluster: Cluster
    job: str
    run: Path

    @property
    def said(self) -> str:
        """What the job has printed."""
        out = self.run / f"slurm-{self.job}.out"
        return out.read_text() if out.exists() else ""

    def processes(self, *words: str) -> list[int]:
        """Those on any node whose command line holds all the words and whose environment is this job's."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                around = (folder / "environ").read_bytes()
                if all(word in line for word in words) and str(self.run).encode() in around + line.encode():
                    found.append(int(folder.name))
        return sorted(found)

    def kill(self, *words: str, which: int = 0) -> None:
        until(lambda: len(self.processes(*words)) > which, 60, f"no process {words}")
        os.kill(self.processes(*words)[which], signal.SIGKILL)

    def scontrol(self, *words: str) -> str:
        return self.cluster("exec", "scontrol", *words).stdout


def submit(cluster: Cluster, store: Path, slowly: bool = False) -> Case:
    words, env = [*RECIPE, *SLURM, f"store={store}"], {}
    if slowly:
        (plugged := store.with_name("plugged")).mkdir()
        (plugged / "slow_plugin.py").write_text(SLOW)
        words += ["plugins=[slow_plugin]", "filter.rules=[code, slow]"]
        env = {"PYTHONPATH": str(plugged)}
    done = fmtrain("run", *words, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return Case(cluster, done.stdout.split()[1], store / "runs" / done.stdout.split()[3])


def kill_rank(case: Case, stage: str) -> None:
    case.kill("-m " + STAGES[stage], str(case.run / "stages"))


def kill_driver(case: Case, stage: str) -> None:
    case.kill("launch.cli run")


def kill_gcs(case: Case, stage: str) -> None:
    case.kill("gcs_server")


def kill_raylet(case: Case, stage: str) -> None:
    case.kill("raylet/raylet", which=1)


def cut_second_node(case: Case, stage: str) -> None:
    cut(case, "n2")


def cut_batch_node(case: Case, stage: str) -> None:
    cut(case, "n1")


def cut(case: Case, node: str) -> None:
    case.cluster("node-kill", node)
    time.sleep(3)
    case.cluster("node-start", node)


def preempt(case: Case, stage: str) -> None:
    """As Slurm does it unless told: SIGTERM to the steps, GraceTime, an end by force."""
    case.cluster("preempt", "5")


def warn(case: Case, stage: str) -> None:
    """As Slurm does it under preempt_send_user_signal."""
    case.cluster("exec", "scancel", "--batch", "--signal=USR1", case.job)


def time_limit(case: Case, stage: str) -> None:
    """The limit is soon: Slurm sends USR1 launch.signal_seconds before it, as soon as it looks."""
    case.cluster("time-limit", case.job, "45")
    until(lambda: "got USR1" in case.said or "command left with" in case.said, 200, "an end")
    case.scontrol("update", f"jobid={case.job}", "timelimit=60")  # else no turn of this job has more than those seconds


Fault = Callable[[Case, str], None]
FAULTS: dict[str, Fault] = {
    f.__name__: f
    for f in (
        kill_rank, kill_driver, kill_gcs, kill_raylet, cut_second_node, cut_batch_node, preempt, warn, time_limit,
    )
}  # fmt: skip


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} within {seconds:.0f} s"
        time.sleep(0.1)


def steps_made(store: Path, stage: str) -> int:
    """Steps of the training, saved or not; tasks of the corpus that are finished; more than any where it is whole."""
    kind = "corpus" if stage == "corpus" else "model"
    if list((store / "artifacts" / kind).glob("*/v*/manifest.json")):
        return DONE
    if stage == "corpus":
        return sum(1 for _ in (store / "work" / kind).glob("*/parts/*/*/.done/*.json"))
    rows = [p.read_bytes().count(b"\n") for p in (store / "work" / kind).glob("*/metrics.jsonl")]
    return max(rows, default=0)


def turns_begun(case: Case) -> int:
    """How often the command was run."""
    lines = (case.run / "turns.jsonl").read_text().splitlines()
    return sum(json.loads(line)["event"] == "begun" for line in lines)


def before_training(undisturbed: Path, store: Path) -> None:
    """Put into `store` what comes before the training, which is all that is left to make there."""
    for kind in ("corpus", "tokenizer", "tokens"):
        shutil.copytree(undisturbed / "artifacts" / kind, store / "artifacts" / kind)


def strike(case: Case, store: Path, stage: str, fault: Fault, timeout: float) -> float:
    """Let the stage get on a little, strike it; seconds until another turn is further than any before the fault was."""
    begun = 1 if stage == "corpus" else 7  # a checkpoint, and steps after it
    until(lambda: steps_made(store, stage) >= begun, timeout, f"{stage} made no step")
    before, struck = steps_made(store, stage), time.monotonic()
    assert before < DONE, f"{stage} was over before it could be struck"
    fault(case, stage)

    def goes_on() -> bool:
        nonlocal before
        made = steps_made(store, stage)
        if turns_begun(case) == 1:  # what a stage does while it is asked to stop is no new step
            before = max(before, made) if made < DONE else before
        return made > before

    until(goes_on, timeout, f"{stage} did not go on after {fault.__name__}")
    return time.monotonic() - struck


def contents(store: Path) -> dict[str, str]:
    """Every file of the artifacts that must not differ, with its hash, as the manifests have it."""
    found = {}
    for path in sorted((store / "artifacts").glob("*/*/v*/manifest.json")):
        manifest = json.loads(path.read_text())
        for name, entry in manifest["files"].items():
            if re.search(r"\.(safetensors|bin|npy|gz|zst|parquet)$", name):
                found[f"{manifest['kind']}/{name}"] = entry["sha256"]
    return found


def finish(case: Case, timeout: float) -> str:
    """The state that the job ends in."""
    state = ""

    def ended() -> bool:
        nonlocal state
        said = subprocess.run(["scontrol", "show", "job", case.job], capture_output=True, text=True).stdout
        state = next(iter(re.findall(r"JobState=(\w+)", said)), "")
        return state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    until(ended, timeout, f"job {case.job} did not end")
    return state
