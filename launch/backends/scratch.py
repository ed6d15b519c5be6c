"""A private TMPDIR for what a backend starts: a worker that leaves at once, or is killed, tidies nothing up."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator

from launch.backends.environment import environment

_REMOVE = 'cat; exec rm -rf -- "$1"'  # at the end of standard input


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A folder that is gone soon after the block's end, or after this process's, whatever that dies of."""
    folder = tempfile.mkdtemp(prefix="fmtrain-")
    remover = subprocess.Popen(
        ["sh", "-c", _REMOVE, "sh", folder],
        env=environment("compute"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert remover.stdin is not None
    try:
        yield folder
    finally:
        remover.stdin.close()
        remover.wait()
