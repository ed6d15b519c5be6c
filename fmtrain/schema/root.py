"""The whole configuration of a run."""

from dataclasses import dataclass, field

from fmtrain.kinds import table  # noqa: F401  the settings of every kind
from fmtrain.kinds.base import Stage
from fmtrain.schema.common import Common


@dataclass
class Root(Common):
    """`stages` has a stage under each name that the recipe chooses; null leaves one out."""

    stages: dict[str, Stage | None] = field(default_factory=dict)
