"""A backend starts a Command and hands back a Job; it knows nothing of what the command does."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fmtrain.artifacts.storage import disk_errors
from fmtrain.errors import StoreError
from launch.backends.environment import Kind, environment

SETTLE = 0.3  # seconds after a rank's end, for the end that caused it to be seen too
STOP = 5.0  # seconds for the ranks beside one that failed: without it they can save nothing


@dataclass(frozen=True)
class Command:
    """What to start: `ranks` processes of `argv`, each with `cpus` processors and `gpus` GPUs, each logging to its own
    `log(rank)`. With more than one rank the backend adds `rank_env`.

    A `pool` command starts as one process that takes no processor itself, for it hands out tasks. `passed` are further
    names of the environment that it gets.
    """

    name: str
    argv: list[str]
    log_dir: Path
    env: dict[str, str] = field(default_factory=dict)
    ranks: int = 1
    cpus: int = 1
    gpus: int = 0
    pool: bool = False
    kind: Kind = "compute"
    passed: tuple[str, ...] = ()
    interface: str | None = None  # of the network that the ranks reach each other by; found where none is named

    def log(self, rank: int) -> Path:
        """All that this rank prints, from its start on, before any code of ours runs in it."""
        return self.log_dir / f"rank{rank}.log"


@dataclass(frozen=True)
class Failure:
    """A rank that ended badly, and was not ended by its backend: its exit code, negative for the signal that killed it;
    None where nobody can say, and `why` tells what became of it."""

    rank: int
    host: str
    code: int | None
    why: str = ""


class Job(Protocol):
    """A started command; `hosts` names where each rank runs, once there is room for all of them."""

    hosts: list[str]

    def wait(self, timeout: float) -> list[Failure] | None:
        """None while ranks run, after `timeout` seconds at most; [] when all ended well. One that failed ends the job:
        the failures seen until then, the first that was seen first, and the other ranks are stopped."""

    def ask(self) -> None:
        """Ask every process to save and leave (SIGTERM)."""

    def stop(self, grace: float) -> None:
        """Ask them, and kill what is left after `grace` seconds."""


class Backend(Protocol):
    """`executor` tells a worker how to fan out its tasks; `notes` are lines for the user (a dashboard, say)."""

    executor: str
    cpus: int  # in all
    gpus: int
    notes: list[str]

    def node_cpus(self, gpus: int) -> int:
        """The most processors that one process with so many GPUs can have."""

    def submit(self, command: Command) -> Job: ...


def worker_env(command: Command) -> dict[str, str]:
    """The environment of a command's processes on this machine, but for what each rank has of its own."""
    return {**environment(command.kind, command.passed), **of_command(command)}


def of_command(command: Command) -> dict[str, str]:
    """What a command's processes get on every machine, whatever that has."""
    named = {name: command.interface for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if command.interface}
    return {"OMP_NUM_THREADS": str(command.cpus), "TOKENIZERS_PARALLELISM": "true", **named, **command.env}


def rank_env(rank: int, local_rank: int, size: int, local_size: int, meeting: Path, master: str) -> dict[str, str]:
    """What tells a rank its place among the others. They meet in the file `meeting`; nothing listens at `master`, the
    first rank's address, which says by which network the ranks reach each other and is what DeepSpeed wants to see."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(local_size),
        "MASTER_ADDR": master,
        "MASTER_PORT": "0",
        "FMTRAIN_MEETING": str(meeting),
    }


@contextmanager
def meeting(shared: Path | None = None) -> Iterator[Path]:
    """The file that the ranks of one command meet in: no socket, which a stranger could speak to before them.

    On one machine it has no name in any folder: it lives in this process's memory, other processes of this user open it
    through /proc, and it ends with this process. Ranks of several machines meet in `shared`, a private folder that all
    of them see.
    """
    if shared is None:
        fd = os.memfd_create("fmtrain-meeting")
        try:
            yield Path(f"/proc/{os.getpid()}/fd/{fd}")
        finally:
            os.close(fd)
        return
    path = shared / f"meeting-{secrets.token_hex(8)}"
    try:
        with disk_errors(shared):
            shared.mkdir(mode=0o700, parents=True, exist_ok=True)  # before any rank has logged there
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            _try_lock(fd, shared)
        finally:
            os.close(fd)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _try_lock(fd: int, where: Path) -> None:
    """StoreError where the file system has no locks: torch's FileStore takes one for each word."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise StoreError(
            f"ranks of several machines meet in a file below {where}, which they lock in turn, and that file system "
            f"locks none: {e.strerror}. Have it mounted with them (Lustre: -o flock), give a store on another one with "
            "store=PATH, or start all ranks on one node"
        ) from None
