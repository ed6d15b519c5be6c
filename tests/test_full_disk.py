"""A disk that fills up in the middle of each stage: exit code 5, one message, no half artifact; the rerun goes on."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmtrain.run.manifest import verify
from fmtrain.run.store import Store
from tests.conftest import fmtrain
from tests.needs import need

STAGES = ["corpus", "tokenizer", "tokens", "examples", "pretrain", "sft", "reference", "dpo", "evaluate", "publish"]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tmpfs of 48 MB."""
    need("mount")
    folder = tmp_path_factory.mktemp("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Filler(threading.Thread):
    """Fills the disk once `stage` has begun, and keeps it full."""

    def __init__(self, disk: Path, stage: str) -> None:
        super().__init__(daemon=True)
        self.disk, self.stage, self.done, self.filled = disk, stage, threading.Event(), False

    def run(self) -> None:
        before = set(self.disk.glob(f"store/runs/*/stages/{self.stage}/stage.json"))
        while not self.done.is_set():
            if self.filled or set(self.disk.glob(f"store/runs/*/stages/{self.stage}/stage.json")) - before:
                self.filled = True
                self._fill()
            time.sleep(0.005)

    def _fill(self) -> None:
        with open(self.disk / "filler", "ab", buffering=0) as f:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        f.write(b"x" * size)
                except OSError:
                    continue

    def stop(self) -> None:
        self.done.set()
        self.join()
        (self.disk / "filler").unlink(missing_ok=True)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_full_disk_in_every_stage(small_disk: Path) -> None:
    """Each stage in turn: the disk fills while it works, the run says so; with room again the next stage follows."""
    store = Store(small_disk / "store")
    for stage in STAGES:
        filler = Filler(small_disk, stage)
        filler.start()
        done = fmtrain("run", "recipe=quickstart_tiny", "launch=inline", f"store={store.root}")
        filler.stop()
        assert filler.filled, f"{stage} never began: {done.stdout}{done.stderr}"
        assert done.returncode == 5, f"{stage}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.stderr.count("cannot write under") == 1 and "Traceback" not in done.stderr, done.stderr
        for artifact in store.artifacts():
            verify(artifact)
        made = {a.manifest.stage for a in store.artifacts()}
        assert made == set(STAGES[: STAGES.index(stage)]), f"{stage}: {made}"
    assert fmtrain("run", "recipe=quickstart_tiny", "launch=inline", f"store={store.root}").returncode == 0


def test_a_full_disk_before_the_start(small_disk: Path) -> None:
    filler = Filler(small_disk, "none")
    filler._fill()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "launch.cli", "run", "recipe=quickstart_tiny", f"store={small_disk / 'other'}"],
            capture_output=True,
            text=True,
        )
    finally:
        (small_disk / "filler").unlink()
    assert done.returncode == 5 and "space" in done.stderr.lower(), done.stderr
