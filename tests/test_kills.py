"""Random kills over every stage, as benchmarks/kills.py does them: a few here, a hundred by `make test-faults`."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

CI = pytest.param("local", 5, marks=[pytest.mark.long(2), pytest.mark.timeout(900)])
ALL = pytest.param("inline,local", 100, marks=[pytest.mark.faults, pytest.mark.timeout(3 * 3600)])


@pytest.mark.parametrize(("launch", "kills"), [CI, ALL])
def test_a_killed_run_goes_on_to_the_same_bytes(launch: str, kills: int) -> None:
    command = [sys.executable, "benchmarks/kills.py", f"--kills={kills}", f"--launch={launch}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
