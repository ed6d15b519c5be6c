"""Masked-token prediction (Devlin et al. 2019, section 3.1) on running documents, each row between <cls> and <sep>."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.data.ends import Ends, ends_of, with_ends
from fmtrain.data.padding import IGNORED
from fmtrain.data.shards import TokenRows
from fmtrain.errors import ConfigError
from fmtrain.kinds.objectives import Mlm
from fmtrain.kinds.train import TrainJob
from fmtrain.objectives.base import (
    Batch,
    CollateContext,
    Forward,
    Terms,
    require_packing,
    require_tokenizer,
    require_vocabulary,
)
from fmtrain.objectives.logprob import nats

_MASKED, _RANDOM = 0.8, 0.1  # of the chosen positions; the rest keep their token


@dataclass(frozen=True)
class MaskedRows:
    """Rows of `sequence_length` tokens, the ends included where the tokenizer has such tokens."""

    tokens: TokenRows
    ends: Ends
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        return with_ends(self.tokens[i][:-1], self.ends)


def rows(stage: Stage, job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> MaskedRows:
    require_packing(job, "concat", stage.stage)
    if tokenizer.mask_token_id is None:
        raise ConfigError(
            f"objective mlm needs a mask token and the tokenizer {tokenizer.name_or_path} has none; "
            "set mask_token in its tokenizer_config.json, or take objective clm"
        )
    ends = ends_of(tokenizer)
    found = TokenRows(stage.several("tokens"), job.stage.sequence_length - ends.count)
    require_vocabulary(found.index.vocab_size, tokenizer)
    require_tokenizer(found.index.tokenizer_sha256, stage)
    return MaskedRows(found, ends, found.counts)


def collate(examples: Sequence[NDArray[np.int64]], context: CollateContext) -> Batch:
    """input_ids and labels (batch, seq); a row's mask is a pure function of (seed, step, row number)."""
    assert isinstance(context.cfg, Mlm) and context.mask_id is not None
    special = np.zeros(context.vocab_size, bool)
    special[[i for i in context.special_ids if i < context.vocab_size]] = True
    ordinary = np.flatnonzero(~special)
    inputs, labels = [], []
    for row, ids in zip(context.rows, examples, strict=True):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([context.seed, context.step, row])))
        masked, label = _mask(ids, rng, special, ordinary, context.mask_id, context.cfg.mask_probability)
        inputs.append(masked)
        labels.append(label)
    targets = np.stack(labels)
    return {
        "input_ids": torch.from_numpy(np.stack(inputs)),
        "labels": torch.from_numpy(targets),
        "weight": torch.tensor(int((targets != IGNORED).sum()), dtype=torch.float64),
    }


def _mask(
    ids: NDArray[np.int64],
    rng: np.random.Generator,
    special: NDArray[np.bool_],
    ordinary: NDArray[np.int64],
    mask_id: int,
    probability: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One row's input and labels; special tokens are never chosen, and at least one other token is."""
    free = ~special[ids]
    draw, fate = rng.random(len(ids)), rng.random(len(ids))
    chosen = free & (draw < probability)
    if not chosen.any() and free.any():
        chosen[np.flatnonzero(free)[rng.integers(int(free.sum()))]] = True
    masked = np.where(chosen & (fate < _MASKED), mask_id, ids)
    swapped = chosen & (fate >= _MASKED) & (fate < _MASKED + _RANDOM)
    masked = np.where(swapped, rng.choice(ordinary, len(ids)), masked)
    return masked, np.where(chosen, ids, IGNORED)


def loss(forward: Forward, batch: Batch, cfg: Mlm) -> Terms:
    """Cross-entropy in nats and hits of the likeliest token, summed over the chosen positions."""
    logits = forward(batch["input_ids"], None)
    keep = batch["labels"] != IGNORED
    predicted, labels = logits[keep], batch["labels"][keep]
    total = nats(predicted, labels)
    hits = (predicted.detach().argmax(-1) == labels).sum().float()
    return Terms(total, {"loss": total.detach(), "accuracy": hits})
