"""One maker for each (kind, fingerprint): a lease file with a heartbeat.

A lease is stale when its process is gone (same host and pid namespace) or its heartbeat is older than `STALE` seconds.
"""

import contextlib
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
    mine = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    write_json(mine, owner(run))
    try:
        while True:
            try:
                os.link(mine, path)  # whole or not at all, and never over another's
                return
            except FileExistsError:
                _remove_stale(path, what)
    finally:
        mine.unlink(missing_ok=True)


def _remove_stale(path: Path, what: str) -> None:
    """Remove a lease whose holder is gone; raise HeldError where it is alive."""
    try:
        text, age = path.read_text(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return
    try:
        holder = json.loads(text)
        here = holder["host"] == socket.gethostname() and holder["namespace"] == _pid_namespace()
        alive = process_start(holder["pid"]) == holder["started"] if here else age < STALE
    except (ValueError, KeyError):  # a power cut left it damaged: nobody's
        holder, alive = {}, False
    if alive:
        raise HeldError(
            f"{what} is being made by run {holder['run']} (host {holder['host']}, pid {holder['pid']}). "
            "Wait for it and run again: its result is then reused."
        )
    aside = path.with_name(f".{path.name}.stale.{os.getpid()}.{time.monotonic_ns()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if aside.read_text() != text:  # another run took it over between our look and our rename: give it back
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _beat(path: Path, mine: str, done: threading.Event) -> None:
    """Touch the lease while it is ours; one that was taken over, while this process was suspended, is left alone."""
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            if path.read_text() == mine:
                os.utime(path)
