"""One process of a command, as every backend starts it: its own session, its own log, no input, an environment given.

Ctrl-C in the terminal reaches the driver alone, which then decides.
"""

import contextlib
import datetime
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

STARTED = "# started "  # begins the line with which each start begins in a log


class Process:
    """A started process. It ends with whoever started it: `fmtrain.artifacts.worker` asks the kernel for that."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            out.write(f"{STARTED}{now} on {socket.gethostname()}\n".encode())
            out.flush()
            self._process = subprocess.Popen(
                argv,
                env={**env, "FMTRAIN_PARENT": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait()

    def terminate(self) -> None:
        """Ask it to save and leave."""
        self._process.terminate()

    def kill(self) -> None:
        """End it and what it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
