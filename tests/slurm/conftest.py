"""A real Slurm of two nodes for the tests of this folder; skips with the reason where there can be none."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fmtrain.schema.launch import Slurm
from launch.backends import slurm
from launch.backends.reaper import descendants
from launch.templates.testing.cluster import Cluster
from tests.conftest import fmtrain
from tests.needs import need
from tests.slurm import faults

DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need("slurm")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"), gpus=1)
    try:
        cluster("start")
        yield cluster
    finally:
        cluster("stop", "--purge", check=False)


@pytest.fixture
def cluster(started: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, with its sbatch, scancel, .. on PATH."""
    monkeypatch.setenv("PATH", f"{started.bin}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "FMTRAIN_", "RAY_"))]:
        monkeypatch.delenv(name)
    return started


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """Submit tests/slurm/driver.py with arguments on two nodes of two CPUs: the job and its run folder."""

    def submit(*argv: str, nodes: int = 2, max_restarts: int = 3) -> tuple[str, Path]:
        run_dir = tmp_path / "run-1"
        cfg = Slurm(nodes=nodes, cpus_per_task=2, time="00:20:00", max_restarts=max_restarts)
        return slurm.submit(cfg, run_dir, [sys.executable, str(DRIVER), *argv]), run_dir

    return submit


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with what the recipe makes when nothing happens, without any queue."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    done = fmtrain("run", *faults.RECIPE, "launch=inline", f"store={store}", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return store


def until_said(out: Path, text: str, seconds: float = 240, count: int = 1) -> None:
    """Wait for it in a job's output."""
    end = time.monotonic() + seconds
    while not out.exists() or out.read_text().count(text) < count:
        assert time.monotonic() < end, f"{out} never said {text!r}: {out.read_text() if out.exists() else 'nothing'}"
        time.sleep(0.1)


def nodes(cluster: Cluster) -> list[int]:
    """For each node the process that all of it is below: it has a network of its own, and a pid namespace in ours."""
    return [int(node.read_text().split()[0]) for node in sorted(cluster.state.glob("n?.pid"))]


def ray_processes(cluster: Cluster) -> list[str]:
    """Ray's servers on the cluster's nodes."""
    pids = [pid for node in nodes(cluster) for pid in descendants(node)]
    assert pids, "no process of any node was found"
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if "gcs_server" in line or "raylet" in line]
