"""A terminal that is closed in the middle of a run is named as such, and stops nobody who asked not to be stopped."""

import errno
import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest


def start(words: list[str], env: dict[str, str], *, nohup: bool) -> tuple[int, int]:
    """`fmtrain` with a real terminal of its own as its controlling one: its pid and the terminal's other end."""
    pid, master = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
        os.execve(sys.executable, [sys.executable, "-m", "launch.cli", *words], env)
    return pid, master


def read_until(master: int, wanted: bytes) -> bytes:
    shown, deadline = b"", time.monotonic() + 120
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([master], [], [], 1.0)[0]:
            try:
                shown += os.read(master, 1 << 16)
            except OSError as e:
                assert e.errno == errno.EIO
                raise AssertionError(f"it ended: {shown.decode()}") from None
    return shown


@pytest.mark.parametrize(
    ("nohup", "code", "state"), [(True, 0, "done"), (False, 75, "requeue")], ids=["ignored", "heard"]
)
def test_a_closed_terminal(nohup: bool, code: int, state: str, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": f"{n}", "text": f"text {n}"}) + "\n" for n in range(20))
    (tmp_path / "rows.jsonl").write_text(rows)
    words = ["run", "launch=inline", "recipe=corpus_web", "filter=none", "dedup=exact", "stages.corpus.tasks=2"]
    words += [f"data.files={tmp_path / 'rows.jsonl'}", f"store={tmp_path / 'store'}"]
    pid, master = start(words, {**os.environ, "TERM": "xterm"}, nohup=nohup)
    try:
        read_until(master, b"starting")  # the stage's live line
    finally:
        os.close(master)
        _, status = os.waitpid(pid, 0)
    (record,) = (tmp_path / "store").glob("runs/*/run.json")
    run = json.loads(record.read_text())
    assert os.waitstatus_to_exitcode(status) == code, run
    assert run["state"] == state
    assert "the terminal was closed" in (run["notes"][-1] if nohup else run["message"])
    assert len(list((tmp_path / "store").glob("artifacts/corpus/*/v0001"))) == (1 if nohup else 0)
