"""Every command of AGENTS.md does what it says there."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "AGENTS.md").read_text()
COMMANDS = [line.split("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("    fmtrain ")]


@pytest.fixture(scope="module")
def place(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ./store holds a run of the tiny quickstart: so the run of the page reuses all of it."""
    folder = tmp_path_factory.mktemp("agents")
    shutil.copytree(tiny_store, folder / "store")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(command: str, place: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "FMTRAIN_STORE"}
    words = [sys.executable, "-P", "-m", "launch.cli", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0 and done.stdout.strip(), done.stdout + done.stderr


def test_the_page_has_commands_and_every_exit_code() -> None:
    from fmtrain.errors import ExitCode

    assert len(COMMANDS) > 8
    assert {int(code) for code in ExitCode} == {
        int(line.split("|")[1])
        for line in TEXT.splitlines()
        if line.startswith("| ") and line.split("|")[1].strip().isdecimal()
    }
