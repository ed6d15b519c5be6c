"""One maker for each (kind, fingerprint): a lease, which knows its run, process and queue job.

A lease is a folder `<what>.<N>` with `owner.json` in it; the highest N is the holder's. Whoever may take over renames a
folder of its own onto N + 1, which one process alone can; no lock of the file system is asked for. The holder touches
`owner.json` as a sign of life.

Whether a holder lives is asked of the kernel on the same machine, of the queue's count of turns in the same job, and
else of the signs of life: who waits sees none for STALE seconds of its own clock. No two machines' clocks are compared.
A holder that was suspended and wakes after its lease was taken finds its work folder renamed (`Store.adopt`).
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fmtrain.artifacts.storage import fsync_dir, shared_dir, write_json
from fmtrain.errors import FmtrainError, HeldError

BEAT = 2.0  # seconds between signs of life
STALE = 60.0  # seconds without one after which a holder on another machine counts as gone
_OWNER = "owner.json"
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def process_start(pid: int) -> str | None:
    """The kernel's start time of a process, which tells a reused pid from the old one; None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].decode().split()  # after the name, which may hold any bytes
    return None if fields[0] in ("Z", "X") else fields[19]


@dataclass(frozen=True)
class Owner:
    """A process as a lease records it; what cannot be found out is empty, and an empty `job` is no queue's."""

    run: str
    host: str
    pid: int
    started: str | None
    boot: str = ""  # of the kernel: a host's name and its processes' numbers come again
    machine: str = ""
    namespace: str = ""  # of its pid
    job: str = ""  # of the queue
    turn: int = 0  # of the job: how often it was queued again
    token: str = ""

    @property
    def text(self) -> str:
        return f"run {self.run} (host {self.host}, pid {self.pid}{f', job {self.job}' if self.job else ''})"

    def is_gone(self, me: "Owner") -> bool | None:
        """Whether its process has ended; None where this process cannot tell."""
        if self.job and self.job == me.job and self.turn < me.turn:
            return True  # a queue gives a job another turn when it has ended the one before
        if self.host != me.host or self.machine != me.machine:
            return None
        if self.boot != me.boot:
            return True if self.machine else None
        return process_start(self.pid) != self.started if self.namespace == me.namespace else None


def owner(run: str) -> Owner:
    """Who this process is."""
    pid = os.getpid()
    turn = os.environ.get("SLURM_RESTART_COUNT", "0")
    return Owner(
        run=run,
        host=socket.gethostname(),
        pid=pid,
        started=process_start(pid),
        boot=_line("/proc/sys/kernel/random/boot_id"),
        machine=_line("/etc/machine-id"),
        namespace=_pid_namespace(),
        job=os.environ.get("SLURM_JOB_ID", ""),
        turn=int(turn) if turn.isdigit() else 0,
        token=secrets.token_hex(4),
    )


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class Lease:
    """A lease that this process holds, until `lost` says otherwise."""

    def __init__(self, path: Path, number: int, me: Owner, what: str) -> None:
        self.path, self.number, self.me, self.what = path, number, me, what
        self.folder = _folder(path, number)
        self.lost = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """HeldError where another process has taken the lease, while this one slept or its machine was cut off."""
        if self.lost.is_set() or not self._is_ours():
            self.lost.set()
            now = _newest(self.path)
            by = now.owner.text if now and now.owner and now.owner != self.me else "another run"
            raise HeldError(
                f"{self.what} was taken over by {by}, as where this run gives no sign of life for {STALE:.0f} s: it "
                "writes nothing more. Run again when the other has ended: its result is then reused."
            )

    def release(self) -> None:
        """Give it up; what another process has taken over is left alone."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._is_ours():
                _remove(self.folder)

    def _is_ours(self) -> bool:
        now = _newest(self.path)
        return now is not None and now.number == self.number and now.owner == self.me

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            with contextlib.suppress(OSError):  # a file server that does not answer for a moment
                if not self._is_ours():
                    self.lost.set()
                    return
                os.utime(self.folder / _OWNER)


@contextlib.contextmanager
def held(path: Path, run: str, what: str, poll: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Hold the lease at `path` for the block; HeldError names the run, host and pid that hold it already.

    `poll` is called while a holder on another machine is watched, and may raise. What fails in the block because
    another process has taken the lease (its files are gone then) ends in that HeldError as well.
    """
    lease = _acquire(path, owner(run), what, poll)
    try:
        yield lease
    except (OSError, FmtrainError):
        lease.check()
        raise
    finally:
        lease.release()


