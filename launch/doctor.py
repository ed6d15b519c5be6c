"""`fmtrain doctor`: what this machine has and lacks, a line each, with the mend. Creates nothing."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from fmtrain.artifacts.machine import cpus
from fmtrain.errors import ExitCode

_NEEDED = ("torch", "transformers", "deepspeed", "ray", "datatrove", "hydra-core", "omegaconf", "xxhash")
_DASHBOARD = ("aiohttp", "aiohttp_cors", "opencensus", "prometheus_client")  # of ray[default]; jobs are sent through it
_ROOM = 2e9  # bytes that a quickstart may need
_MEMORY = 3e9  # bytes that a quickstart takes at its peak, README.md
_PATIENCE = 20.0  # seconds for an answer of nvidia-smi or sbatch


def check(store: Path) -> int:
    """Print a line a check; exit code 2 when something needed is missing."""
    checks: list[Callable[[Path], tuple[bool, str]]] = [
        _python,
        _packages,
        _xxhash,
        _ray,
        _ninja,
        _memory,
        _disk,
        _gpu,
        _slurm,
    ]
    good = True
    for function in checks:
        ok, text = function(store)
        good &= ok or function is _slurm  # only launch=slurm needs it
        print(f"{'ok  ' if ok else 'LACK'}  {text}")
    return int(ExitCode.DONE if good else ExitCode.CONFIG)


def _python(store: Path) -> tuple[bool, str]:
    return (3, 11) <= sys.version_info[:2] <= (3, 12), f"Python {sys.version.split()[0]} (3.11 or 3.12)"


def _packages(store: Path) -> tuple[bool, str]:
    found = [f"{name} {version}" for name in _NEEDED if (version := _version(name))]
    missing = [name for name in _NEEDED if not _version(name)]
    if missing:
        return False, f"missing {', '.join(missing)}: run `make install`"
    return True, ", ".join(found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _xxhash(store: Path) -> tuple[bool, str]:
    version = _version("xxhash")
    if version is None:
        return False, "xxhash missing: pip install 'xxhash<4'"
    return int(version.split(".")[0]) < 4, f"xxhash {version} (below 4: datatrove's hashing fails with 4)"


def _ray(store: Path) -> tuple[bool, str]:
    missing = [name for name in _DASHBOARD if importlib.util.find_spec(name) is None]
    if missing:
        return False, f"Ray's dashboard lacks {', '.join(missing)}: pip install 'ray[default]'"
    return True, "Ray has its dashboard"


def _ninja(store: Path) -> tuple[bool, str]:
    found = shutil.which("ninja", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return found is not None, f"ninja {found or 'not found: pip install ninja'}"


def _memory(store: Path) -> tuple[bool, str]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    has = f"{total / 1e9:.0f} GB of memory, {cpus()} processors for us"
    return total > _MEMORY, f"{has} (the quickstart takes {_MEMORY / 1e9:.0f} GB, 2 processors)"


def _disk(store: Path) -> tuple[bool, str]:
    """Whether the store, or the nearest folder above one that is not there yet, can be written."""
    nearest = store
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return False, f"store {store}: {nearest} is not a folder that can be written; give another with --store"
    free = shutil.disk_usage(nearest).free
    room = f"{free / 1e9:.0f} GB free"
    return free > _ROOM, f"store {store}: {'writable' if nearest == store else 'can be made'}, {room}"


def _gpu(store: Path) -> tuple[bool, str]:
    if shutil.which("nvidia-smi") is None:
        return True, "no GPU: two ranks over gloo"
    return _ask("nvidia-smi", "-L")


def _slurm(store: Path) -> tuple[bool, str]:
    if shutil.which("sbatch") is None:
        return True, "no Slurm here (launch=slurm needs sbatch on PATH)"
    good, said = _ask("sbatch", "--version")
    return good, f"{said}: launch=slurm can submit" if good else f"{said} (launch=slurm needs it)"


def _ask(*command: str) -> tuple[bool, str]:
    """Did the command succeed, and what it printed, on one line."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return False, f"{command[0]} is of no use: {e}"
    said = (done.stdout.strip() or done.stderr.strip()).replace("\n", "; ")
    if done.returncode != 0:
        return False, f"{' '.join(command)} fails with exit code {done.returncode}: {said}"
    return True, said
