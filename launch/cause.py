"""Whose fault a failed stage is: what its backend saw of the ranks' ends comes before what the ranks said.

When one rank dies, the others soon end as well, saying that a connection was lost or that they were asked to stop:
consequences. A rank that was killed can say nothing, and one that blames a setting, the data or the disk is no
consequence of another's death.
"""

import signal
from pathlib import Path
from typing import Any

from fmtrain.artifacts.storage import check_room, read_left
from fmtrain.artifacts.worker import ERROR, error_file
from fmtrain.errors import ConfigError, ExitCode, FmtrainError, HeldError, InputError, RankLost, StageFailed, StoreError
from launch.backends.command import Command, Failure
from launch.backends.process import STARTED

TAIL = 20  # log lines shown of a failed rank
_USERS = {int(kind.exit_code): kind for kind in (ConfigError, InputError, StoreError, HeldError)}
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
ASKED = {ExitCode.REQUEUE, ExitCode.INTERRUPTED, *(-number for number in _STOPS)}  # the end of a rank told to stop


def cause(stage: str, command: Command, folder: Path, hosts: list[str], failures: list[Failure]) -> FmtrainError:
    """What to tell the user; `folder` is the stage's, `failures` what the backend saw, none where all ended well."""
    if not failures:
        return StageFailed(f"{stage} failed: it ended well and left no result.json{_log(command, 0)}")
    said = [_report(folder / ERROR), *(_report(error_file(folder, failure.rank)) for failure in failures)]
    first = next((report for report in said if report), {})
    if first.get("exit_code") in _USERS:
        return _USERS[first["exit_code"]](f"{stage}: {first['message']}\nlog: {command.log(first['rank'])}")
    silent = [failure for failure in failures if not _report(error_file(folder, failure.rank))]
    silent.sort(key=lambda f: f.code is not None and f.code >= 0)  # killed and lost ones before those that left
    if silent:
        check_room(folder)  # a worker on a full disk cannot even say so
        return _ended(stage, command, silent[0])
    rank, host = first["rank"], hosts[first["rank"]]
    if first["exit_code"] == ExitCode.REQUEUE:
        return RankLost(
            f"{stage} failed: rank {rank} on {host} was told to stop by somebody else than this run: "
            f"{first['message']}{_log(command, rank)}"
        )
    who = f"rank {rank} on {host}: " if command.ranks > 1 else ""
    return StageFailed(f"{stage} failed: {who}{first['message']}{_log(command, rank)}")


def _ended(stage: str, command: Command, failure: Failure) -> FmtrainError:
    """A rank's end about which it said nothing."""
    who, code = f"{stage} failed: rank {failure.rank} on {failure.host}", failure.code
    if code is None:
        return RankLost(f"{who} is lost: {failure.why}{_log(command, failure.rank)}")
    if code < 0:
        hint = f": out of memory? `dmesg` on {failure.host} tells" if code == -signal.SIGKILL else ""
        killed = f"was killed by signal {-code} ({_name(-code)}{hint})"
        return RankLost(f"{who} {killed}{_log(command, failure.rank)}")
    return StageFailed(f"{who} left with exit code {code} and said nothing{_log(command, failure.rank)}")


def _name(number: int) -> str:
    """A signal's name; of the real-time ones Python knows the first and the last."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN{number - signal.SIGRTMIN:+d}"


def _report(path: Path) -> dict[str, Any]:
    """What a rank said; empty where it said nothing, or was killed while it did."""
    return read_left(path, dict)


def _log(command: Command, rank: int) -> str:
    """The end of a rank's log: of this start, for a requeued run appends to it."""
    path = command.log(rank)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [f"(no log at {path})"]
    begun = max((at for at, line in enumerate(lines) if line.startswith(STARTED)), default=0)
    lines = lines[begun:][-TAIL:]
    tail = "\n".join(f"  | {line}" for line in lines)
    return f"\nThe last lines of its log:\n{tail}\nlog: {path}"
