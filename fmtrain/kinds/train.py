"""A training: one objective on the rows that it asks for, from a model or from random weights."""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, cast

from fmtrain.errors import ConfigError
from fmtrain.kinds.base import Amount, At, Kind, Role, Stage, of, seed_of
from fmtrain.kinds.objectives import MODEL, Objective
from fmtrain.kinds.reference import ReferenceStage
from fmtrain.schema.fields import TEMPLATE_DATE, outside
from fmtrain.schema.limits import Count, Limits, Positive, RowLength, Share, Size
from fmtrain.schema.options import chosen
from fmtrain.schema.training import (
    AdamW,
    Bert,
    Checkpoint,
    Cosine,
    Llama,
    Model,
    Optim,
    Schedule,
    Zero,
)


@dataclass
class TrainStage(Stage):
    """One training run. Exactly one of `steps` and `epochs` is set; the batch is in rows over all ranks."""

    kind: str = "train"
    seed: Count | None = outside(None)  # of random weights and the order of rows; unless told, the run's
    model: Model | None = None  # None: the nearest model before, or the recipe's `model` where there is none
    objective: Objective = field(default_factory=Objective)  # what is learnt, and so which inputs there are
    optim: Optim = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Cosine)
    zero: Zero = outside(Zero)
    steps: Positive | None = None  # of the optimizer; this or epochs
    # passes over the rows; this or steps
    epochs: Annotated[float, Limits(above=0, greatest=1_000_000)] | None = None
    sequence_length: RowLength = 256  # tokens of a row; longer rows are left out, and counted
    global_batch_size: Size = 16  # rows (of dpo pairs) of a step, over all ranks
    micro_batch_size: Size = outside(8)  # rows that a rank holds at a time; the result does not depend on it
    precision: Annotated[str, Limits(choices=("fp32", "bf16"))] = "fp32"  # bf16: the optimizer keeps fp32
    # none: a row an example; concat: documents run on, split every sequence_length tokens
    packing: Annotated[str, Limits(choices=("none", "concat"))] = "none"
    max_rows: Positive | None = None  # of those that fit; the rest are not tokenized
    max_refused_fraction: Share = outside(0.1)  # of the rows; a chat template that refuses more stops the stage
    log_every: Positive = outside(10)  # steps between two lines of the log; metrics.jsonl has every step


@dataclass
class TrainJob:
    """The frozen slice of a training stage; `model` is None where it comes from the input model."""

    seed: Count
    stage: TrainStage
    model: Model | None = None
    checkpoint: Checkpoint = outside(Checkpoint)
    template_date: str = TEMPLATE_DATE


class Train(Kind):
    name, config, makes, revision = "train", TrainStage, "model", 4
    worker, code = "fmtrain.train", ("fmtrain.train.__main__",)
    ranks, seconds = True, 6.0

    def check(self, at: At) -> None:
        check_stage(at.cfg, at.key)
        if (ranks := at.root.launch.told) is not None:
            check_ranks(at.cfg, at.key, ranks)

    def check_ranks(self, cfg: TrainStage, key: str, ranks: int) -> None:
        check_ranks(cfg, key, ranks)

    def check_inputs(self, at: At, inputs: dict[str, str], lacking: dict[str, str]) -> None:
        if "model" not in inputs:
            self._check_blank(at)
        elif made := at.stages.get(inputs["model"]):
            task = of(made).task(made)
            if task not in (None, at.cfg.objective.task):
                raise ConfigError(
                    f"{at.key}.objective={at.cfg.objective.name} trains a {at.cfg.objective.task} model, and "
                    f"stages.{inputs['model']} makes a {task} one; name another: {at.key}.inputs.model=STAGE"
                )
        scored = at.stages.get(inputs.get("reference", ""))
        if scored and (misfit := _misfit(at, inputs["reference"], scored)):
            raise ConfigError(misfit)
        if (first := _first(at)) is None:
            return
        own = getattr(at.stages[first], "model", None)
        model = own or at.root.model
        if isinstance(model, (Llama, Bert)) and at.cfg.sequence_length > model.max_position_embeddings:
            key = f"stages.{first}.model" if own else "model"
            raise ConfigError(
                f"{at.key}.sequence_length={at.cfg.sequence_length} is above "
                f"{key}.max_position_embeddings={model.max_position_embeddings}; change one of them"
            )

    def _check_blank(self, at: At) -> None:
        """Random weights: a family that can learn this, in a shape that is one."""
        model, objective = self.model(at), at.cfg.objective
        if not objective.blank:
            raise ConfigError(
                f"{at.key} starts from random weights (model={model.name}); give one: model=hf model.path=DIR"
            )
        if model.task != objective.task:
            raise ConfigError(
                f"model={model.name} cannot learn {at.key}.objective={objective.name}; bert goes with mlm"
            )
        if isinstance(model, (Llama, Bert)) and model.hidden_size % model.num_attention_heads:
            raise ConfigError(
                f"model.hidden_size={model.hidden_size} is not a multiple of "
                f"model.num_attention_heads={model.num_attention_heads}; change one of them"
            )

    def roles(self, at: At) -> list[Role]:
        """A stage that has a `model` of its own takes none of another stage; one that is to be random has no input."""
        own, blank = at.cfg.model is not None, at.cfg.objective.blank
        model = replace(MODEL, kinds=() if own else MODEL.kinds, optional=blank or own)
        return [*at.cfg.objective.roles(), model]

    def implied(self, at: At, role: str, inputs: dict[str, list[str]]) -> Stage:
        named: dict[str, list[str] | None] = dict(inputs)
        cfg = at.cfg
        return ReferenceStage(
            sequence_length=cfg.sequence_length, max_rows=cfg.max_rows, max_refused_fraction=cfg.max_refused_fraction,
            inputs=named,
        )  # fmt: skip

    def fits(self, at: At, role: str, maker: Any) -> bool:
        return role != "reference" or not _misfit(at, "", maker)

    def model(self, at: At) -> Model:
        return at.cfg.model or at.root.model

    def task(self, cfg: TrainStage) -> str:
        return cfg.objective.task

    def learns_head(self, cfg: TrainStage) -> bool:
        return cfg.objective.blank

    def row_length(self, cfg: TrainStage) -> int:
        return cfg.sequence_length

    def job(self, at: At, inputs: dict[str, str]) -> TrainJob:
        model = None if "model" in inputs else self.model(at)
        return TrainJob(seed_of(at), replace(at.cfg, model=None), model, at.root.checkpoint, at.root.template_date)

    def amount(self, job: dict[str, Any], rows: int | None) -> Amount:
        stage, learnt = job["stage"], cast(type[Objective], chosen(Objective, job["stage"]["objective"]))
        steps, epochs, batch = stage["steps"], stage["epochs"], stage["global_batch_size"]
        counted = [n for n in (rows, stage["max_rows"]) if n is not None]
        if steps is None and counted:
            steps = max(1, math.ceil(epochs * min(counted) / batch - 1e-9))
        tokens = None if steps is None else int(steps * batch * stage["sequence_length"] * learnt.forwards)
        return Amount(steps, epochs, tokens)


