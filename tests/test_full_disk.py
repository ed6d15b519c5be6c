"""A disk that fills up in the middle of a stage: exit code 5, one message, no half artifact; the rerun goes on."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmtrain.artifacts.manifest import verify
from fmtrain.artifacts.store import Store
from tests.conftest import fmtrain
from tests.needs import need

STAGES = ["corpus", "tokenizer", "tokens", "examples", "pretrain", "sft", "reference", "dpo", "evaluate", "publish"]
SHORT = ["corpus", "pretrain", "publish"]  # one of each kind of worker; the others are chains of faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 48 MB."""
    need("mount")
    (folder := tmp_path / "disk").mkdir()
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
@pytest.mark.parametrize("stage", [s if s in SHORT else pytest.param(s, marks=pytest.mark.faults) for s in STAGES])
def test_full_disk_in_a_stage(stage: str, tiny_store: Path, small_disk: Path) -> None:
    """The disk fills while the stage works, the run says so; with room again the same command makes it whole."""
    store = Store(Path(shutil.copytree(tiny_store, small_disk / "store")))
    whole = {a.manifest.stage: a for a in store.artifacts()}
    shutil.rmtree(whole[stage].path)
    words = ["recipe=quickstart_tiny", "launch=inline", f"store={store.root}"]
    words += [f"stages.{name}=null" for name in STAGES[STAGES.index(stage) + 1 :]]  # reused they would leave it gone
    filler = Filler(small_disk, stage)
    filler.start()
    done = fmtrain("run", *words)
    filler.stop()
    assert filler.filled, f"{stage} never began: {done.stdout}{done.stderr}"
    assert done.returncode == 5, f"{stage}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stderr.count("cannot write under") == 1 and "Traceback" not in done.stderr, done.stderr
    for artifact in store.artifacts():
        verify(artifact)
    assert {a.manifest.stage for a in store.artifacts()} == set(STAGES) - {stage}
    done = fmtrain("run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = (a for a in store.artifacts() if a.manifest.stage == stage)
    assert set(again.manifest.files) == set(whole[stage].manifest.files)


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
