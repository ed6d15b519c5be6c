"""Config of what follows training: reference log-probabilities, evaluation, publication."""

from dataclasses import dataclass, field
from typing import Annotated

from fmtrain.schema.corpus import Inputs
from fmtrain.schema.fields import TEMPLATE_DATE, outside
from fmtrain.schema.limits import AboveZero, Count, Limits, Positive, RowLength, Share, Size


@dataclass
class ReferenceStage:
    """Log-probabilities of the preference rows under the model that DPO starts from."""

    artifact: str = "reference"
    sequence_length: RowLength = 384
    max_rows: Positive | None = None
    max_refused_fraction: Share = outside(0.1)  # of a split's rows; a chat template that refuses more stops the stage
    batch_size: Size = outside(8)
    inputs: Inputs = outside(Inputs)


@dataclass
class EvaluateStage:
    artifact: str = "evaluation"
    # tokens a scoring window; a quarter of it is context carried over
    sequence_length: Annotated[int, Limits(least=8, greatest=2**24)] = 256
    example_length: RowLength = 384  # tokens; longer SFT and preference rows are counted and left out
    max_bytes: Positive | None = None  # of held-out text; None: every byte
    max_rows: Positive | None = None  # SFT and preference rows each, a kind
    bootstrap: Annotated[int, Limits(least=10, greatest=1_000_000)] = 1000  # resamples for the 95% intervals
    samples: Count = 4
    sample_tokens: Count = 96
    batch_size: Size = outside(16)
    inputs: Inputs = outside(Inputs)


@dataclass
class PublishStage:
    """A Hugging Face folder under a name and a version."""

    artifact: str = "model"
    inputs: Inputs = outside(Inputs)


@dataclass
class ReferenceJob:
    stage: ReferenceStage = field(default_factory=ReferenceStage)
    template_date: str = TEMPLATE_DATE


@dataclass
class EvaluateJob:
    seed: Count
    stage: EvaluateStage = field(default_factory=EvaluateStage)
    beta: AboveZero | None = None  # of the DPO stage, for implicit rewards
    template_date: str = TEMPLATE_DATE


@dataclass
class PublishJob:
    stage: PublishStage = field(default_factory=PublishStage)
