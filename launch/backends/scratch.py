"""A private TMPDIR for a command's processes: one that leaves at once, or is killed, tidies nothing up."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from fmtrain.errors import StoreError
from launch.backends.environment import environment

# Whoever makes the folder outlives us to remove it, where no word says that all is well: after our workers too,
# which hear of our death when it does, and may make the folder anew as it goes.
_KEEP = """
mkdir -m 700 -- "$1" && echo made && exec >&2 || exit
read -r well && exec rm -rf -- "$1"
while sleep 1; rm -rf -- "$1"; sleep 1; [ -e "$1" ] && [ "$((n += 1))" -lt 30 ]; do :; done
"""


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
    assert keeper.stdout is not None
    try:
        if not keeper.stdout.read():
            raise StoreError(f"no folder for temporary files can be made in {tempfile.gettempdir()}; set TMPDIR")
        yield folder
    finally:
        keeper.communicate(b"well\n")
        shutil.rmtree(folder, ignore_errors=True)  # it may have been killed
