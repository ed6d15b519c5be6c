"""What a worker reads is checked as strictly as what a user types."""

from typing import Any

import pytest

from fmtrain.errors import ConfigError
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.kinds.objectives import Dpo
from fmtrain.kinds.train import TrainJob, TrainStage
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.load import dump, identity, load
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Stdlib
from fmtrain.schema.training import AdamW, Cosine


def train_job() -> TrainJob:
    stage = TrainStage(artifact="x", objective=Dpo(beta=0.3), optim=AdamW(), schedule=Cosine(), steps=3)
    return TrainJob(seed=1, stage=stage)


@pytest.mark.parametrize(
    "job", [train_job(), CorpusJob(Stdlib(modules=["json"]), Filter("code", ["code"]), Dedup("minhash"))]
)
def test_round_trip(job: Any) -> None:
    assert load(type(job), dump(job)) == job


def change(path: str, value: Any) -> dict[str, Any]:
    data = dump(train_job())
    *parents, last = path.split(".")
    node = data
    for part in parents:
        node = node[part]
    node[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("stage.objective.betta", 1.0, "stage.objective.betta is not a setting of Dpo"),
        ("stage.objective.name", "ppo", "'ppo' is not one of clm, dpo, mlm, sft"),
        ("stage.optim.lr", "big", "stage.optim.lr: 'big' is not a number; e.g. stage.optim.lr=0.001"),
        ("stage.steps", True, "stage.steps: True is not a whole number"),
        ("stage.artifact", "???", "stage.artifact is required"),
        ("stage.zero", 3, "stage.zero: 3 is not a group"),
    ],
)
def test_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        load(TrainJob, change(path, value))


def test_identity_is_what_changes_the_result() -> None:
    base = identity(train_job())
    for path, value in [
        ("stage.micro_batch_size", 2),
        ("stage.zero.stage", 3),
        ("checkpoint.every_steps", 7),
        ("stage.log_every", 1),
    ]:
        assert identity(load(TrainJob, change(path, value))) == base, path
    for path, value in [
        ("seed", 2),
        ("stage.objective.beta", 0.1),
        ("stage.global_batch_size", 32),
        ("stage.precision", "bf16"),
    ]:
        assert identity(load(TrainJob, change(path, value))) != base, path
