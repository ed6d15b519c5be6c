"""Next-token prediction on the responses of chats alone: CLM with masked labels."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.data.padding import pad_encoded
from fmtrain.data.rows import Selected, SftRow, check_refused, require, sft_rows
from fmtrain.kinds.train import TrainJob
from fmtrain.objectives.base import Batch, CollateContext, Forward, Terms, require_packing
from fmtrain.objectives.logprob import token_logprobs

FILE = "sft.train.jsonl"


def rows(stage: Stage, job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> Selected[SftRow]:
    require_packing(job, "none", stage.stage)
    path = stage.input("examples") / FILE
    found = sft_rows(path, tokenizer, job.stage.sequence_length, job.stage.max_rows)
    require(found, path, job.stage.sequence_length)
    check_refused(found, job.stage.max_refused_fraction, f"stages.{stage.stage}.max_refused_fraction")
    return found


def collate(examples: Sequence[SftRow], context: CollateContext) -> Batch:
    """input_ids, attention_mask, labels (batch, seq), right-padded; weight is the number of labels."""
    input_ids, attention_mask, labels = pad_encoded([e.encoded for e in examples], context.pad_id)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "weight": torch.tensor(sum(sum(e.encoded.loss) for e in examples), dtype=torch.float64),
    }


def loss(forward: Forward, batch: Batch, cfg: Any) -> Terms:
    """Cross-entropy in nats, summed over the responses' tokens and their end tokens."""
    logits = forward(batch["input_ids"], batch["attention_mask"])
    total = -token_logprobs(logits, batch["labels"]).sum()
    return Terms(total, {"loss": total.detach()})
