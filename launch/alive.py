"""Whether a run that its record calls running or queued still is: its process, its queue, its signs of life, its Ray.

Every answer stands with who gave it, in `asked`. A run of which nobody who could be asked knows anything is `unknown`:
its record is the last word of a process that may be long gone.
"""

import contextlib
import socket
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from fmtrain.artifacts import lease
from fmtrain.artifacts.lease import BEAT, Owner
from fmtrain.artifacts.stage import GIVEN, PRIVATE
from fmtrain.artifacts.storage import is_ours, read_json
from fmtrain.artifacts.store import Store
from fmtrain.errors import FmtrainError, StoreError
from launch.backends import slurm

WATCHED = 2 * BEAT + 1  # seconds in which a living holder of a lease gives a sign, if the file server is prompt
_CONNECT = 1.0  # seconds that a Ray has to take a connection
_PATIENCE = 10.0  # and Slurm to answer
_CANCELLED = ("CANCELLED", "REVOKED")


def settle(store: Store, states: list[dict[str, Any]], *, patient: bool = True) -> None:
    """Say in each record what has become of the run, and in its `asked` who says so; ended runs stay as they are.

    `patient`: where only signs of life can tell, wait for one.
    """
    me, queue = lease.owner(""), Queue()
    doubtful = []
    for state in states:
        state.setdefault("asked", [])
        if state["state"] not in ("running", "queued", "requeue"):
            continue
        gone = _driver(state, me) if state["state"] == "running" else None
        if gone is None and state.get("job"):
            gone = _job(state, queue)
        if gone is None and state["state"] == "running":
            doubtful.append(state)
        if state["state"] == "running":
            _ray(store.run_dir(state["id"]), state)
    if doubtful and patient:
        _signs(store, doubtful)


class Queue:
    """Slurm, asked for each job once, and for none after it gave no answer: it is down, or not on this machine."""

    def __init__(self) -> None:
        self.reports: dict[str, slurm.Report] = {}
        self.silence: slurm.Report | None = None

    def report(self, job: str) -> slurm.Report:
        if job not in self.reports:
            self.reports[job] = self.silence or self._ask(job)
        return self.reports[job]

    def _ask(self, job: str) -> slurm.Report:
        try:
            found = slurm.report(job, _PATIENCE)
        except FmtrainError as e:
            found = slurm.Report(slurm.UNKNOWN, reason=str(e))
        if found.state == slurm.UNKNOWN and not found.forgotten:
            self.silence = found
        return found


def forget_secrets(store: Store) -> None:
    """Remove what a worker or a job alone had to know, of this user's runs that ended without doing so.

    A worker's, where the kernel of this machine says that its driver is gone, or Slurm that there is no other turn of
    its job; a job's, where Slurm says so.
    """
    me, queue = lease.owner(""), Queue()
    for folder in (store.root / "runs").glob("*"):
        left = [*folder.glob(f"stages/*/{PRIVATE}"), *folder.glob(GIVEN)] if is_ours(folder) else []
        for path in left:
            with contextlib.suppress(OSError, StoreError, TypeError, ValueError):
                written = path.stat().st_mtime_ns
                state = {"id": folder.name, **read_json(folder / "run.json")}
                gone = _owner(state).is_gone(me) if path.name == PRIVATE else None
                if gone is None and state.get("job"):
                    gone = queue.report(str(state["job"])).over
                if gone and path.stat().st_mtime_ns == written:  # not by the next turn of that run's job
                    path.unlink()


def _owner(state: dict[str, Any]) -> Owner:
    """The process of a run's record; TypeError or ValueError where that is damaged."""
    given = {f.name: state[f.name] for f in fields(Owner) if state.get(f.name) is not None}
    return Owner(**{"run": state["id"], "started": None, **given})


def _driver(state: dict[str, Any], me: Owner) -> bool | None:
    """Whether the driver's process is gone, as far as the kernel of this machine knows."""
    try:
        gone = _owner(state).is_gone(me)
    except (TypeError, ValueError) as e:
        state |= {"state": "unreadable", "message": f"its record is damaged: {e}"}
        return None
    who = f"process {state['pid']} on {state['host']}"
    if gone:
        state["state"] = "died"
    answer = {None: "cannot be asked from here", True: "is gone", False: "lives"}[gone]
    state["asked"].append(f"{who} {answer}")
    return gone


def _job(state: dict[str, Any], queue: Queue) -> bool | None:
    """Whether the run's job is gone, as far as Slurm knows: it lasts as long as its driver, and through all turns."""
    job = str(state["job"])
    found = queue.report(job)
    if found.state == slurm.UNKNOWN and not found.forgotten:
        state["asked"].append(f"Slurm gives no answer on job {job}: {found.reason or 'it says nothing of it'}")
        return None
    state["asked"].append(f"Slurm has forgotten job {job}" if found.forgotten else f"Slurm: job {job} is {found.state}")
    if found.forgotten or found.ended:
        cancelled = found.state.startswith(_CANCELLED)
        ended = {"running": "died", "queued": "failed", "requeue": "requeue"}[state["state"]]
        state["state"] = "cancelled" if cancelled else ended
        state.setdefault("message", "the job ended before its run did; the same command goes on from what is saved")
        return True
    if found.state == "PENDING":
        state["state"] = "queued"
    return False


def _signs(store: Store, doubtful: list[dict[str, Any]]) -> None:
    """Look for a sign of life of the runs that hold a lease; no two machines' clocks are compared."""
    first, deadline = lease.signs(store.root / "leases"), time.monotonic() + WATCHED
    waiting = [state for state in doubtful if state["id"] in first]
    while waiting and time.monotonic() < deadline:
        time.sleep(BEAT / 4)
        now = lease.signs(store.root / "leases")
        for state in waiting:
            if now.get(state["id"], 0) != first[state["id"]]:
                state["asked"].append("its lease has given a sign of life")
        waiting = [state for state in waiting if now.get(state["id"], 0) == first[state["id"]]]
    for state in doubtful:
        if state["id"] not in first:
            state["asked"].append("it holds no lease, whose signs of life would tell")
        elif state in waiting:
            state["asked"].append(f"its lease gave no sign of life in {WATCHED:.0f} s")
        if state["id"] not in first or state in waiting:
            state["state"] = "unknown"


def _ray(folder: Path, state: dict[str, Any]) -> None:
    """Say where the Ray that the run was told to use takes no connection."""
    try:
        address = read_json(folder / "config.json")["launch"].get("address")
    except (StoreError, KeyError, TypeError, AttributeError):
        return
    host, _, port = str(address or "").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except (OSError, OverflowError) as e:
        state["asked"].append(f"Ray at {address} takes no connection: {e}")
