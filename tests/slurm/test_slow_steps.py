"""A preemption in the middle of a long step: Slurm gives the time that a step takes, and nothing of it is lost."""

import json
import subprocess
from pathlib import Path

import pytest

from launch.templates.testing.cluster import Cluster
from tests.slurm import faults

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
STEP, GRACE, USUAL = 26, 60, 15  # seconds of a slow step, of the partition's GraceTime, and of what that is otherwise
# Each rank's optimizer waits so long before its step, once the file is there: after the forward and backward passes.
SLOW = f"""
import sys
if "fmtrain.train" in sys.orig_argv:
    import time
    from pathlib import Path
    from fmtrain.train import schedule
    fast, wanted = schedule.factor, Path(__file__).with_name("slow")
    def factor(*given):
        if wanted.exists():
            wanted.with_name("steps").open("a").write("x")
            time.sleep({STEP})
        return fast(*given)
    schedule.factor = factor
"""


@pytest.mark.faults
def test_a_step_of_26_seconds_is_saved_within_a_grace_of_60(
    cluster: Cluster, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "slow").mkdir()
    (here / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(here))
    faults.before_training(undisturbed, store := tmp_path / "store")
    cluster("exec", "scontrol", "update", "partitionname=main", f"gracetime={GRACE}")
    case = faults.submit(cluster, store)
    try:
        faults.until(lambda: faults.steps_made(store, "pretrain") >= 7, 400, f"steps\n{case.said}")
        (here / "slow").touch()
        faults.until((here / "steps").exists, 60, "a slow step")
        cluster("preempt", "5")
        faults.until(lambda: "queued again" in case.said, 120, f"the job leaves in time\n{case.said}")
        (here / "slow").unlink()
        assert faults.finish(case, 400) == "COMPLETED", case.said
    finally:
        subprocess.run(["scancel", "-f", case.job], check=False)
        cluster("exec", "scontrol", "update", "partitionname=main", f"gracetime={USUAL}")
    turns = [json.loads(line) for line in (case.run / "turns.jsonl").read_text().splitlines()]
    saved = turns[1]["mark"]["saved"]
    assert [turn["mark"]["saved"] for turn in turns] == [0, saved, saved, 0] and saved >= 8
    assert f"stopped: step {saved} is saved\n" in case.said
    assert (here / "steps").read_text() == "xx", "one step of both ranks, and no other was begun"
    assert f"asked to stop: step {saved} of 300 is saved" in (case.run / "logs/pretrain/rank0.log").read_text()
    assert faults.contents(store) == faults.contents(undisturbed)
