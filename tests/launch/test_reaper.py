"""Nothing of a held process lives on, whatever else runs on the machine."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fmtrain.artifacts.lease import process_start
from launch.backends.environment import module
from launch.backends.reaper import descendants

ODD = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0); print(1, flush=True); sys.stdin.read()"


@pytest.fixture
def odd() -> Iterator[int]:
    """A process whose name is no UTF-8: every user of the machine may start one."""
    process = subprocess.Popen([sys.executable, "-c", ODD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate()


def test_the_name_of_a_process_may_be_any_bytes(odd: int) -> None:
    assert process_start(odd) is not None
    assert odd in descendants(os.getpid())


@pytest.mark.parametrize("command", ["sleep 600 & echo $!; exec sleep 600", "setsid sleep 600 & echo $!"])
def test_all_ends_with_standard_input_or_with_the_command(command: str, odd: int) -> None:
    ours, theirs = os.pipe()
    reaper = subprocess.Popen(
        module("launch.backends.reaper", "", "", str(theirs), "sh", "-c", command),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs], text=True,
    )  # fmt: skip
    os.close(theirs)
    assert reaper.stdin is not None and reaper.stdout is not None
    orphan = int(reaper.stdout.readline())
    if "exec" in command:
        assert process_start(orphan) is not None
        reaper.stdin.close()
    assert reaper.wait(timeout=60) == 0
    assert process_start(orphan) is None
    os.close(ours)
    reaper.stdin.close()
    reaper.stdout.close()
