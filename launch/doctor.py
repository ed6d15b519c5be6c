"""`fmtrain doctor`: what this machine has and lacks, a line each, with the mend."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from fmtrain.errors import ExitCode, FmtrainError
from fmtrain.run.store import Store

_NEEDED = ("torch", "transformers", "deepspeed", "ray", "datatrove", "hydra-core", "omegaconf", "xxhash")
_ROOM = 2e9  # bytes that a quickstart may need


def check(store: Path) -> int:
    """Print a line a check; exit code 2 when something needed is missing."""
    checks: list[Callable[[Path], tuple[bool, str]]] = [
        _python,
        _packages,
        _xxhash,
        _ninja,
        _memory,
        _disk,
        _gpu,
        _slurm,
    ]
    good = True
    for function in checks:
        ok, text = function(store)
        good &= ok
        print(f"{'ok  ' if ok else 'LACK'}  {text}")
    return int(ExitCode.DONE if good else ExitCode.CONFIG)


def _python(store: Path) -> tuple[bool, str]:
    return (3, 11) <= sys.version_info[:2] <= (3, 12), f"Python {sys.version.split()[0]} (3.11 or 3.12)"


def _packages(store: Path) -> tuple[bool, str]:
    found, missing = [], []
    for name in _NEEDED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return False, f"missing {', '.join(missing)}: run `make install`"
    return True, ", ".join(found)


def _xxhash(store: Path) -> tuple[bool, str]:
    version = metadata.version("xxhash")
    return int(version.split(".")[0]) < 4, f"xxhash {version} (below 4: datatrove's hashing fails with 4)"


def _ninja(store: Path) -> tuple[bool, str]:
    found = shutil.which("ninja", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return found is not None, f"ninja {found or 'not found: pip install ninja'}"


def _memory(store: Path) -> tuple[bool, str]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total > 7e9, f"{total / 1e9:.0f} GB of memory, {os.cpu_count()} processors (quickstart: 8 GB, 2)"


def _disk(store: Path) -> tuple[bool, str]:
    try:
        Store(store).prepare()
    except FmtrainError as e:
        return False, str(e)
    free = shutil.disk_usage(store).free
    return free > _ROOM, f"store {store}: writable, {free / 1e9:.0f} GB free"


def _gpu(store: Path) -> tuple[bool, str]:
    if shutil.which("nvidia-smi") is None:
        return True, "no GPU: two ranks over gloo"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return listed.returncode == 0, (listed.stdout or listed.stderr).strip().replace("\n", "; ")


def _slurm(store: Path) -> tuple[bool, str]:
    if shutil.which("sbatch") is None:
        return True, "no Slurm here (launch=slurm needs sbatch on PATH)"
    done = subprocess.run(["sbatch", "--version"], capture_output=True, text=True)
    return True, f"{done.stdout.strip()}: launch=slurm can submit"