@dataclass(frozen=True)
class _Found:
    """The newest lease: its number, its holder (None where that cannot be read), its last sign of life."""

    number: int
    owner: Owner | None
    beat: int


def _acquire(path: Path, me: Owner, what: str, poll: Callable[[], None]) -> Lease:
    shared_dir(path.parent)
    placed: Path | None = None
    while (last := _newest(path)) is None or last.owner != me:
        if placed and _read(placed / _OWNER)[0] == me:
            _remove(placed)  # below another's: `_newest` met its folder of before as it went, and saw none
        if last is not None and not _ended(path, last, me, what, poll):
            placed = None
            continue
        placed = _folder(path, last.number + 1 if last else 1)
        try:
            _place(placed, me)
        except OSError:
            placed = None
            if _newest(path) == last:
                raise  # not that another process was first: it says what it is
    fsync_dir(path.parent)
    for older in _numbers(path):
        if older < last.number:
            _remove(_folder(path, older))
    return Lease(path, last.number, me, what)


def _place(folder: Path, me: Owner) -> None:
    """Put a lease there, unless there is one: OSError."""
    mine = folder.with_name(f".{secrets.token_hex(8)}.tmp")
    mine.mkdir()
    try:
        write_json(mine / _OWNER, asdict(me))
        (mine / _OWNER).chmod(0o644)  # whatever the umask: who shares the store must be able to ask who it is
        mine.chmod(0o755)
        os.rename(mine, folder)
    except BaseException:
        _remove(mine)
        raise


def _ended(path: Path, last: _Found, me: Owner, what: str, poll: Callable[[], None]) -> bool:
    """True when the holder of `last` is known to be gone without a word, False when it has given the lease up.

    HeldError as soon as it is known to live.
    """
    if last.owner is None:
        print(f"warning: {_folder(path, last.number)} is no lease of ours; it is passed over", file=sys.stderr)
        return True
    gone, deadline = last.owner.is_gone(me), time.monotonic() + STALE
    if gone is None:
        print(f"{what}: {last.owner.text} has it. Looking for a sign of life, for {STALE:.0f} s at most ..", flush=True)
    while gone is None and time.monotonic() < deadline:
        time.sleep(BEAT / 4)
        poll()
        now = _newest(path)
        if now is None:
            return False
        gone = False if now != last else None
    if gone is False:
        raise HeldError(
            f"{what} is being made by {last.owner.text}. Wait for it and run again: its result is then reused."
        )
    return True


def signs(leases: Path) -> dict[str, int]:
    """Run -> the last sign of life of the leases in a folder that it holds: it changes while the run lives."""
    found: dict[str, int] = {}
    for folder in leases.glob("*.*"):
        with contextlib.suppress(OSError):
            owner, beat = _read(folder / _OWNER)
            if owner is not None:
                found[owner.run] = max(beat, found.get(owner.run, 0))
    return found


def _folder(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _numbers(path: Path) -> list[int]:
    """Of the leases at `path`, whatever stands under their names."""
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    return sorted(int(m[1]) for n in names if (m := re.fullmatch(re.escape(path.name) + r"\.(\d+)", n)))


def _newest(path: Path) -> _Found | None:
    for number in reversed(_numbers(path)):
        folder = _folder(path, number)
        if os.path.lexists(folder):
            return _Found(number, *_read(folder / _OWNER))
    return None


def _read(path: Path) -> tuple[Owner | None, int]:
    """The owner in a lease and its last sign of life; None and 0 where the file is of another shape.

    The time is that of a file that has just been opened, for which NFS asks the server; a folder's it remembers for a
    minute.
    """
    try:
        with open(path, encoding="utf-8") as f:
            beat = os.fstat(f.fileno()).st_mtime_ns
            found = Owner(**json.load(f))
    except (ValueError, TypeError, RecursionError, *_NO_FILE):
        return None, 0
    for given in fields(Owner):
        value = getattr(found, given.name)
        if not isinstance(value, int if given.type in (int, "int") else str) and not (
            given.name == "started" and value is None
        ):
            return None, 0
    return found, beat


def _remove(folder: Path) -> None:
    """In one rename, so that nobody meets half a lease; what another user has left stays."""
    doomed = folder.with_name(f".{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(OSError):
        os.rename(folder, doomed)
        if doomed.is_dir() and not doomed.is_symlink():
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            doomed.unlink()
