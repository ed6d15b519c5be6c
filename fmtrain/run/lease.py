"""One maker for each (kind, fingerprint): a lease file with a heartbeat.

A lease is stale when its process is gone (same host and pid namespace) or its heartbeat is older than `STALE` seconds.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmtrain.errors import HeldError
from fmtrain.run.storage import write_json

BEAT = 2.0  # seconds between heartbeats
STALE = 60.0  # seconds without one, as seen from another host


def process_start(pid: int) -> str | None:
    """The kernel's start time of a process, which tells a reused pid from the old one; None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def owner(run: str) -> dict[str, Any]:
    """Who this process is, as a lease records it."""
    pid = os.getpid()
    return {
        "run": run,
        "host": socket.gethostname(),
        "pid": pid,
        "started": process_start(pid),
        "namespace": _pid_namespace(),
    }


@contextlib.contextmanager
def held(path: Path, run: str, what: str) -> Iterator[None]:
    """Hold the lease at `path` for the block; HeldError names the run, host and pid that hold it already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _acquire(path, run, what)
    mine = path.read_text()
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, mine, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            if path.read_text() == mine:
                path.unlink()


def _acquire(path: Path, run: str, what: str) -> None:
    """Look and write under one lock: of many that find a stale lease, one takes it over."""
    with open(path.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _refuse_living(path, what)
        write_json(path, owner(run))


def _refuse_living(path: Path, what: str) -> None:
    """Raise HeldError where the lease at `path` has a living holder; one that is damaged is nobody's."""
    try:
        holder, age = json.loads(path.read_text()), time.time() - path.stat().st_mtime
        here = holder["host"] == socket.gethostname() and holder["namespace"] == _pid_namespace()
        alive = process_start(holder["pid"]) == holder["started"] if here else age < STALE
    except (FileNotFoundError, ValueError, KeyError):
        return
    if alive:
        raise HeldError(
            f"{what} is being made by run {holder['run']} (host {holder['host']}, pid {holder['pid']}). "
            "Wait for it and run again: its result is then reused."
        )


def _beat(path: Path, mine: str, done: threading.Event) -> None:
    """Touch the lease while it is ours; one that was taken over, while this process was suspended, is left alone."""
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            if path.read_text() == mine:
                os.utime(path)
