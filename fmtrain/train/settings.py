"""What follows from a training stage's config and the number of ranks alone, checked, without importing torch."""

import math
from dataclasses import dataclass, replace

from fmtrain.kinds.train import TrainJob, TrainStage, check_ranks, check_stage
from fmtrain.schema.training import Schedule


@dataclass(frozen=True)
class Settings:
    """How a global batch is cut: global_batch_size = micro_batch_size * gradient_accumulation_steps * ranks."""

    stage: str
    ranks: int
    global_batch_size: int
    micro_batch_size: int
    gradient_accumulation_steps: int

    @property
    def rows_per_rank(self) -> int:
        return self.micro_batch_size * self.gradient_accumulation_steps


def derive(job: TrainJob, stage: str, ranks: int) -> Settings:
    """ConfigError where fields contradict each other or the number of ranks."""
    cfg, at = job.stage, f"stages.{stage}"
    check_stage(cfg, at)
    check_ranks(cfg, at, ranks)
    accumulation = cfg.global_batch_size // (cfg.micro_batch_size * ranks)
    return Settings(stage, ranks, cfg.global_batch_size, cfg.micro_batch_size, accumulation)


def total_steps(cfg: TrainStage, rows: int) -> int:
    """Optimizer steps: as given, or as many as `epochs` passes over `rows` rows take, the last batch filled up."""
    if cfg.steps is not None:
        return cfg.steps
    assert cfg.epochs is not None
    # Products of a float and an integer end a hair above a whole number at times; that is no further step.
    return max(1, math.ceil(cfg.epochs * rows / cfg.global_batch_size - 1e-9))


def within(schedule: Schedule, steps: int) -> Schedule:
    """The schedule with a warm-up that ends within `steps`: where `epochs` give fewer than it is long, a tenth of them.

    Nobody knows the steps of `epochs` before the rows are counted; with `steps` such a warm-up is refused.
    """
    return schedule if schedule.warmup_steps < max(steps, 2) else replace(schedule, warmup_steps=steps // 10)


def shorter_warmup(cfg: TrainStage, stage: str, steps: int, rows: int) -> str:
    """What to say where `within` has changed the schedule."""
    at = f"stages.{stage}"
    return (
        f"{at}.epochs={cfg.epochs:g} of {rows} rows are {steps} steps, within {at}.schedule.warmup_steps="
        f"{cfg.schedule.warmup_steps}; the warm-up takes {steps // 10} steps instead. "
        f"More steps: a smaller {at}.global_batch_size, or more epochs"
    )
