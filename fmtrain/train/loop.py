"""The one training loop. It knows rows, weights, ranks and an engine; it never asks which objective it runs.

Normalisation happens here alone: the step's weight is summed over ranks and micro-batches before the first backward,
and loss sums are divided by it, so that ranks and micro-batches do not change the step.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fmtrain.data.order import batch_rows
from fmtrain.errors import Diverged, InputError, Requeue
from fmtrain.kinds.train import TrainStage
from fmtrain.objectives import Batch, CollateContext, Objective, Rows
from fmtrain.train.distributed import Group
from fmtrain.train.engine import Engine
from fmtrain.train.metrics import Row
from fmtrain.train.schedule import factor
from fmtrain.train.settings import Settings


@dataclass(frozen=True)
class Loop:
    """Everything a step needs; the state is in the engine alone."""

    engine: Engine
    group: Group
    objective: Objective
    rows: Rows[object]
    context: CollateContext
    cfg: TrainStage
    settings: Settings
    steps: int
    device: torch.device
    stop: Callable[[], bool]  # was this process asked to stop?

    def run(self, start: int, record: Callable[[Row], None], save: Callable[[int, bool], None]) -> None:
        """Steps `start` to `steps`. `record` gets each step's row; `save(done, must)` is called between two steps.

        Requeue, after a save, where a rank was asked to stop; the step it was in is finished first.
        """
        for step in range(start, self.steps):
            row, stopping = self.step(step)
            record(row)
            if step + 1 < self.steps:  # what is left after the last step costs less than a save
                save(step + 1, stopping)
                if stopping:
                    raise Requeue(f"asked to stop: step {step + 1} of {self.steps} is saved; the same command goes on")

    def step(self, step: int) -> tuple[Row, bool]:
        """One optimizer step: its metrics row, and whether any rank was asked to stop."""
        begun = time.perf_counter()
        torch.manual_seed(_seed(self.context.seed, step, self.group.rank))  # dropout: a function of the step too
        batches = self.batches(step)
        waited = time.perf_counter() - begun
        weight, tokens = self.group.sum([float(sum(b["weight"] for b in batches)), sum(_tokens(b) for b in batches)])
        if not weight > 0:
            raise InputError(
                f"step {step}: its {self.settings.global_batch_size} rows have no target token, so there is nothing to "
                "learn; take out rows with empty responses, or raise global_batch_size"
            )
        sums = self.backwards(batches, weight)
        lr = self.cfg.optim.lr * factor(self.cfg.schedule, step, self.steps)
        norm = self.engine.step(lr)
        names = list(sums)
        mine = [*torch.stack([sums[n] for n in names]).tolist(), float(self.stop())]  # asked last: a step may be long
        *means, stopping = self.group.sum(mine)
        seconds = time.perf_counter() - begun
        row: Row = {"step": step, **{n: total / weight for n, total in zip(names, means, strict=True)}}
        if not (math.isfinite(row["loss"]) and math.isfinite(norm)):
            raise Diverged(
                f"step {step}: the loss is {row['loss']} and the gradient's norm {norm}: training diverged; "
                "lower optim.lr, lengthen schedule.warmup_steps, or look at the rows of this step"
            )
        row |= {"lr": lr, "grad_norm": norm, "tokens": int(tokens), "tokens_per_second": tokens / seconds}
        row |= {"step_seconds": seconds, "data_wait_seconds": waited}
        return row, stopping > 0

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches: its contiguous part of the step's rows, cut in order."""
        rows = batch_rows(self.context.seed, step, len(self.rows), self.settings.global_batch_size)
        first = self.group.rank * self.settings.rows_per_rank
        micro = self.settings.micro_batch_size
        found = []
        for at in range(first, first + self.settings.rows_per_rank, micro):
            part = rows[at : at + micro]
            found.append(self.objective.collate([self.rows[i] for i in part], self.context.at(step, part)))
        return found

    def backwards(self, batches: list[Batch], weight: float) -> dict[str, Tensor]:
        """Backward every micro-batch of a step of `weight`; each metric's sum over them, () float64."""
        scale = self.settings.ranks * self.settings.gradient_accumulation_steps / weight  # the engine divides by both
        sums: dict[str, Tensor] = {}
        for batch in batches:
            if self.device.type != "cpu":
                batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            terms = self.objective.loss(self.engine.forward, batch, self.cfg.objective)
            self.engine.backward(terms.total * scale)
            for name, value in terms.metrics.items():
                sums[name] = sums[name] + value.double() if name in sums else value.double()
        return sums


def _tokens(batch: Batch) -> int:
    """Tokens that the model reads, padding left out."""
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else int(mask.sum())


def _seed(seed: int, step: int, rank: int) -> int:
    """Another one for every step and rank; 64 bits."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
