"""Contradictions between batch, ranks, ZeRO and precision are told before anything heavy is imported."""

from typing import Any

import pytest

from fmtrain.errors import ConfigError
from fmtrain.schema.training import Cosine, Zero
from fmtrain.train.schedule import factor
from fmtrain.train.settings import derive, total_steps, within
from tests.fmtrain.train.spawning import train_job


def test_accumulation() -> None:
    settings = derive(train_job(global_batch_size=24, micro_batch_size=3), "sft", 4)
    assert (settings.gradient_accumulation_steps, settings.rows_per_rank) == (2, 6)


@pytest.mark.parametrize(
    ("ranks", "stage", "said"),
    [
        (3, {}, ["stages.sft.global_batch_size=8", "micro_batch_size=2 times 3 ranks", "global_batch_size=9"]),
        (2, {"micro_batch_size": 8}, ["stages.sft.micro_batch_size=4 (the same result)"]),
        (1, {"steps": None}, ["stages.sft.steps=None", "stages.sft.epochs=None"]),
        (1, {"epochs": 1.0}, ["stages.sft.steps=40", "stages.sft.epochs=1.0"]),
        (1, {"precision": "bf16", "zero": Zero(stage=0)}, ["stages.sft.precision=bf16", "stages.sft.zero.stage=1"]),
        (1, {"zero": Zero(stage=0, offload_optimizer=True)}, ["offload_optimizer", "zero.stage"]),
    ],
)
def test_refused(ranks: int, stage: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        derive(train_job(**stage), "sft", ranks)
    assert all(part in str(caught.value) for part in said), str(caught.value)


@pytest.mark.parametrize(
    ("epochs", "rows", "expected"), [(1.0, 80, 10), (1.0, 81, 11), (2.5, 32, 10), (0.1, 240, 3), (0.01, 8, 1)]
)
def test_epochs(epochs: float, rows: int, expected: int) -> None:
    assert total_steps(train_job(steps=None, epochs=epochs).stage, rows) == expected


@pytest.mark.parametrize(("warmup", "steps", "trained"), [(10, 11, 10), (10, 10, 1), (10, 3, 0), (1, 1, 1), (0, 1, 0)])
def test_a_warm_up_ends_within_the_epochs(warmup: int, steps: int, trained: int) -> None:
    """With `steps` one as long as the training is refused; by epochs 50 rows would never leave it."""
    schedule = within(Cosine(warmup_steps=warmup), steps)
    assert schedule.warmup_steps == trained
    assert max(factor(schedule, step, steps) for step in range(steps)) == 1
