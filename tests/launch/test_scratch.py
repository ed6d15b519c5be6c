"""What processes leave in TMPDIR goes with the run, whatever the run dies of."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

DRIVER = '''
import sys
from pathlib import Path
from fmtrain.schema.launch import Inline
from launch.backends.choose import open_backend
from launch.backends.command import Command

code = """
import os, sys, tempfile, threading, time
parent = os.getppid()
def busy():
    # It writes as torch does while it is imported, and hears of its parent's end a moment late, as under load.
    end = float("inf")
    while time.monotonic() < end:
        os.makedirs(os.path.join(tempfile.gettempdir(), "torchinductor", str(time.time_ns())))
        time.sleep(0.001)
        if os.getppid() != parent:
            end = min(end, time.monotonic() + 0.2)
    os._exit(1)
threading.Thread(target=busy, daemon=True).start()
tempfile.mkdtemp(prefix='pymp-')
time.sleep(float(sys.argv[1]))
os._exit(0)
"""
with open_backend(Inline(), Path(sys.argv[1]), "r", lambda: None) as backend:
    job = backend.submit(Command("stage", [sys.executable, "-P", "-c", code, sys.argv[2]], Path(sys.argv[1]) / "logs"))
    while job.wait(1.0) is None:
        pass
'''


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_in_tmpdir(killed: bool, tmp_path: Path) -> None:
    (temporary := tmp_path / "t").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER, str(tmp_path), "2"], env={**os.environ, "TMPDIR": str(temporary)}
    )
    while not list(temporary.glob("fmtrain-*/pymp-*")):
        assert process.poll() is None
        time.sleep(0.02)
    if killed:
        process.kill()
    assert process.wait(60) == (-9 if killed else 0)
    deadline = time.monotonic() + 60
    while (left := list(temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
