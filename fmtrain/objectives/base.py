"""What an objective is: rows, a collate that carries its weight, and a pure loss. The loop alone divides by weights.

The loop never asks which objective it runs; an objective never asks about ranks, micro-batches or the engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import ConfigError
from fmtrain.kinds.objectives import Objective as ObjectiveConfig
from fmtrain.kinds.train import TrainJob
from fmtrain.models.build import Task

Batch = dict[
    str, Tensor
]  # `weight` () float64: target tokens (clm, mlm, sft) or pairs (dpo); the rest is the objective's
Forward = Callable[[Tensor, Tensor | None], Tensor]
"""(input_ids (batch, seq), attention_mask (batch, seq) or None) -> logits (batch, seq, vocab)."""

E = TypeVar("E", covariant=True)


class Rows(Protocol[E]):
    """A stage's training examples by number; `counts` says how many there are and what was left out."""

    @property
    def counts(self) -> dict[str, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> E: ...


@dataclass(frozen=True)
class Terms:
    """Sums over a micro-batch, never means: the loop divides by the step's weight over all ranks.

    `total` () is differentiable; `metrics` are detached () tensors.
    """

    total: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class CollateContext:
    """What a collate may depend on: the tokenizer's ids, the objective's settings, and which rows of which step."""

    pad_id: int
    mask_id: int | None
    vocab_size: int
    special_ids: frozenset[int]
    cfg: ObjectiveConfig
    seed: int
    step: int = 0
    rows: list[int] = field(default_factory=list)  # the row number of each example, same order

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, cfg: ObjectiveConfig, seed: int) -> "CollateContext":
        """The ids that `tokenizer` gives; one without a padding token is padded with its end token, unseen."""
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(tokenizer.all_special_ids)
        return cls(
            pad_id=0 if pad is None else pad,
            mask_id=tokenizer.mask_token_id,
            vocab_size=len(tokenizer),
            special_ids=frozenset(special),
            cfg=cfg,
            seed=seed,
        )

    def at(self, step: int, rows: Sequence[int]) -> "CollateContext":
        """The same for the examples `rows` of optimizer step `step`."""
        return replace(self, step=step, rows=list(rows))


@dataclass(frozen=True)
class Objective:
    """One row of the table: its model's task, where its rows come from, and the pair (collate, loss).

    `collate` takes the examples `rows` gave and the context at their step; `loss` takes the same `cfg` as the context.
    """

    name: str
    task: Task
    rows: Callable[[Stage, TrainJob, PreTrainedTokenizerBase], Rows[Any]]
    collate: Callable[[Sequence[Any], CollateContext], Batch]
    loss: Callable[[Forward, Batch, Any], Terms]


def require_packing(job: TrainJob, wanted: str, stage: str) -> None:
    """ConfigError where the stage's packing is not the one its objective can do."""
    if job.stage.packing != wanted:
        name = job.stage.objective.name
        raise ConfigError(
            f"stages.{stage}.packing={job.stage.packing!r} does not go with objective {name!r}, "
            f"which takes {wanted!r}; set stages.{stage}.packing={wanted}"
        )


def require_vocabulary(vocab_size: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """ConfigError where token shards hold ids that the tokenizer (and so the model) does not have."""
    if vocab_size > len(tokenizer):
        raise ConfigError(
            f"the tokens were made with a vocabulary of {vocab_size} and the tokenizer {tokenizer.name_or_path} has "
            f"{len(tokenizer)}: make the tokens with the tokenizer that belongs to the model"
        )


def require_tokenizer(made_with: str, stage: Stage) -> None:
    """ConfigError where token shards were made with another tokenizer than the stage's `tokenizer` input.

    `made_with` is the SHA-256 of a tokenizer.json. A model's own tokenizer is not held against it: saving a model
    writes its tokenizer anew.
    """
    if "tokenizer" not in stage.inputs:
        return
    file = stage.input("tokenizer") / "tokenizer.json"
    found = sha256_file(file) if file.is_file() else "absent"
    if found != made_with:
        raise ConfigError(
            f"stages.{stage.stage}: the tokens in {stage.several('tokens')[0]} were made with a tokenizer.json of "
            f"SHA-256 {made_with}, and {file} is {found}; make the tokens with this tokenizer, or give the one that "
            "they were made with"
        )
