"""What is left of a Ray when its driver is gone: `python -m launch.backends.reaper TOKEN` kills it.

Ray's processes die with the driver that started them, but two agents of each raylet wait up to a minute for a server
that is gone. This process reads its standard input, which the driver holds open; at its end, however that came, it
kills every process that carries FMTRAIN_RAY=TOKEN in its environment.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "FMTRAIN_RAY"


@contextlib.contextmanager
def reaper(token: str) -> Iterator[None]:
    """Mark what this process starts within the block, and have it dead soon after the block's or this process's end."""
    os.environ[VARIABLE] = token
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, token],
        stdin=subprocess.PIPE,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def marked(token: str) -> list[int]:
    """The processes of this user that carry the token, this one apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{VARIABLE}={token}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def main(token: str) -> None:
    sys.stdin.buffer.read()
    deadline = time.monotonic() + 5
    while (left := marked(token)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
