"""Right padding of rows of different length to the longest of the micro-batch, and the labels that go with them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fmtrain.data.chat import Encoded

IGNORED = -100  # the label of a position that is no target, as transformers and PyTorch spell it
MULTIPLE = 8  # lengths are rounded up to it: fewer shapes, and tensor cores like it


def padded_length(longest: int) -> int:
    return -(-longest // MULTIPLE) * MULTIPLE


def pad_encoded(rows: Sequence[Encoded], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, attention_mask (1 at a token), labels (shifted; IGNORED where not learnt): all (batch, seq)."""
    seq = padded_length(max(len(r.ids) for r in rows))
    input_ids = torch.full((len(rows), seq), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), seq), dtype=torch.long)
    learnt = torch.zeros((len(rows), seq), dtype=torch.bool)
    for i, row in enumerate(rows):
        input_ids[i, : len(row.ids)] = torch.tensor(row.ids)
        attention_mask[i, : len(row.ids)] = 1
        learnt[i, : len(row.ids)] = torch.tensor(row.loss)
    return input_ids, attention_mask, shifted_labels(input_ids, learnt)


def shifted_labels(input_ids: Tensor, learnt: Tensor) -> Tensor:
    """Labels of right-padded rows: position t is to predict token t + 1 where that one is learnt. All (batch, seq)."""
    labels = torch.full_like(input_ids, IGNORED)
    labels[:, :-1] = torch.where(learnt[:, 1:], input_ids[:, 1:], IGNORED)
    return labels
