"""A whole run that sleeps past its lease, while another machine's run makes its artifact, and wakes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.backends.reaper import descendants

RUN = """
import socket, sys
from fmtrain.artifacts import lease
from launch.cli import main
socket.gethostname = lambda: sys.argv[1]  # an inline run speaks to no other machine
lease.BEAT, lease.STALE = 0.2, 3.0
sys.exit(main(["run", "recipe=corpus_web", "launch=inline", "filter=none", *sys.argv[2:]]))
"""


def start(host: str, store: Path, text: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", RUN, host, f"store={store}", f"data.files={text}"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.faults
def test_a_run_that_wakes_after_its_lease_was_taken_writes_nothing_more(tmp_path: Path) -> None:
    text, store = tmp_path / "rows.jsonl", tmp_path / "store"
    rows = (" ".join(f"word{n * k % 7919}" for k in range(60)) for n in range(3000))
    text.write_text("".join(f'{{"text": "{row}"}}\n' for row in rows))
    sleeper = start("one", store, text)
    while not any(store.glob("work/corpus/*/parts/*")):
        assert sleeper.poll() is None, sleeper.communicate()[0]
        time.sleep(0.01)
    asleep = [sleeper.pid, *descendants(sleeper.pid)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    other = start("two", store, text)
    said = other.communicate()[0]
    assert other.returncode == 0 and "Looking for a sign of life" in said, said
    made = sorted(p.relative_to(store).as_posix() for p in (store / "artifacts").rglob("*"))
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    said = sleeper.communicate()[0]
    assert sleeper.returncode == 6 and "taken over by" in said, said
    assert sorted(p.relative_to(store).as_posix() for p in (store / "artifacts").rglob("*")) == made
    assert not any((store / "work").glob("*/*")) and not any((store / "leases").iterdir())
