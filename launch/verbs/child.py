"""A process that answers for a verb: what it needs is imported there, and it ends with this one, however that ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from fmtrain.errors import ExitCode
from launch.backends.environment import environment

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def run(command: Sequence[str]) -> int:
    """Its exit code."""
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the kernel could be asked
            os._exit(ExitCode.INTERRUPTED)

    return subprocess.run(command, env=environment("compute"), preexec_fn=die_with_parent).returncode
