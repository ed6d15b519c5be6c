"""How many processors this process may use, and by which network it reaches others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmtrain.artifacts import machine
from launch.backends.environment import environment
from launch.backends.inline import InlineBackend

LIMITS = {  # as the kernel lays them: version 2; version 1, with the quota at the group above; none
    "2": ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "150000 100000\n"}, 2),
    "1": (
        "4:memory:/m\n3:cpu,cpuacct:/job\n0::/\n",
        {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
        1,
    ),
    "1 in a container": (  # which sees its own group at the root, under a path of the host's
        "3:cpu,cpuacct:/docker/abc\n",
        {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        1,
    ),
    "none": ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
}


@pytest.mark.parametrize("version", LIMITS)
def test_a_quota_counts(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, files, want = LIMITS[version]
    (tmp_path / "cgroup").write_text(mine)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    monkeypatch.setattr(machine, "_MINE", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert machine.cpus() == want
    assert InlineBackend().cpus == want


def test_an_affinity_counts() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from launch.backends.inline import InlineBackend as B; "
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code} print(B().cpus)"],
        env=environment("compute"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "1\n", done.stderr


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_gpus_that_are_named_and_not_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert InlineBackend().gpus == 0


def test_addresses() -> None:
    assert machine.own_address("127.0.0.1") == "127.0.0.1"
    assert machine.interface_of("127.0.0.1") == "lo" and machine.address_of("lo") == "127.0.0.1"
    assert machine.interface_of("192.0.2.255") is None and machine.address_of("absent0") is None
