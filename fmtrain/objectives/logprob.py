"""Log-probabilities of given tokens, in fp32 whatever the logits are: for training, reference and evaluation alike."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fmtrain.data.padding import IGNORED

_ELEMENTS_AT_ONCE = 1 << 26  # of logits in fp32 without gradients: 256 MiB


def token_logprobs(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """log p(labels[b, t] | logits[b, t]) in nats, (batch, seq) float32; 0 where `mask` (default: not IGNORED) is False.

    `labels` (batch, seq) are already shifted: the token that position t predicts. Only the masked positions are
    brought to fp32; without gradients in pieces, so that large vocabularies do not double the memory.
    """
    keep = labels != IGNORED if mask is None else mask
    values = _gathered(logits[keep], labels[keep])
    return torch.zeros(labels.shape, dtype=torch.float32, device=logits.device).masked_scatter(keep, values)


def sequence_logprobs(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Summed log-probability of each row's labels in nats, (batch,) float32; arguments as in `token_logprobs`."""
    return token_logprobs(logits, labels, mask).sum(1)


def nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed negative log-probability of every label, (): (n, vocab) logits and (n,) labels, none IGNORED."""
    return F.cross_entropy(logits.float(), labels, reduction="sum")


def _gathered(logits: Tensor, labels: Tensor) -> Tensor:
    """(n, vocab), (n,) -> (n,)."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return -F.cross_entropy(logits.float(), labels, reduction="none")
    rows = max(1, _ELEMENTS_AT_ONCE // logits.shape[-1])
    pieces = [
        -F.cross_entropy(logits[i : i + rows].float(), labels[i : i + rows], reduction="none")
        for i in range(0, len(labels), rows)
    ]
    return torch.cat(pieces) if pieces else logits.new_zeros(0, dtype=torch.float32)
