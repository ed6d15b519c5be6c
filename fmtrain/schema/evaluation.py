"""Config of what follows training: reference log-probabilities, evaluation, publication."""

from dataclasses import dataclass, field

from fmtrain.schema.corpus import Inputs
from fmtrain.schema.fields import outside


@dataclass
class ReferenceStage:
    """Log-probabilities of the preference rows under the model that DPO starts from."""

    artifact: str = "reference"
    sequence_length: int = 384
    max_rows: int | None = None
    batch_size: int = outside(8)
    inputs: Inputs = outside(Inputs)


@dataclass
class EvaluateStage:
    artifact: str = "evaluation"
    sequence_length: int = 256  # tokens a scoring window; a quarter of it is context carried over
    example_length: int = 384  # tokens; longer SFT and preference rows are counted and left out
    max_bytes: int | None = None  # of held-out text; None: every byte
    max_rows: int | None = None  # SFT and preference rows each, a kind
    bootstrap: int = 1000  # resamples for the 95% intervals
    samples: int = 4
    sample_tokens: int = 96
    batch_size: int = outside(16)
    inputs: Inputs = outside(Inputs)


@dataclass
class PublishStage:
    """A Hugging Face folder under a name and a version."""

    artifact: str = "model"
    inputs: Inputs = outside(Inputs)


@dataclass
class ReferenceJob:
    stage: ReferenceStage = field(default_factory=ReferenceStage)


@dataclass
class EvaluateJob:
    seed: int
    stage: EvaluateStage = field(default_factory=EvaluateStage)
    beta: float | None = None  # of the DPO stage, for implicit rewards


@dataclass
class PublishJob:
    stage: PublishStage = field(default_factory=PublishStage)
