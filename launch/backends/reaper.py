"""What is left of a Ray when its driver is gone: `python -m launch.backends.reaper` kills it.

Ray's processes die with the driver that started them, but two agents of each raylet wait up to a minute for a server
that is gone, and they overwrite what they could be known by, their arguments and their environment. So this child of
the driver looks every second which processes descend from it. At the end of its standard input, which the driver holds
open and which ends with it whatever it died of, it kills those that are left.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fmtrain.run.lease import process_start
from launch.backends.environment import environment, module

EVERY = 1.0  # seconds between two looks


@contextlib.contextmanager
def reaper() -> Iterator[None]:
    """What this process starts within the block is dead soon after the block's end, or after this process's."""
    process = subprocess.Popen(
        module(__name__),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=environment("compute"),
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def descendants(root: int) -> dict[int, str | None]:
    """Every living process below `root`, with its start time."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = list[int](), [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return {pid: process_start(pid) for pid in found}


def main() -> None:
    driver, family = os.getppid(), dict[int, str | None]()
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        family |= descendants(driver)
    family.pop(os.getpid(), None)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = [pid for pid, started in family.items() if started is not None and process_start(pid) == started]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
