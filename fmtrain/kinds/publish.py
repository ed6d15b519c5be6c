"""A model as a Hugging Face folder under a name and a version, with a card and its lineage."""

from dataclasses import dataclass, field
from typing import Annotated

from fmtrain.kinds.base import MODELS, At, Kind, Role, Stage, starts_from
from fmtrain.schema.limits import AboveZero, Limits
from fmtrain.schema.training import Model


@dataclass
class PublishStage(Stage):
    """A Hugging Face folder under a name and a version."""

    kind: str = "publish"
    # of the weights; unless told, that of the base that the model comes of
    dtype: Annotated[str, Limits(choices=("fp32", "bf16", "fp16"))] | None = None
    shard_gb: AboveZero | None = None  # most of a file of weights; unless told, as the base's files are


@dataclass
class PublishJob:
    name: str  # stands in the card
    stage: PublishStage = field(default_factory=PublishStage)


class Publish(Kind):
    name, config, makes, revision = "publish", PublishStage, "published", 3
    worker, code = "fmtrain.publish", ("fmtrain.publish.__main__",)
    hands_on, seconds = True, 1.0

    def roles(self, at: At) -> list[Role]:
        return [Role("model", MODELS, folder=True), Role("evaluation", ("evaluation",), optional=True)]

    def model(self, at: At) -> Model | None:
        return starts_from(at)

    def job(self, at: At, inputs: dict[str, str]) -> PublishJob:
        return PublishJob(at.cfg.artifact or at.name, at.cfg)
