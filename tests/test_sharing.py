"""What keeps tests apart and together on two workers, tried on a folder of small tests."""

import re
import subprocess
import sys
from pathlib import Path

from tests.needs import REPOSITORY

TESTS = """
import os
from pathlib import Path
import pytest
from tests.sharing import once

@pytest.fixture(scope="module")
def dear():
    print("made dear")

@pytest.fixture
def ray_env():
    pass

@pytest.mark.parametrize("n", range(6))
def test_module(n, dear): pass

@pytest.mark.parametrize("n", range(6))
def test_ray(n, ray_env): pass

@pytest.mark.long(9)
def test_longest(): pass

@pytest.mark.parametrize("n", range(6))
def test_folder(n, tmp_path_factory):
    folder = once(tmp_path_factory, "shared", lambda f: (f / f"by-{os.environ['PYTEST_XDIST_WORKER']}").touch())
    assert len(list(folder.iterdir())) == 1
"""


def test_groups_stay_on_one_worker_and_folders_are_made_once(tmp_path: Path) -> None:
    (tmp_path / "test_these.py").write_text(TESTS)
    options = ["-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-vv", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "-p", "tests.conftest", "--import-mode=importlib"]
    done = subprocess.run([*command, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    workers, first = dict[str, set[str]](), dict[str, str]()
    for worker, name in re.findall(r"\[(gw\d)\].* PASSED .*::(test_\w+)", done.stdout):
        workers.setdefault(name, set()).add(worker)
        first.setdefault(worker, name)
    assert len(workers) == 4
    assert len(workers["test_module"]) == len(workers["test_ray"]) == 1, done.stdout
    assert "test_longest" in first.values(), done.stdout
