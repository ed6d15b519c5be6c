"""Next-token prediction on running documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.data.shards import TokenRows
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


def rows(stage: Stage, job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> TokenRows:
    require_packing(job, "concat", stage.stage)
    found = TokenRows(stage.several("tokens"), job.stage.sequence_length)
    require_vocabulary(found.index.vocab_size, tokenizer)
    require_tokenizer(found.index.tokenizer_sha256, stage)
    return found


def collate(examples: Sequence[NDArray[np.int64]], context: CollateContext) -> Batch:
    """Rows of sequence_length + 1 tokens -> input_ids and labels, (batch, sequence_length)."""
    tokens = torch.from_numpy(np.stack(examples))
    return {
        "input_ids": tokens[:, :-1].contiguous(),
        "labels": tokens[:, 1:].contiguous(),
        "weight": torch.tensor(tokens[:, 1:].numel(), dtype=torch.float64),
    }


def loss(forward: Forward, batch: Batch, cfg: Any) -> Terms:
    """Cross-entropy in nats, summed over every position."""
    logits = forward(batch["input_ids"], None)
    total = nats(logits.flatten(0, 1), batch["labels"].flatten())
    return Terms(total, {"loss": total.detach()})
