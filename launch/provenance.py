"""What a manifest records about where it was made: git, packages, host."""

import functools
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import fmtrain
from fmtrain.artifacts.machine import cpus
from launch.backends.environment import environment

PACKAGES = (
    "fmtrain", "torch", "deepspeed", "transformers", "tokenizers", "safetensors", "numpy", "datatrove", "ray",
    "hydra-core", "omegaconf", "xxhash",
)  # fmt: skip


@functools.cache
def git() -> dict[str, Any]:
    """Commit and whether the tree is dirty, of the checkout that this code runs from; empty where it is installed."""
    root = Path(fmtrain.__file__).parent.parent
    if not (root / ".git").exists():
        return {}

    def run(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, timeout=20, env=environment("compute")
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        return {"commit": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


@functools.cache
def packages() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def host() -> dict[str, Any]:
    return {
        "name": socket.gethostname(),
        "cpus": cpus(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",  # platform() asks a child, which would hold our keys
    }
