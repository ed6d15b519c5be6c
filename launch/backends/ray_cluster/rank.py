"""The actor behind one process of a command: says where it is, runs the process, and shows it in Ray's dashboard.

The process is the actor's child, and Ray measures the actor alone. So the actor tells, as metrics with the tags run,
stage and rank, what the process needs (memory of it and all below it) and how far it is (its stage's progress.json).
"""

import os
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtrain.artifacts.storage import read_left
from launch.backends.command import Command
from launch.backends.environment import environment
from launch.backends.process import Process

SHOW_EVERY = 2.0  # seconds between two looks at the process and its progress
_SHOWN = {
    "done": ("progress", "How far the stage is, in its own unit: optimizer steps, documents"),
    "total": ("total", "Where the stage ends, in its own unit"),
    "loss": ("loss", "The loss of the last optimizer step"),
    "tokens_per_second": ("tokens_per_second", "Tokens of all ranks in the last optimizer step by its seconds"),
}


@dataclass(frozen=True)
class Place:
    """Where an actor is: Ray's node, its address, its host name, the GPUs given to the actor."""

    node: str
    address: str
    host: str
    gpus: list[str]


@dataclass(frozen=True)
class Title:
    """What people know a rank by."""

    run: str
    stage: str
    rank: int
    ranks: int

    def __str__(self) -> str:
        return f"{self.stage} rank {self.rank} of {self.ranks}"


class Rank:
    """Ray shows what `repr` says of it in lists of actors and before its log lines."""

    def __init__(self, title: Title) -> None:
        self.title = title
        self.process: Process | None = None

    def __repr__(self) -> str:
        return str(self.title)

    def where(self) -> Place:
        import ray

        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        return Place(
            ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), socket.gethostname(), gpus
        )

    def run(self, command: Command, ours: dict[str, str], lacking: dict[str, str]) -> int:
        """The process's exit code. `ours` is set over this node's environment, `lacking` only where it has none."""
        env = {**lacking, **environment(command.kind), **(of_ray(os.environ) if command.pool else {}), **ours}
        argv = [sys.executable, *command.argv[1:]]  # this node's interpreter, known to be of the driver's version
        self.process = Process(argv, env, command.log(self.title.rank))
        done = threading.Event()
        threading.Thread(target=self._show, args=(Path(argv[-1]), done), daemon=True).start()
        try:
            return self.process.wait()
        finally:
            done.set()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def _show(self, folder: Path, done: threading.Event) -> None:
        gauges, title = _gauges(), self.title
        tags = {"run": title.run, "stage": title.stage, "rank": str(title.rank)}
        while not done.wait(SHOW_EVERY):
            assert self.process is not None
            gauges["memory_bytes"].set(memory(self.process.pid), tags)
            for name, value in progress(folder).items():
                gauges[name].set(value, tags)


def of_ray(env: Mapping[str, str]) -> dict[str, str]:
    """What a process that joins Ray by itself needs of a worker's environment: settings and token, not its own job."""
    drop = ("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_CLIENT_MODE", "RAY_LD_PRELOAD_ON_WORKERS")
    return {name: value for name, value in env.items() if name.startswith("RAY_") and name not in drop}


def memory(pid: int) -> int:
    """Resident bytes of a process and of all below it; what they share counts once for each."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    found = 0
    for member in family:
        try:
            found += int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return found


def progress(folder: Path) -> dict[str, float]:
    """What the stage in `folder` says of itself, by the names of our metrics; nothing before it has said something."""
    said = read_left(folder / "progress.json", dict)
    return {name: float(said[key]) for key, (name, _) in _SHOWN.items() if isinstance(said.get(key), int | float)}


def _gauges() -> dict[str, Any]:
    """Ray's Prometheus endpoint has them as ray_fmtrain_*."""
    from ray.util.metrics import Gauge

    said = {**dict(_SHOWN.values()), "memory_bytes": "Resident memory of the rank's process and all below it"}
    return {name: Gauge(f"fmtrain_{name}", text, tag_keys=("run", "stage", "rank")) for name, text in said.items()}
