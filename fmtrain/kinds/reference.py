"""Log-probabilities of preference rows under the model that DPO starts from, computed once."""

from dataclasses import dataclass, field

from fmtrain.kinds.base import MODELS, At, Kind, Role, Stage, starts_from
from fmtrain.schema.fields import TEMPLATE_DATE, outside
from fmtrain.schema.limits import Positive, RowLength, Share, Size
from fmtrain.schema.training import Model


@dataclass
class ReferenceStage(Stage):
    """Log-probabilities of the preference rows under the model that DPO starts from."""

    kind: str = "reference"
    sequence_length: RowLength = 384
    max_rows: Positive | None = None
    max_refused_fraction: Share = outside(0.1)  # of a split's rows; a chat template that refuses more stops the stage
    batch_size: Size = outside(8)


@dataclass
class ReferenceJob:
    stage: ReferenceStage = field(default_factory=ReferenceStage)
    template_date: str = TEMPLATE_DATE


class Reference(Kind):
    name, config, makes, revision = "reference", ReferenceStage, "reference", 2
    worker, code = "fmtrain.evaluate", ("fmtrain.evaluate.reference",)
    gpu, seconds, per_mb = True, 4.0, 5e4

    def roles(self, at: At) -> list[Role]:
        return [Role("examples", ("examples",), part="preference"), Role("model", MODELS, folder=True)]

    def model(self, at: At) -> Model | None:
        return starts_from(at)

    def row_length(self, cfg: ReferenceStage) -> int:
        return cfg.sequence_length

    def job(self, at: At, inputs: dict[str, str]) -> ReferenceJob:
        return ReferenceJob(at.cfg, at.root.template_date)
