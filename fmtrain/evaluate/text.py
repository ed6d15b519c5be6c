"""Held-out text: every byte of every document under each causal model, beside gzip, xz and token frequencies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.evaluate.baselines import gzip_nats, unigram, xz_nats
from fmtrain.evaluate.inputs import Document
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.records import TextScore, Verdict
from fmtrain.evaluate.scoring import score_text, text_tokens

LN2 = float(np.log(2.0))
GZIP, XZ, UNIGRAM = "gzip -9", "xz -9", "token unigram"


@dataclass(frozen=True)
class Costs:
    """What a scorer paid for each document: nats (documents,), and tokens (0 for a compressor)."""

    name: str
    nats: list[float]
    tokens: list[int]


def model_costs(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    sequence_length: int,
    batch_size: int,
    advance: Callable[[int], None],
) -> Costs:
    """Each document under a causal model."""
    costs = Costs(name, [], [])
    for document in documents:
        nats, tokens, _ = score_text(model, tokenizer, document.text, sequence_length, batch_size)
        costs.nats.append(nats)
        costs.tokens.append(tokens)
        advance(document.bytes)
    return costs


def compressor_costs(documents: Sequence[Document]) -> list[Costs]:
    """Each document by itself under gzip -9 and xz -9."""
    data = [d.text.encode("utf-8") for d in documents]
    none = [0] * len(data)
    return [Costs(GZIP, [gzip_nats(d) for d in data], none), Costs(XZ, [xz_nats(d) for d in data], none)]


def unigram_costs(
    counts: NDArray[np.int64],
    marks: list[int],
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
) -> Costs:
    """Each document under the training tokens' frequencies; `marks` are the document marks, never scored."""
    cost = unigram(counts, marks)
    ids = [text_tokens(tokenizer, d.text) for d in documents]
    return Costs(UNIGRAM, [float(cost[i].sum()) for i in ids], [len(i) for i in ids])


def score(costs: Costs, documents: Sequence[Document], bootstrap: Bootstrap) -> TextScore:
    """Bits per byte is a ratio of sums; its interval is over documents."""
    sizes = [d.bytes for d in documents]
    nats, tokens = sum(costs.nats), sum(costs.tokens)
    return TextScore(
        name=costs.name,
        bits_per_byte=bootstrap.ratio([n / LN2 for n in costs.nats], sizes),
        nats_per_token=nats / tokens if tokens else None,
        nats=nats,
        tokens=tokens,
        bytes=sum(sizes),
        documents=len(documents),
    )


def verdict(model: Costs, baseline: Costs, documents: Sequence[Document], bootstrap: Bootstrap) -> Verdict:
    """Whether a model needs fewer bits than `baseline`, with the paired interval of the difference."""
    sizes = [d.bytes for d in documents]
    ours, theirs = (sum(c.nats) / LN2 / sum(sizes) for c in (model, baseline))
    difference = bootstrap.ratio([(a - b) / LN2 for a, b in zip(model.nats, baseline.nats, strict=True)], sizes)
    holds = difference.value < 0
    return Verdict(
        subject=f"{model.name} below {baseline.name}",
        holds=holds,
        sentence=(
            f"On held-out text the model {model.name} needs {ours:.3f} bits per byte and {baseline.name} "
            f"{theirs:.3f}: it {'is' if holds else 'is not'} below {baseline.name} "
            f"(difference {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}])."
        ),
        value=ours,
        baseline=baseline.name,
        baseline_value=theirs,
        difference=difference,
    )
