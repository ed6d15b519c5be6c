"""Held-out text under a masked model: 15% of positions masked, the same ones at every run and for every model.

All chosen positions become <mask> (training keeps or swaps a fifth of them): what is asked is always hidden.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.data.ends import Ends, ends_of, with_ends
from fmtrain.errors import InputError
from fmtrain.evaluate.baselines import unigram
from fmtrain.evaluate.inputs import Document
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.records import MaskedScore
from fmtrain.evaluate.scoring import text_tokens, window_length
from fmtrain.objectives.logprob import token_logprobs

SHARE = 0.15  # of positions; Devlin et al. 2019


@dataclass(frozen=True)
class Guesses:
    """A document's masked positions: how many, how many the model and the commonest token got, -ln p of each."""

    masked: int
    right: int
    commonest_right: int
    nats: float
    unigram_nats: float


def chosen_positions(id: str, tokens: int, seed: int) -> NDArray[np.int64]:
    """The positions of a document of `tokens` to mask, sorted: a function of its id, its length and the seed."""
    digest = hashlib.sha256(f"{seed}\0{id}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return np.sort(rng.choice(tokens, size=max(1, round(SHARE * tokens)), replace=False))


def guess_document(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    document: Document,
    cost: NDArray[np.float64],
    sequence_length: int,
    batch_size: int,
    seed: int,
) -> Guesses:
    """Mask a document and let the model fill it, in windows that do not overlap, each between the training's ends."""
    ids = torch.tensor(text_tokens(tokenizer, document.text))
    asked = torch.zeros(len(ids), dtype=torch.bool)
    asked[torch.from_numpy(chosen_positions(document.id, len(ids), seed))] = True
    ends = ends_of(tokenizer)
    length = max(1, window_length(model, sequence_length) - ends.count)
    right, nats = 0, 0.0
    for at in range(0, len(ids), length * batch_size):
        part, mask = ids[at : at + length * batch_size], asked[at : at + length * batch_size]
        whole = len(part) // length * length
        for rows, marks in ((part[:whole], mask[:whole]), (part[whole:], mask[whole:])):
            if marks.any():
                shape = (-1, length) if len(rows) >= length else (1, -1)
                found = _guess(model, int(tokenizer.mask_token_id), ends, rows.view(shape), marks.view(shape))
                right, nats = right + found[0], nats + found[1]
    targets = ids[asked].numpy()
    common = int(np.argmin(cost))
    return Guesses(len(targets), right, int((targets == common).sum()), nats, float(cost[targets].sum()))


@torch.inference_mode()
def _guess(
    model: PreTrainedModel, mask_id: int, ends: Ends, ids: torch.Tensor, asked: torch.Tensor
) -> tuple[int, float]:
    """(right, nats) over the asked positions of (batch, seq) ids, which do not hold the ends."""
    given = torch.from_numpy(with_ends(ids.masked_fill(asked, mask_id).numpy(), ends))
    logits = model(input_ids=given.to(model.device)).logits.cpu()[:, ends.before : ends.before + ids.shape[1]]
    right = int((logits[asked].argmax(-1) == ids[asked]).sum())
    return right, -float(token_logprobs(logits, ids, asked).double().sum())


def score(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    counts: NDArray[np.int64] | None,
    sequence_length: int,
    batch_size: int,
    bootstrap: Bootstrap,
    advance: Callable[[int], None],
) -> MaskedScore:
    """Masked accuracy and pseudo-loss, beside always guessing the commonest of the training tokens' `counts`."""
    if tokenizer.mask_token_id is None:
        raise InputError(f"model {name} is a masked language model and its tokenizer has no mask token")
    known = np.zeros(len(tokenizer), np.int64) if counts is None else counts
    cost = unigram(known, [i for i in tokenizer.all_special_ids if i < len(known)])
    found = []
    for document in documents:
        found.append(guess_document(model, tokenizer, document, cost, sequence_length, batch_size, bootstrap.seed))
        advance(document.bytes)
    masked = [g.masked for g in found]
    common = [g.commonest_right for g in found]
    return MaskedScore(
        name=name,
        accuracy=bootstrap.ratio([g.right for g in found], masked),
        pseudo_loss=sum(g.nats for g in found) / sum(masked),
        masked=sum(masked),
        commonest_token=None if counts is None else str(tokenizer.decode([int(np.argmin(cost))])),
        commonest_accuracy=None if counts is None else bootstrap.ratio(common, masked),
        unigram_loss=None if counts is None else sum(g.unigram_nats for g in found) / sum(masked),
    )
