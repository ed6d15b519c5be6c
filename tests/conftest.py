"""Shared by all tests: threads kept low, groups and needs, and small stores to run recipes in."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs, sharing
from tests.needs import REPOSITORY, need
from tests.processes import Place

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job; what we start must hear its Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["REPOSITORY", "fmtrain"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Groups before pytest-xdist reads them in this hook; their order after pytest has sorted and deselected."""
    sharing.mark(items)
    yield
    if hasattr(config, "workerinput"):
        items[:] = sharing.longest_first(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers():
        if mark.name in needs.NEEDS:
            need(mark.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("skipped")
    reasons = [str(r.longrepr[2]).removeprefix("Skipped: ") for r in reports if isinstance(r.longrepr, tuple)]
    terminalreporter.section("what tests may need of a machine")
    for line in needs.summary(reasons):
        terminalreporter.line(line)


def fmtrain(*args: str, timeout: float = 900, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    ours = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}  # set by torch
    return subprocess.run(
        [sys.executable, "-m", "launch.cli", *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**ours, **env},
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is missing."""
    need("data")
    return needs.DATA


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one `quickstart_tiny`; whoever changes something in it copies it first."""

    def make(folder: Path) -> None:
        done = fmtrain("run", "recipe=quickstart_tiny", "launch=inline", f"store={folder / 'store'}")
        assert done.returncode == 0, done.stdout + done.stderr

    return sharing.once(tmp_path_factory, "tiny", make) / "store"


@pytest.fixture
def place() -> Iterator[Place]:
    """A TMPDIR of the test's own: what it starts there is told from everything else, and must not outlive it."""
    folder = Path(tempfile.mkdtemp(prefix="fmt-"))
    yield Place(folder)
    Place(folder).empty()
    shutil.rmtree(folder)
