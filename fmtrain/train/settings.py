"""What follows from a training stage's config and the number of ranks alone, checked, without importing torch."""

import math
from dataclasses import dataclass

from fmtrain.errors import ConfigError
from fmtrain.schema.training import TrainJob, TrainStage


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
    if (cfg.steps is None) == (cfg.epochs is None):
        raise ConfigError(f"{at}.steps={cfg.steps} and {at}.epochs={cfg.epochs}: set exactly one, the other null")
    for name, value in (("steps", cfg.steps), ("epochs", cfg.epochs), ("micro_batch_size", cfg.micro_batch_size)):
        if value is not None and value <= 0:
            raise ConfigError(f"{at}.{name}={value}: expected a number above 0")
    if cfg.precision not in ("fp32", "bf16"):
        raise ConfigError(f"{at}.precision={cfg.precision!r}: expected fp32 or bf16")
    if cfg.zero.stage not in (0, 1, 2, 3):
        raise ConfigError(f"{at}.zero.stage={cfg.zero.stage}: expected 0, 1, 2 or 3")
    if cfg.zero.stage == 0 and cfg.precision == "bf16":
        raise ConfigError(f"{at}.precision=bf16 needs {at}.zero.stage of 1 or more; set {at}.zero.stage=1")
    if cfg.zero.stage == 0 and cfg.zero.offload_optimizer:
        raise ConfigError(f"{at}.zero.offload_optimizer=true needs {at}.zero.stage of 1 or more")
    if job.checkpoint.keep < 1 or job.checkpoint.every_steps < 0:
        raise ConfigError(
            f"checkpoint.keep={job.checkpoint.keep} and checkpoint.every_steps={job.checkpoint.every_steps}: expected "
            "1 or more, and 0 (only when asked to stop) or more"
        )
    at_once = cfg.micro_batch_size * ranks
    if cfg.global_batch_size <= 0 or cfg.global_batch_size % at_once:
        raise ConfigError(_batch_message(cfg, at, ranks))
    return Settings(stage, ranks, cfg.global_batch_size, cfg.micro_batch_size, cfg.global_batch_size // at_once)


def _batch_message(cfg: TrainStage, at: str, ranks: int) -> str:
    at_once = cfg.micro_batch_size * ranks
    mends = [f"{at}.global_batch_size={max(1, round(cfg.global_batch_size / at_once)) * at_once}"]
    if cfg.global_batch_size > 0 and cfg.global_batch_size % ranks == 0:
        share = cfg.global_batch_size // ranks
        fits = max(d for d in range(1, min(share, cfg.micro_batch_size) + 1) if share % d == 0)
        mends.insert(0, f"{at}.micro_batch_size={fits} (the same result)")
    return (
        f"{at}.global_batch_size={cfg.global_batch_size} is not a multiple of {at}.micro_batch_size="
        f"{cfg.micro_batch_size} times {ranks} rank(s); set {', or '.join(mends)}"
    )


def total_steps(cfg: TrainStage, rows: int) -> int:
    """Optimizer steps: as given, or as many as `epochs` passes over `rows` rows take, the last batch filled up."""
    if cfg.steps is not None:
        return cfg.steps
    assert cfg.epochs is not None
    # Products of a float and an integer end a hair above a whole number at times; that is no further step.
    return max(1, math.ceil(cfg.epochs * rows / cfg.global_batch_size - 1e-9))
