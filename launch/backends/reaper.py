"""Holds a process and all that descends from it, and leaves nothing of them: `python -m launch.backends.reaper`.

The kernel hands this process every orphan among its descendants, so that none gets away whatever it makes of its
session, its arguments and its environment (two agents of each raylet live on for a minute where Ray dies at once).
When standard input ends, which the driver holds open and which ends with it whatever it died of, or when the process
itself ends, every descendant is killed. Then their private folder goes; Ray's logs in it stay in the run's folder,
unless the driver has said that all went well.
"""

import contextlib
import ctypes
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from fmtrain.artifacts.lease import process_start

WELL = b"well"  # what the driver says on our standard input before it closes it
POLL = 0.2  # seconds between two looks at the process
PATIENCE = 10.0  # seconds for killed processes to be gone; one that waits for a dead disk may never be
_PR_SET_CHILD_SUBREAPER = 36


def keep_orphans(keep: bool = True) -> None:
    """What loses its parent below this process becomes its child (Linux), for `end_all` to find; no longer: `False`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(keep))


def descendants(root: int, spared: Collection[int] = ()) -> dict[int, str | None]:
    """Every process below `root` with its start time, None for one that has ended and was not buried.

    Those in `spared` are left out, with all below them.
    """
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_bytes().rpartition(b")")[2].split()[1])  # after the name: any bytes, any user's
            children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = list[int](), [root]
    while todo:
        below = [pid for pid in children.get(todo.pop(), []) if pid not in spared]
        found += below
        todo += below
    return {pid: process_start(pid) for pid in found}


def main(argv: list[str]) -> int:
    """FOLDER LOGS FD COMMAND..: run the command, which is given the descriptor FD, in a new FOLDER; it may be empty."""
    folder, logs, fd, *command = argv
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, _leave_it_to_the_driver)  # no SIG_IGN: children would inherit that
    keep_orphans()
    if folder:
        os.mkdir(folder, 0o700)  # Ray opens to all what it makes itself
    if folder and (token := os.environ.get("RAY_AUTH_TOKEN_PATH")):
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(secrets.token_urlsafe(32))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[int(fd)])
    os.close(int(fd))  # its other end shall see that the command is gone
    tidy(folder, logs, _watch(process.pid))
    return 0


def tidy(folder: str, logs: str, well: bool, spared: Collection[int] = ()) -> None:
    """End all that is below this process, and take the folder away: Ray's logs stay where it did not end well."""
    end_all(spared)
    if folder:
        if not well:
            with contextlib.suppress(OSError, shutil.Error):  # a full disk: what matters is that the folder goes
                keep_logs(Path(folder), Path(logs))
        shutil.rmtree(folder, ignore_errors=True)


def _leave_it_to_the_driver(number: int, frame: object) -> None:
    """A terminal and a queue signal every process of theirs; the driver decides what becomes of Ray."""


def _watch(pid: int) -> bool:
    """Wait for the end of our child `pid` or of standard input; whether the driver has said that all went well."""
    started, said = process_start(pid), b""
    while started is not None:  # it is not buried before it was seen to be gone; no pidfd: Linux 4.18 has none
        if select.select([sys.stdin], [], [], POLL)[0]:
            new = os.read(0, 64)
            said += new
            if not new:
                break
        elif process_start(pid) != started:
            break
        _bury()
    return WELL in said


def _bury(pids: Iterable[int] = (-1,)) -> None:
    """Wait for those that have ended and are our children, as orphans are; without `pids` for any."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(pid, os.WNOHANG)[0]:
                pass


def end_all(spared: Collection[int] = ()) -> None:
    """Kill every process below this one: nothing in a Ray that is to end is worth waiting for."""
    deadline, none = time.monotonic() + PATIENCE, 0
    while none < 2 and time.monotonic() < deadline:  # one that lost its parent during a look may stand in none of it
        family = descendants(os.getpid(), spared)
        none = 0 if family else none + 1
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _bury(family)
        time.sleep(0.02)


def keep_logs(folder: Path, logs: Path) -> None:
    """Ray's logs of this turn, in the run's folder."""
    before = os.umask(0o077)
    try:
        for session in folder.glob("*/session_*/logs"):
            if not session.parent.is_symlink():
                shutil.copytree(session, logs, symlinks=True, dirs_exist_ok=True)
                logs.chmod(0o700)
    finally:
        os.umask(before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
