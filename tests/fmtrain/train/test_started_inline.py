"""Ranks as children of the driver: in a hostile folder, under a hostile shell, beside a stranger, and killed."""

import os
import time
from pathlib import Path

import pytest

from launch.backends.command import Command, Failure
from launch.backends.environment import module
from launch.backends.inline import InlineBackend, InlineJob
from launch.backends.reaper import descendants
from tests.fmtrain.train.spawning import make_stage, train_job
from tests.processes import Place
from tests.strangers import strangers

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
KEYS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY", "GITHUB_TOKEN", "https_proxy", "SSH_AUTH_SOCK")
SHELL = {
    "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": "", "RANK": "1",
    "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1", "CUDA_VISIBLE_DEVICES": "0,1",
    "TORCHELASTIC_USE_AGENT_STORE": "True", **{key: "planted" for key in KEYS},
}  # fmt: skip
SHADOWS = ("fmtrain", "launch", "json", "random", "typing", "torch", "data_pipelines")


def train(stage: Path) -> Command:
    return Command("pretrain", module("fmtrain.train", str(stage)), stage.parent / "logs", ranks=2)


def wait(job: InlineJob, timeout: float = 600) -> list[Failure]:
    failures = job.wait(timeout)
    job.stop(0)
    assert failures is not None, "still running"
    return failures


def weights(stage: Path) -> bytes:
    return (stage.parent / "work" / "out" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def inputs(tokenizer_folder: Path, tokens_folder: Path) -> dict[str, Path]:
    return {"tokenizer": tokenizer_folder, "tokens": tokens_folder}


@needs_root
def test_two_ranks_in_a_hostile_place(
    inputs: dict[str, Path], tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights as in a quiet place; no key in any environment; nothing of the stranger's is executed."""
    quiet = make_stage(tmp_path / "quiet", train_job(), inputs)
    assert wait(InlineBackend().submit(train(quiet))) == []

    for name, value in {**SHELL, **place.env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name} of the working directory')")
    marker = Path("/tmp") / f"{tmp_path.name}-{os.getpid()}.marker"
    stage = make_stage(tmp_path / "hostile", train_job(), inputs)
    job = InlineBackend().submit(train(stage))
    assert isinstance(job, InlineJob)
    ranks = [process.pid for process in job.processes]  # this process may hold what other tests started
    with strangers(ranks, marker) as met:
        time.sleep(1)
        family = [pid for rank in ranks for pid in (rank, *descendants(rank))]
        environments = [Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in family]
        assert wait(job) == [], (stage.parent / "logs" / "rank0.log").read_text()
    try:
        assert not marker.exists(), f"a stranger's code ran as user {marker.read_text()}"
    finally:
        marker.unlink(missing_ok=True)
    assert weights(stage) == weights(quiet)
    assert {address for address, _ in met} == {"127.0.0.1"}, met
    met_by_file = [e for e in environments if any("FMTRAIN_MEETING" in word for word in e)]
    assert len(met_by_file) == 2
    for environment in met_by_file:
        names = {word.partition("=")[0] for word in environment}
        assert not names & {*KEYS, "PYTHONOPTIMIZE", "PYTHONWARNINGS", "TORCHELASTIC_USE_AGENT_STORE"}, names
        assert {"PYTHONSAFEPATH=1", "PYTHONUTF8=1", "WORLD_SIZE=2", "MASTER_PORT=0"} <= set(environment)
    assert not [path for path in place.folder.iterdir() if "torch" in path.name]
