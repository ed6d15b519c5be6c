"""A handle of cluster.sh for tests: one cluster by its state folder. Ships as launch.templates.testing.cluster."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")


def hindrance() -> str | None:
    """Why no cluster can be had here, with the remedy; None where it can."""
    if os.geteuid() != 0:
        return "needs root: the cluster is made of network namespaces"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "ip") if not shutil.which(name, path=path)]
    return f"needs {' '.join(missing)}: sudo {SCRIPT} install" if missing else None


@dataclass
class Cluster:
    """`state` is its folder, at most 80 characters; nothing of the surrounding environment configures it."""

    state: Path
    nodes: int = 2
    gpus: int = 0  # that each node claims to have

    @property
    def bin(self) -> Path:
        """sbatch, scancel, .. that run on its login node: put it first on PATH."""
        return self.state / "bin"

    def __call__(self, *argv: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """cluster.sh with a verb and its arguments; AssertionError with what it said when it fails."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("FMT_SLURM_", "SLURM_"))}
        env |= {
            "FMT_SLURM_STATE": str(self.state),
            "FMT_SLURM_NODES": str(self.nodes),
            "FMT_SLURM_GPUS": str(self.gpus),
        }
        done = subprocess.run([str(SCRIPT), *argv], env=env, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"cluster.sh {' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done
