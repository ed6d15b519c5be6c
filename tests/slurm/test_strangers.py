"""A job on two nodes beside another user, who is on both and speaks to every socket that listens there."""

import contextlib
import os
from pathlib import Path

import pytest

from launch.backends.reaper import descendants
from launch.templates.testing.cluster import Cluster
from tests.slurm import faults
from tests.slurm.conftest import nodes
from tests.strangers import strangers

KEYS = {"AWS_SECRET_ACCESS_KEY": "planted-aws", "HF_TOKEN": "planted-hf", "WANDB_API_KEY": "planted-wandb"}
# Slurm hands the environment of `sbatch` to the script and what that calls; these two of ours pass on what is needed.
GIVEN = ("slurmstepd", "/slurm_script", "srun", "sleep", "launch.cli run", "launch.backends.node")


@pytest.mark.long(2)
@pytest.mark.slurm
@pytest.mark.timeout(900)
def test_a_stranger_on_both_nodes_changes_nothing(
    cluster: Cluster, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    marker = Path("/tmp") / f"fmtrain-stranger-{os.getpid()}"
    faults.before_training(undisturbed, store := tmp_path / "store")
    case = faults.submit(cluster, store)
    try:
        with contextlib.ExitStack() as stack:
            met = [stack.enter_context(strangers([node], marker)) for node in nodes(cluster)]
            faults.until(lambda: faults.steps_made(store, "pretrain") > 0, 400, f"a step\n{case.said}")
            held, seen = keys_held(cluster)
            opened = open_to_others(store)
            assert faults.finish(case, 400) == "COMPLETED", case.said
        assert not marker.exists(), f"a stranger's code ran as user {marker.read_text()}"
    finally:
        cluster("exec", "scancel", "-f", case.job, check=False)
        marker.unlink(missing_ok=True)
    assert held == [] and len(seen) > 20 and any("fmtrain.train" in line for line in seen)
    assert opened == [] and open_to_others(store) == []
    assert [name for name, value in KEYS.items() for path in files(store) if value.encode() in path.read_bytes()] == []
    for node, spoken_to in enumerate(met):
        titles = set(spoken_to.values())
        for wanted in ("raylet", "fmtrain.train", *(["gcs_server", "dashboard"] if node == 0 else [])):
            assert any(wanted in title for title in titles), (wanted, titles)
    assert faults.turns_begun(case) == 1
    wanted, found = faults.contents(undisturbed), faults.contents(store)
    assert found == wanted and any(name.startswith("model/") for name in found)


def keys_held(cluster: Cluster) -> tuple[list[str], list[str]]:
    """Processes on the nodes that hold a key and have not been given it; and all that were looked at."""
    held, seen = [], []
    for pid in [pid for node in nodes(cluster) for pid in descendants(node)]:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            seen.append(line)
            if any(value in environment + line for value in KEYS.values()) and not any(word in line for word in GIVEN):
                held.append(line)
    return held, seen


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def open_to_others(store: Path) -> list[str]:
    """What in the folders of runs and of unfinished work has a mode that lets another user do something with it."""
    found = []
    for top in (*store.glob("runs/*"), *store.glob("work/*/*")):
        for path in (top, *top.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                if (mode := path.lstat().st_mode) & 0o077:
                    found.append(f"{path.relative_to(store)} {mode:o}")
    return found
