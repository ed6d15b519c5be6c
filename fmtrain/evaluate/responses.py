"""Held-out SFT rows under a causal model: nats a token of the responses and their end tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.data.rows import Selected, SftRow, sft_rows
from fmtrain.evaluate.inputs import SftText
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.records import ResponseScore
from fmtrain.evaluate.scoring import score_rows


@dataclass(frozen=True)
class Limits:
    """Which rows are taken: tokens a row, rows (of a kind), and rows scored at a time."""

    example_length: int
    max_rows: int | None
    batch_size: int


def select(examples: Path, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> Selected[SftRow]:
    """The usable held-out rows under a tokenizer."""
    return sft_rows(examples / "sft.heldout.jsonl", tokenizer, limits.example_length, limits.max_rows)


def score(
    name: str,
    model: PreTrainedModel,
    selected: Selected[SftRow],
    texts: dict[str, SftText],
    limits: Limits,
    bootstrap: Bootstrap,
    advance: Callable[[int], None],
) -> ResponseScore | None:
    """The mean loss with its interval over groups (modules); None where no row is usable."""
    if not selected.rows:
        return None
    found = score_rows(model, [row.encoded for row in selected.rows], limits.batch_size, advance)
    groups = [texts[row.id].group for row in selected.rows]
    return ResponseScore(
        name=name,
        nats_per_token=bootstrap.grouped(groups, [-s.logprob for s in found], [s.tokens for s in found]),
        rows=len(found),
        tokens=sum(s.tokens for s in found),
        too_long=selected.counts["too_long"],
    )
