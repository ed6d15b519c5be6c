"""Every model that there is on all that was held out of its training, with intervals and baselines."""

from dataclasses import dataclass, field
from typing import Annotated

from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.base import MODELS, At, Kind, Role, Stage, data_of, seed_of, starts_from
from fmtrain.schema.fields import TEMPLATE_DATE, outside
from fmtrain.schema.limits import AboveZero, Count, Limits, Positive, RowLength, Size
from fmtrain.schema.training import Model

BASE = "base"  # what the folder that a run starts from is called among the models


@dataclass
class EvaluateStage(Stage):
    kind: str = "evaluate"
    seed: Count | None = outside(None)  # of the samples and the resamples; unless told, the run's
    # tokens a scoring window; a quarter of it is context carried over
    sequence_length: Annotated[int, Limits(least=8, greatest=2**24)] = 256
    example_length: RowLength = 384  # tokens; longer SFT and preference rows are counted and left out
    max_bytes: Positive | None = None  # of held-out text; None: every byte
    max_rows: Positive | None = None  # SFT and preference rows each, a kind
    bootstrap: Annotated[int, Limits(least=10, greatest=1_000_000)] = 1000  # resamples for the 95% intervals
    samples: Count = 4
    sample_tokens: Count = 96
    batch_size: Size = outside(16)


@dataclass
class Scored:
    """A model to evaluate; the defaults are those of one that no stage of this run trained."""

    role: str  # its input
    name: str  # what the report calls it: its stage, NAME@vN, a folder's name
    beta: AboveZero | None = None  # of a preference objective: it has implicit rewards
    chats: bool = True  # its samples are chats where there are rows of these
    reads: bool = True  # it stands for what it knows of text, and is held against compressors


@dataclass
class EvaluateJob:
    seed: Count
    stage: EvaluateStage = field(default_factory=EvaluateStage)
    models: list[Scored] = field(default_factory=list)
    template_date: str = TEMPLATE_DATE


class Evaluate(Kind):
    name, config, makes, revision = "evaluate", EvaluateStage, "evaluation", 4
    worker, code = "fmtrain.evaluate", ("fmtrain.evaluate.__main__",)
    gpu, seconds, per_mb = True, 4.0, 2.7e5

    def check_inputs(self, at: At, inputs: dict[str, str], lacking: dict[str, str]) -> None:
        if "examples" in lacking and "corpus" not in inputs:
            raise InputError(
                f"{lacking['examples']}: nothing is left to evaluate on. Give more rows, or leave the evaluation out: "
                f"{at.key}=null"
            )
        if BASE in inputs and f"model.{BASE}" in inputs:
            raise ConfigError(
                f"stages.{BASE}: the evaluation calls the model that the run starts from so; give another name"
            )
        pinned = any(inputs.get(role) == "" for role in ("corpus", "examples"))
        if not pinned and not data_of(at, inputs.get("corpus")).heldout_modulus:
            raise ConfigError(
                f"data.heldout_modulus=0 holds nothing out, and {at.key} would have nothing to evaluate on; give "
                f"another (20 is a twentieth), or leave the evaluation out: {at.key}=null"
            )

    def roles(self, at: At) -> list[Role]:
        data = [Role(name, (name,), optional=True) for name in ("corpus", "tokens")]
        examples = Role("examples", ("examples",), part="heldout", optional=True)
        base = Role(BASE, (), optional=True, folder=True)
        references = Role("reference", ("reference",), optional=True, many=True)
        return [
            *data,
            examples,
            references,
            base,
            Role("model", MODELS, optional=True, many=True, labels=True, folder=True),
        ]

    def model(self, at: At) -> Model | None:
        return starts_from(at)

    def job(self, at: At, inputs: dict[str, str]) -> EvaluateJob:
        models = [Scored(BASE, BASE)] if BASE in inputs else []
        for role, stage in inputs.items():
            head, _, name = role.partition(".")
            if head != "model":
                continue
            learnt = getattr(at.stages.get(stage), "objective", None)
            scored = Scored(role, name)
            if learnt is not None:
                scored = Scored(role, name, getattr(learnt, "beta", None), not learnt.blank, learnt.blank)
            models.append(scored)
        return EvaluateJob(seed_of(at), at.cfg, models, at.root.template_date)