def _first(at: At) -> str | None:
    """The stage whose model this one's comes of, itself maybe; None where a folder or the store has it."""
    name = at.name
    while (fed := at.fed.get(name, {}).get("model")) is not None:
        if not fed:
            return None
        name = fed
    return name


def _misfit(at: At, name: str, scored: Any) -> str:
    """Why a reference does not do: a preference objective's rows are those that have one. "" where it does."""
    if scored.sequence_length != at.cfg.sequence_length:
        return (
            f"stages.{name}.sequence_length={scored.sequence_length} and "
            f"{at.key}.sequence_length={at.cfg.sequence_length} must be equal: DPO trains on the rows that the "
            f"reference stage scored; e.g. {at.key}.sequence_length={scored.sequence_length}"
        )
    if scored.max_rows is not None and (at.cfg.max_rows is None or at.cfg.max_rows > scored.max_rows):
        return (
            f"{at.key}.max_rows={at.cfg.max_rows} is more than stages.{name}.max_rows={scored.max_rows}: DPO "
            "trains on the rows that the reference stage scored; change one of them"
        )
    return ""


def check_stage(cfg: TrainStage, at: str) -> None:
    """ConfigError for the first contradiction; `at` is where the stage stands: stages.sft."""
    if (cfg.steps is None) == (cfg.epochs is None):
        raise ConfigError(f"{at}.steps={cfg.steps} and {at}.epochs={cfg.epochs}: set exactly one, the other null")
    if cfg.global_batch_size % cfg.micro_batch_size:
        raise ConfigError(
            f"{at}.global_batch_size={cfg.global_batch_size} is not a multiple of "
            f"{at}.micro_batch_size={cfg.micro_batch_size}; change one of them (the batch that a step sees is "
            "global_batch_size; micro_batch_size is what one rank holds at a time)"
        )
    if cfg.zero.stage == 0 and cfg.precision == "bf16":
        raise ConfigError(f"{at}.precision=bf16 needs {at}.zero.stage of 1 or more; set {at}.zero.stage=1")
    if cfg.zero.stage == 0 and cfg.zero.offload_optimizer:
        raise ConfigError(f"{at}.zero.offload_optimizer=true needs {at}.zero.stage of 1 or more")
    if cfg.zero.stage and cfg.optim.whole:
        raise ConfigError(f"{at}.optim={cfg.optim.name} needs parameters in their shape; set {at}.zero.stage=0")
    packing = cfg.objective.packing
    if cfg.packing != packing:
        raise ConfigError(f"{at}.objective={cfg.objective.name} needs {at}.packing={packing}, not {cfg.packing}")
    usual = type(cfg.schedule)().warmup_steps  # which is shortened, as where `epochs` make few steps
    if cfg.steps is not None and cfg.schedule.warmup_steps >= cfg.steps > 1 and cfg.schedule.warmup_steps != usual:
        raise ConfigError(
            f"{at}.schedule.warmup_steps={cfg.schedule.warmup_steps} is not below {at}.steps={cfg.steps}; "
            f"e.g. {at}.schedule.warmup_steps={cfg.steps // 10}"
        )


def check_ranks(cfg: TrainStage, at: str, ranks: int) -> None:
    """The global batch divides into whole micro-batches over the ranks."""
    if cfg.global_batch_size % (cfg.micro_batch_size * ranks) == 0:
        return
    share = cfg.global_batch_size // ranks
    if cfg.global_batch_size % ranks:
        mend = f"{at}.global_batch_size={(share + 1) * ranks}"
    else:
        fits = max(n for n in range(1, min(share, cfg.micro_batch_size) + 1) if share % n == 0)
        mend = f"{at}.micro_batch_size={fits} (the same result)"
    raise ConfigError(
        f"{at}.global_batch_size={cfg.global_batch_size} is not a multiple of "
        f"{at}.micro_batch_size={cfg.micro_batch_size} times {ranks} ranks; e.g. {mend}"
    )
