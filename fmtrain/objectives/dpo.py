"""Direct preference optimisation (Rafailov et al. 2023, eq. 7). The reference model is never here: only its columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import read_jsonl
from fmtrain.data.padding import pad_encoded
from fmtrain.data.rows import PreferenceRow, Selected, check_refused, preference_rows, require
from fmtrain.errors import InputError, StoreError
from fmtrain.kinds.objectives import Dpo
from fmtrain.kinds.train import TrainJob
from fmtrain.objectives.base import Batch, CollateContext, Forward, Terms, require_packing
from fmtrain.objectives.logprob import sequence_logprobs

FILE = "preference.train.jsonl"


@dataclass(frozen=True)
class Pair:
    """A preference row with its reference log-probabilities: summed over response and end token, in nats."""

    row: PreferenceRow
    reference_chosen: float
    reference_rejected: float


def rows(stage: Stage, job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> Selected[Pair]:
    require_packing(job, "none", stage.stage)
    path = stage.input("examples") / FILE
    found = preference_rows(path, tokenizer, job.stage.sequence_length, job.stage.max_rows)
    require(found, path, job.stage.sequence_length)
    check_refused(found, job.stage.max_refused_fraction, f"stages.{stage.stage}.max_refused_fraction")
    return Selected(join_reference(found.rows, stage.input("reference") / "reference.jsonl", stage.stage), found.counts)


def join_reference(preferences: Sequence[PreferenceRow], path: Path, stage: str) -> list[Pair]:
    """Each row with its line of `reference.jsonl`, by id.

    InputError where a row has none, or was tokenized otherwise than the reference stage did.
    """
    columns = {line["id"]: line for line in read_jsonl(path)}
    missing = [row.id for row in preferences if row.id not in columns]
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(preferences)} rows of stage {stage}, {missing[0]!r} first: "
            f"give the stage that made it the sequence_length and the max_rows of stages.{stage}"
        )
    pairs = []
    for row in preferences:
        line = columns[row.id]
        try:
            counts = (line["chosen_tokens"], line["rejected_tokens"])
            pair = Pair(row, float(line["chosen"]), float(line["rejected"]))
        except (KeyError, TypeError, ValueError) as e:
            raise StoreError(f"{path}: row {row.id!r} is damaged: {type(e).__name__} {e}; make it again") from None
        if counts != (sum(row.chosen.loss), sum(row.rejected.loss)):
            raise InputError(
                f"{path}: row {row.id!r} has {counts} response tokens there and "
                f"{(sum(row.chosen.loss), sum(row.rejected.loss))} here: another tokenizer or chat template made it; "
                "the reference must come from the model that this stage starts from"
            )
        pairs.append(pair)
    return pairs


def collate(examples: Sequence[Pair], context: CollateContext) -> Batch:
    """Chosen rows, then rejected: (2 * batch, seq). reference_* (batch,) float64; weight is the number of pairs."""
    stacked = [e.row.chosen for e in examples] + [e.row.rejected for e in examples]
    input_ids, attention_mask, labels = pad_encoded(stacked, context.pad_id)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "reference_chosen": torch.tensor([e.reference_chosen for e in examples], dtype=torch.float64),
        "reference_rejected": torch.tensor([e.reference_rejected for e in examples], dtype=torch.float64),
        "weight": torch.tensor(len(examples), dtype=torch.float64),
    }


def loss(forward: Forward, batch: Batch, cfg: Dpo) -> Terms:
    """-log sigmoid(beta * ((pi_c - pi_r) - (ref_c - ref_r))), summed over pairs; one forward over both responses."""
    logits = forward(batch["input_ids"], batch["attention_mask"])
    logprobs = sequence_logprobs(logits, batch["labels"])  # (2 * batch,)
    chosen, rejected = logprobs.chunk(2)
    chosen_reward = cfg.beta * (chosen - batch["reference_chosen"])
    rejected_reward = cfg.beta * (rejected - batch["reference_rejected"])
    margin = chosen_reward - rejected_reward
    total = -F.logsigmoid(margin).sum().float()
    metrics = {
        "loss": total,
        "accuracy": (margin > 0).sum(),
        "margin": margin.sum(),
        "chosen_reward": chosen_reward.sum(),
        "rejected_reward": rejected_reward.sum(),
    }
    return Terms(total, {name: value.detach().float() for name, value in metrics.items()})
