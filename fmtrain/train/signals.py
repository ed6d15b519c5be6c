"""SIGTERM and SIGUSR1 ask a training process to save and leave with exit code 75.

Before the loop there is nothing to save and the process leaves at once; in the loop the step is finished first, and
the ranks agree on it there. Imports nothing heavy: the handlers stand before torch is imported.
"""

import os
import signal
from types import FrameType

from fmtrain.errors import ExitCode, Requeue


class Stop:
    """Whether this process was asked to stop, and what to do with it now."""

    def __init__(self) -> None:
        self.requested = False
        self.framed = False  # the worker's frame stands: an exception becomes the exit code
        self.in_loop = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # as a worker does, and before torch

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.in_loop:
            return
        if not self.framed:
            os._exit(ExitCode.REQUEUE)
        raise Requeue(f"{signal.Signals(number).name} while the stage was starting; nothing new to save")


STOP = Stop()
