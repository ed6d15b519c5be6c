"""The table of faults: each strikes a job on two nodes once, in a corpus stage and in a training, and it comes back by
itself to the same bits. `make test-faults` runs all of it and prints seconds from the fault to the next new step; CI
runs the two of `CI`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.templates.testing.cluster import Cluster
from tests.slurm import faults

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
CI = {("kill_rank", "pretrain"), ("preempt", "pretrain")}
CASES = [
    pytest.param(name, stage, marks=pytest.mark.long if (name, stage) in CI else pytest.mark.faults)
    for stage in faults.STAGES
    for name in faults.FAULTS
]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_it_comes_back_to_the_same_bits(
    name: str, stage: str, cluster: Cluster, undisturbed: Path, tmp_path: Path, table: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    store = tmp_path / "store"
    if stage == "pretrain":  # what comes before is not what is struck
        faults.before_training(undisturbed, store)
    case = faults.submit(cluster, store, slowly=(name, stage) == ("time_limit", "corpus"))
    try:
        seconds = faults.strike(case, store, stage, faults.FAULTS[name], 400)
        if stage == "corpus":  # the training after it is of no interest here
            faults.until(lambda: faults.steps_made(store, stage) == faults.DONE, 400, "the corpus")
            subprocess.run(["scancel", case.job], check=True)
        assert faults.finish(case, 400) == ("CANCELLED" if stage == "corpus" else "COMPLETED")
    except AssertionError as e:
        raise AssertionError(f"{e}\n{case.said}") from e
    finally:
        subprocess.run(["scancel", "-f", case.job], check=False)
        cluster("start")  # every node is in again
    assert faults.turns_begun(case) >= 2
    if name == "preempt" and stage == "pretrain":
        assert "stopped: step " in case.said
    wanted, found = faults.contents(undisturbed), faults.contents(store)
    kinds = {"corpus"} if stage == "corpus" else {"model"}
    assert {f for f in found if f.split("/")[0] in kinds}, found
    assert {k: v for k, v in found.items() if k.split("/")[0] in kinds} == {
        k: v for k, v in wanted.items() if k.split("/")[0] in kinds
    }
    table.append(f"{name:<16} {stage:<9} {seconds:6.1f} s to the next new step")
    with capsys.disabled():
        print("\n" + table[-1], flush=True)
    if keep := os.environ.get("FMT_FAULTS_TABLE"):
        with open(keep, "a", encoding="utf-8") as f:
            f.write(table[-1] + "\n")
