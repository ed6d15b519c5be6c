"""What tests need that the Python environment cannot bring: each of it may be missing, and is named with its remedy.

`need("slurm")`, or the mark of that name, skips a test where it is missing. What was found, and how many tests were
skipped for want of what, stands at the end of every run. Packages of the `dev` extra are no need: they are imported.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from launch.templates.testing.cluster import hindrance

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data"
MODELS = Path(os.environ.get("FMTRAIN_TEST_MODELS") or REPOSITORY.parent / "shared" / "models")
CHAT_MODEL = MODELS / "SmolLM2-135M-Instruct"


def _commands(*names: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        lacks = [name for name in names if shutil.which(name) is None]
        return f"no {' '.join(lacks)} on PATH; for Debian's packages see .ci/packages.txt" if lacks else None

    return missing


def _root() -> str | None:
    return None if os.geteuid() == 0 else "run the tests as root"


def _users() -> str | None:
    return _root() or _commands("setpriv")()


def _mount() -> str | None:
    """A tmpfs can be mounted by root alone, and not in every container."""
    if why := _root() or _commands("mount", "umount")():
        return why
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return done.stderr.strip() or None if done.returncode else None


def _data() -> str | None:
    return None if DATA.is_dir() else f"no real data at {DATA}"


def _models() -> str | None:
    if (CHAT_MODEL / "config.json").is_file():
        return None
    return f"no {CHAT_MODEL}; FMTRAIN_TEST_MODELS names a folder of real models (make.py beside the real data makes it)"


NEEDS: dict[str, Callable[[], str | None]] = {
    "root": _root,
    "mount": _mount,
    "slurm": hindrance,
    "users": _users,
    "compressors": _commands("gzip", "xz"),
    "compiler": _commands("cc"),
    "zsh": _commands("zsh"),
    "data": _data,
    "models": _models,
}


@functools.cache
def missing(name: str) -> str | None:
    """Why this machine has no `name`, with the remedy; None where it has."""
    return NEEDS[name]()


def need(name: str) -> None:
    if why := missing(name):
        pytest.skip(f"needs {name}: {why}")


def summary(reasons: Sequence[str]) -> list[str]:
    """What is there; a line for each need that is not, with how many tests were skipped for it; every other skip."""
    others, there, lines = Counter(reasons), [], []
    for name in NEEDS:
        count = sum(others.pop(reason) for reason in list(others) if reason.startswith(f"needs {name}: "))
        if why := missing(name):
            lines.append(f"MISSING {name}, {count} skipped: {why}")
        else:
            there.append(name)
    lines += [f"{count} skipped: {reason}" for reason, count in others.items()]
    return [f"there: {', '.join(there)}", *lines]
