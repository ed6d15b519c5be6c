"""A private TMPDIR for what a backend starts: a worker that leaves at once, or is killed, tidies nothing up."""

import contextlib
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator

from fmtrain.errors import StoreError
from launch.backends.environment import environment

# Whoever makes the folder outlives us to remove it, at the end of standard input.
_KEEP = 'mkdir -m 700 -- "$1" && echo made && exec >&2 && cat && exec rm -rf -- "$1"'


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A folder that is gone soon after the block's end, or after this process's, whatever that dies of."""
    folder = os.path.join(tempfile.gettempdir(), f"fmtrain-{secrets.token_hex(4)}")
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEP, "sh", folder],
        env=environment("compute"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    try:
        if not keeper.stdout.read():
            raise StoreError(f"no folder for temporary files can be made in {tempfile.gettempdir()}; set TMPDIR")
        yield folder
    finally:
        keeper.stdin.close()
        keeper.wait()
