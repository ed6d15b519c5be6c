"""A backend starts a Command and hands back a Job; it knows nothing of what the command does."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Command:
    """What to start: `ranks` processes of `argv`, each with `cpus` processors and `gpus` GPUs, logging to `log_dir`.

    With more than one rank, RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are the backend's to set.
    A `pool` command starts as one process that takes no processor itself, for it hands out tasks.
    """

    name: str
    argv: list[str]
    log_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    ranks: int = 1
    cpus: int = 1
    gpus: int = 0
    pool: bool = False


class Job(Protocol):
    """A started command; `hosts` names where each rank runs."""

    hosts: list[str]

    def wait(self, timeout: float) -> int | None:
        """The exit code (the first that is not 0, negative for a signal), or None after `timeout` seconds."""

    def stop(self, grace: float) -> None:
        """Ask every process to save and leave (SIGTERM), and kill what is left after `grace` seconds."""


class Backend(Protocol):
    """`executor` tells a worker how to fan out its tasks; `notes` are lines for the user (a dashboard, say)."""

    executor: str
    cpus: int  # in all
    node_cpus: int  # of the smallest node: what one process can have
    gpus: int
    notes: list[str]

    def submit(self, command: Command) -> Job: ...


def worker_env(command: Command) -> dict[str, str]:
    """The environment of a command's processes: ours, the command's, and where each rank logs."""
    return {
        **os.environ,
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        ),  # ninja, torchrun
        "OMP_NUM_THREADS": str(command.cpus),
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONUNBUFFERED": "1",
        "FMTRAIN_LOG_DIR": str(command.log_dir),
        "FMTRAIN_PARENT": str(os.getpid()),
        **command.env,
    }
