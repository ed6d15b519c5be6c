"""What the fields of one training stage must satisfy together: checked when a run is composed, and by the worker again.

Each message names both fields and the mend. Limits of single fields stand beside them (fmtrain.schema.limits).
"""

from fmtrain.errors import ConfigError
from fmtrain.schema.training import Clm, Mlm, TrainStage


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
    packing = "concat" if isinstance(cfg.objective, (Clm, Mlm)) else "none"
    if cfg.packing != packing:
        raise ConfigError(f"{at}.objective={cfg.objective.name} needs {at}.packing={packing}, not {cfg.packing}")
    if cfg.steps is not None and cfg.schedule.warmup_steps >= cfg.steps > 1:
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
        f"{at}.micro_batch_size={cfg.micro_batch_size} times {ranks} ranks (launch.ranks); e.g. {mend}"
    )
