"""The tiny quickstart as a user submits it: two nodes, corpus tasks and ranks on both, the code of a failed stage."""

import json
from pathlib import Path

import pytest

from launch.templates.testing.cluster import Cluster
from tests.conftest import fmtrain

pytestmark = [pytest.mark.slurm, pytest.mark.long]
SLURM = ["recipe=quickstart_tiny", "launch=slurm", "launch.nodes=2", "launch.cpus_per_task=2", "launch.time=00:30:00"]


def test_two_nodes_to_a_published_model(cluster: Cluster, tmp_path: Path) -> None:
    done = fmtrain("run", *SLURM, f"store={tmp_path}", "--wait", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "artifacts/published/quickstart_tiny/v0001/model.safetensors").is_file()
    (run,) = (tmp_path / "runs").iterdir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    placed = {e["stage"]: e["hosts"] for e in events if e["event"] == "started"}
    assert sorted(placed["pretrain"]) == ["n1", "n2"] and sorted(placed["dpo"]) == ["n1", "n2"]
    corpus = (run / "logs" / "corpus" / "rank0.log").read_text()
    assert "done on n1" in corpus and "done on n2" in corpus
    manifest = json.loads((tmp_path / "artifacts/model/pretrain/v0001/manifest.json").read_text())
    assert manifest["numerics"]["ranks"] == 2


def test_the_code_of_a_failed_stage_comes_through(cluster: Cluster, tmp_path: Path) -> None:
    """A module that does not exist: input data, 3, before the job; a learning rate that explodes: 4."""
    bad = fmtrain("run", *SLURM, f"store={tmp_path}", "data.modules=[nowhere]", "--wait", timeout=600)
    assert bad.returncode == 3
    failed = fmtrain("run", *SLURM, f"store={tmp_path}", "stages.pretrain.optim.lr=1e30", "--wait", timeout=600)
    assert failed.returncode == 4, failed.stdout + failed.stderr
    assert "pretrain failed" in failed.stdout + failed.stderr
