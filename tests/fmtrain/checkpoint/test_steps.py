"""Step checkpoints are whole or absent: every fault leads to an older one, never to a wrong one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fmtrain.artifacts.storage import list_files
from fmtrain.checkpoint import Manifest, StepCheckpoints
from fmtrain.checkpoint.steps import MANIFEST, verify
from fmtrain.errors import StoreError


def save(steps: StepCheckpoints, step: int, keep: int = 10) -> Path:
    path = steps.begin(step)
    (path / "state").mkdir()
    (path / "state" / "rank0.pt").write_bytes(bytes([step % 251]) * 1000)
    (path / "state" / "rank1.pt").write_bytes(bytes([step % 241]) * 500)
    manifest = Manifest(step, "f" * 32, 2, 2, "fp32", {"torch": "2"}, list_files(path))
    made = steps.commit(path, manifest)
    steps.prune(keep, made)
    return made


@pytest.fixture
def steps(tmp_path: Path) -> StepCheckpoints:
    return StepCheckpoints(tmp_path / "checkpoints")


def names(steps: StepCheckpoints) -> list[str]:
    return sorted(p.name for p in steps.folder.iterdir())


def latest_step(steps: StepCheckpoints) -> int | None:
    found = steps.latest()
    return found.manifest.step if found else None


def test_nothing_yet(steps: StepCheckpoints) -> None:
    assert steps.latest() is None
    steps.clean()


def test_newest_and_prune(steps: StepCheckpoints) -> None:
    for step in (5, 10, 15, 100_000_000):
        save(steps, step, keep=2)
    assert names(steps) == ["step-00000015", "step-100000000"]
    found = steps.latest()
    assert found is not None and found.manifest.step == 100_000_000 and found.path.name == "step-100000000"
    assert set(found.manifest.files) == {"state/rank0.pt", "state/rank1.pt"}


@pytest.mark.parametrize("keep", range(1, 8))
def test_as_many_are_kept_as_asked_for(keep: int, steps: StepCheckpoints) -> None:
    for step in range(1, 15):
        save(steps, step, keep)
        assert names(steps) == [f"step-{s:08d}" for s in range(max(1, step - keep + 1), step + 1)]


def test_nothing_is_pruned_before_the_commit(steps: StepCheckpoints) -> None:
    save(steps, 1, keep=1)
    path = steps.begin(2)
    (path / "half.pt").write_bytes(b"x")
    assert latest_step(steps) == 1
    steps.clean()
    assert names(steps) == ["step-00000001"]


def flip(folder: Path) -> None:
    file = folder / "state" / "rank1.pt"
    data = bytearray(file.read_bytes())
    data[250] ^= 1
    file.write_bytes(data)


def truncate(folder: Path) -> None:
    os.truncate(folder / "state" / "rank0.pt", 999)


def remove(folder: Path) -> None:
    (folder / "state" / "rank0.pt").unlink()


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def half_manifest(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 40)


def other_manifest(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    del data["world_size"], data["seal"]  # as an earlier version may have left it
    (folder / MANIFEST).write_text(json.dumps(data))


def other_step(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**data, "step": 7}))


def list_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


FAULTS = {
    flip: "rank1.pt is damaged",
    truncate: "rank0.pt has 999 bytes",
    remove: "rank0.pt is missing",
    no_manifest: "manifest.json is missing",
    half_manifest: "manifest.json",
    other_manifest: "world_size",
    other_step: "does not fit its seal",
    list_manifest: "manifest.json is damaged",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_damaged_one_is_named_and_the_older_taken(
    fault: "type[object]", steps: StepCheckpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    save(steps, 10)
    made = save(steps, 20)
    fault(made)  # type: ignore[call-arg]
    assert latest_step(steps) == 10
    said = capsys.readouterr().err
    assert FAULTS[fault] in said and "step-00000020" in said  # type: ignore[index]
    with pytest.raises(StoreError):
        verify(made)
    assert latest_step(steps) == 10
    save(steps, 20)  # what was damaged is made again
    assert latest_step(steps) == 20


def test_damaged_ones_do_not_push_out_valid_ones(steps: StepCheckpoints) -> None:
    for step in (10, 20, 30, 40):
        save(steps, step)
    for step in (30, 40):
        flip(steps.folder / f"step-{step:08d}")
    assert latest_step(steps) == 20
    save(steps, 25, keep=2)
    assert names(steps) == ["step-00000020", "step-00000025"]


def test_every_one_damaged(steps: StepCheckpoints) -> None:
    flip(save(steps, 10))
    assert steps.latest() is None


def test_a_file_that_another_rank_did_not_see(steps: StepCheckpoints) -> None:
    path = steps.begin(3)
    (path / "rank0.pt").write_bytes(b"abc")
    manifest = Manifest(3, "f", 1, 0, "fp32", {}, {**list_files(path), "rank1.pt": {"bytes": 3, "sha256": "0"}})
    with pytest.raises(StoreError, match=r"rank1\.pt"):
        steps.commit(path, manifest)
    assert steps.latest() is None


def test_a_file_of_nobody(steps: StepCheckpoints) -> None:
    path = steps.begin(3)
    (path / "rank0.pt").write_bytes(b"abc")
    manifest = Manifest(3, "f", 1, 0, "fp32", {}, list_files(path))
    (path / "stray").write_bytes(b"")
    with pytest.raises(StoreError, match="stray"):
        steps.commit(path, dataclasses.replace(manifest))


def test_killed_at_any_moment(steps: StepCheckpoints) -> None:
    """A process that does nothing but save is killed at odd moments; what is left is always a whole checkpoint."""
    code = f"""
from pathlib import Path
from fmtrain.checkpoint import StepCheckpoints
from tests.fmtrain.checkpoint.test_steps import save
steps = StepCheckpoints(Path({str(steps.folder)!r}))
steps.clean()
found = steps.latest()
print("go", flush=True)
for step in range(found.manifest.step + 1 if found else 1, 100000):
    save(steps, step, keep=2)
"""
    root = Path(__file__).resolve().parents[3]
    before = 0
    for delay in (0.02, 0.05, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
        )
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = steps.latest()
        if before:  # once there was one, there is always one, and never an older one
            assert found is not None and found.manifest.step >= before
        before = found.manifest.step if found else before
        for path in steps.folder.glob("step-*"):
            verify(path)
    assert before > 0
