"""A model as a Hugging Face folder under a name and a version, with a card and its lineage."""

from dataclasses import dataclass, field

from fmtrain.kinds.base import MODELS, At, Kind, Role, Stage, starts_from
from fmtrain.schema.training import Model


@dataclass
class PublishStage(Stage):
    """A Hugging Face folder under a name and a version."""

    kind: str = "publish"


@dataclass
class PublishJob:
    name: str  # stands in the card
    stage: PublishStage = field(default_factory=PublishStage)


class Publish(Kind):
    name, config, makes, revision = "publish", PublishStage, "published", 3
    worker, code = "fmtrain.publish", ("fmtrain.publish.__main__",)
    seconds = 1.0

    def roles(self, at: At) -> list[Role]:
        return [Role("model", MODELS, folder=True), Role("evaluation", ("evaluation",), optional=True)]

    def model(self, at: At) -> Model | None:
        return starts_from(at)

    def job(self, at: At, inputs: dict[str, str]) -> PublishJob:
        return PublishJob(at.cfg.artifact or at.name, at.cfg)
