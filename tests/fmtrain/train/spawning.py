"""Starts the ranks of a training stage as a launcher does, on a stage folder made here."""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fmtrain.artifacts.stage import Stage, write_stage
from fmtrain.kinds.objectives import Clm, Sft
from fmtrain.kinds.train import TrainJob, TrainStage
from fmtrain.schema.load import dump
from fmtrain.schema.training import AdamW, Checkpoint, Constant, Llama, Zero
from launch.backends.command import rank_env

ROOT = Path(__file__).resolve().parents[3]
TINY = Llama(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)


def train_job(zero_stage: int = 2, **stage: Any) -> TrainJob:
    """Causal LM on rows of 32 tokens, 8 rows a step; thresholds so low that ZeRO-3 does partition so small a model."""
    settings: dict[str, Any] = {
        "artifact": "pretrain",
        "objective": Clm(),
        "optim": AdamW(lr=3e-3),
        "schedule": Constant(),
        "zero": Zero(stage=zero_stage, param_persistence_threshold=0),
        "steps": 40,
        "sequence_length": 32,
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "packing": "concat",
    }
    return TrainJob(seed=1, model=TINY, stage=TrainStage(**{**settings, **stage}), checkpoint=Checkpoint(10, 2))


def sft_job(zero_stage: int = 2, **stage: Any) -> TrainJob:
    """Chats of unequal length: every micro-batch has another weight."""
    return train_job(zero_stage, **{"objective": Sft(), "packing": "none", "sequence_length": 96, **stage})


def make_stage(folder: Path, job: TrainJob, inputs: dict[str, Path]) -> Path:
    roles = {role: str(path) for role, path in inputs.items()}
    made = Stage("pretrain", "model", "pretrain", "f" * 32, "test", dump(job), roles, {}, [], str(folder / "work"))
    made.work_dir.mkdir(parents=True, exist_ok=True)
    write_stage(folder / "stage", made)
    return folder / "stage"


def start(argv: list[str], ranks: int, logs: Path) -> list[subprocess.Popen[bytes]]:
    """The ranks meet in a file: no port is probed, and taken by another test before it is used."""
    logs.mkdir(parents=True, exist_ok=True)
    file = logs / f"meeting-{secrets.token_hex(4)}"
    file.touch()
    found = []
    for rank in range(ranks):
        own = rank_env(rank, rank, ranks, ranks, file, "127.0.0.1") if ranks > 1 else {}
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **own}
        with open(logs / f"rank{rank}.log", "ab") as log:
            found.append(subprocess.Popen([sys.executable, *argv], env=env, stdout=log, stderr=log))
    return found


def start_stage(stage: Path, ranks: int = 2) -> list[subprocess.Popen[bytes]]:
    (stage / "error.json").unlink(missing_ok=True)  # as the launching side does
    return start(["-m", "fmtrain.train", str(stage)], ranks, stage)


def wait(processes: list[subprocess.Popen[bytes]], timeout: float = 300) -> list[int]:
    """Exit codes; what is still running after `timeout` seconds is killed and the test fails."""
    deadline = time.monotonic() + timeout
    try:
        return [p.wait(max(0.1, deadline - time.monotonic())) for p in processes]
    finally:
        for p in processes:
            if p.poll() is None:
                p.kill()
                p.wait()


def until_step(stage: Path, processes: list[subprocess.Popen[bytes]], step: int, timeout: float = 300) -> None:
    """Return when metrics.jsonl has a row of `step`; fail when the ranks end before."""
    path = stage.parent / "work" / "metrics.jsonl"
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        assert all(p.poll() is None for p in processes), log(stage)
        time.sleep(0.01)
    raise AssertionError(f"step {step} not reached in {timeout} s: {log(stage)}")


def log(stage: Path) -> str:
    return "\n".join(p.read_text() for p in sorted(stage.glob("rank*.log")))
