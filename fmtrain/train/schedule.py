"""The learning rate of a step, as a pure function: nothing to save, nothing that can be out of step after a resume."""

import math
from collections.abc import Callable
from typing import Any

from fmtrain.schema.training import Constant, Cosine, Schedule


def factor(cfg: Schedule, step: int, steps: int) -> float:
    """The factor of optim.lr at optimizer step `step` (0-based) of `steps`; never 0 at the first step."""
    return SCHEDULES[cfg.name](cfg, step, steps)


def warmup(step: int, warmup_steps: int) -> float:
    """Linear from 1 / warmup_steps at step 0 to 1 at step warmup_steps - 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0


def cosine(cfg: Cosine, step: int, steps: int) -> float:
    """Warm-up, then half a cosine from 1 to `final_factor` at the last step (Loshchilov and Hutter 2017, eq. 5)."""
    if step < cfg.warmup_steps:
        return warmup(step, cfg.warmup_steps)
    done = (step - cfg.warmup_steps) / max(1, steps - 1 - cfg.warmup_steps)
    return cfg.final_factor + (1 - cfg.final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def constant(cfg: Constant, step: int, steps: int) -> float:
    return warmup(step, cfg.warmup_steps)


SCHEDULES: dict[str, Callable[[Any, int, int], float]] = {"cosine": cosine, "constant": constant}
