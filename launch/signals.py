"""The signals by which a run is asked to end: remembered here, and looked for where the run can save."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from fmtrain import show

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Stopped(BaseException):  # as KeyboardInterrupt: no fault that anything on the way could mend or explain
    """A signal asked this run to end."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"{name}: {show.CLOSED}" if number == signal.SIGHUP else name)
        self.number = number


class Signals:
    """Remembers SIGINT, SIGTERM, SIGUSR1 and SIGHUP (unless nohup ignores it); the driver looks between two polls.

    Outside the main thread, which alone is told of signals, it remembers none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        for number in HEARD if _main_thread() else ():
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    def check(self) -> None:
        if self.number is not None:
            raise Stopped(self.number)

    def wait(self, seconds: float) -> None:
        """Look for so long: a queue signals a job's processes one after the other."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(0.02)


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Whoever heard these signals before the block hears them behind it: a process that goes on after a run."""
    before = {number: signal.getsignal(number) for number in HEARD}
    try:
        yield
    finally:
        for number, handler in before.items() if _main_thread() else ():
            if handler is not None:  # None is one that was not set by Python, and cannot be set again
                signal.signal(number, handler)


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
