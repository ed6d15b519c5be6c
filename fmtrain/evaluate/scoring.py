"""The likelihood of text and of rows under a causal model, each token counted once.

`score_text` is what a user of a published folder calls to check its reported number. Knows no files and no report.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.artifacts.machine import cpus
from fmtrain.data.chat import Encoded
from fmtrain.data.padding import IGNORED, MULTIPLE, pad_encoded
from fmtrain.errors import InputError
from fmtrain.models.device import arithmetic
from fmtrain.objectives.logprob import nats, token_logprobs

# 1/CONTEXT of a window is context carried over. With a half every token passes the model twice: 13,000 tokens scored a
# second by 2.1 M parameters on two cores, so 190,000 held-out tokens under three models would take 45 s of the stage's
# 60. A quarter scores 16,000 a second.
CONTEXT = 4
_LOGITS = 1 << 24  # logits held at a time: 64 MB in fp32, whatever the vocabulary


@dataclass(frozen=True)
class Scored:
    """Summed log-probability in nats of a row's learnt tokens, and how many they are."""

    logprob: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.logprob / self.tokens


def use_all_cpus() -> int:
    """Give this process every CPU it may run on; the number of threads."""
    threads = cpus()
    torch.set_num_threads(threads)
    return threads


def first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What a document begins with: <bos>, or the end token where a tokenizer has no <bos>."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InputError("the tokenizer has neither a bos nor an eos token: nothing to predict a text's first token from")


def window_length(model: PreTrainedModel, wanted: int) -> int:
    """`wanted` tokens, or the model's longest position where that is less."""
    longest = getattr(model.config, "max_position_embeddings", None)
    return wanted if longest is None else min(wanted, int(longest))


@torch.inference_mode()
def score_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    sequence_length: int = 256,
    batch_size: int = 16,
) -> tuple[float, int, int]:
    """(nats, tokens, bytes) of the whole `text` under a causal `model`: nats / tokens, nats / bytes / ln 2.

    The document is <bos> + tokens; <eos> is not scored. Windows of `sequence_length` inputs: the first starts at
    <bos>, each later one repeats a quarter of a window as context; every token is scored exactly once.
    """
    ids = [first_token(tokenizer), *text_tokens(tokenizer, text)]
    length = window_length(model, sequence_length)
    windows = [ids[s : s + length + 1] for s in window_starts(len(ids) - 1, length)]
    context = length // CONTEXT
    total = _window_nats(model, windows[:1], 0) if windows else 0.0
    whole = [w for w in windows[1:] if len(w) == length + 1]
    each = max(1, min(batch_size, _LOGITS // (length * model.config.vocab_size)))
    for at in range(0, len(whole), each):
        total += _window_nats(model, whole[at : at + each], context)
    if len(windows) > 1 and len(windows[-1]) <= length:
        total += _window_nats(model, windows[-1:], context)
    return total, len(ids) - 1, len(text.encode("utf-8"))


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of plain text, in which "<eos>" is five characters and no end."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])


def window_starts(tokens: int, length: int) -> range:
    """Where the windows of a document of `tokens` after its <bos> start: each scores what the one before did not."""
    context = length // CONTEXT
    return range(0, tokens - context if tokens > length else min(tokens, 1), length - context)


def _window_nats(model: PreTrainedModel, windows: list[list[int]], skip: int) -> float:
    """Summed -log p of the tokens of windows of one length, each without its first `skip` targets."""
    ids = torch.tensor(windows).to(model.device)  # (batch, length + 1)
    targets = ids[:, 1 + skip :]
    logits = causal_logits(model, ids[:, :-1], targets.shape[1])
    return float(nats(logits.flatten(0, 1), targets.flatten()))


def causal_logits(model: PreTrainedModel, ids: Tensor, last: int) -> Tensor:
    """Logits of the last `last` positions of `ids` (batch, seq), (batch, last, vocab).

    Padding is on the right, where a causal model cannot look, so there is no attention mask. Most models can leave
    out the output layer of the other positions; where one cannot, they are cut off after it.
    """
    accepted = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = last
    logits: Tensor = model(input_ids=ids, **options).logits
    return logits[:, -last:]


def score_rows(
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    batch_size: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Scored]:
    """The summed log-probability of each row's learnt tokens, in the rows' order.

    Rows are batched by length, longest first, so that memory runs out at once or never; a row's result does not
    depend on its neighbours but for fp32 noise. Rows that occur more than once (a response in several pairs) are
    scored once. The batches are a function of the rows alone. `advance` is told of the rows done.
    """
    same: dict[tuple[tuple[int, ...], tuple[bool, ...]], list[int]] = {}
    for i, row in enumerate(rows):
        same.setdefault((tuple(row.ids), tuple(row.loss)), []).append(i)
    places = sorted(same.values(), key=lambda where: (-len(rows[where[0]].ids), where[0]))
    found: dict[int, Scored] = {}
    at = 0
    while at < len(places):
        each = max(1, min(batch_size, _LOGITS // (len(rows[places[at][0]].ids) * model.config.vocab_size)))
        chosen = places[at : at + each]
        for where, scored in zip(chosen, _row_batch(model, [rows[w[0]] for w in chosen]), strict=True):
            found |= dict.fromkeys(where, scored)
        at += len(chosen)
        advance(sum(len(where) for where in chosen))
    return [found[i] for i in range(len(rows))]


@torch.inference_mode()
def _row_batch(model: PreTrainedModel, rows: Sequence[Encoded]) -> list[Scored]:
    ids, _, labels = pad_encoded(rows, 0)  # (batch, seq)
    learnt = labels != IGNORED
    last = labels.shape[1] - int(learnt.any(0).int().argmax())  # from the first learnt position of any row
    logits = causal_logits(model, ids.to(model.device), last)
    found = token_logprobs(logits, labels[:, -last:].to(model.device)).double().sum(1).tolist()
    return [Scored(s, int(n)) for s, n in zip(found, learnt.sum(1).tolist(), strict=True)]


def row_length(folder: Path, wanted: int) -> int:
    """The longest row of the model in `folder`: `wanted` tokens, or what pads to within its positions where less."""
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as e:  # whatever a damaged file makes the library raise is the folder's fault
        raise InputError(f"{folder}/config.json cannot be read: {type(e).__name__}: {e}") from e
    positions = getattr(config, "max_position_embeddings", None)
    return wanted if positions is None else min(wanted, int(positions) // MULTIPLE * MULTIPLE)


def numerics(model: PreTrainedModel, threads: int, batch_size: int) -> dict[str, Any]:
    """What the last bits of a score depend on."""
    return {
        "torch": torch.__version__,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": threads,
        "batch_size": batch_size,
        "environment": arithmetic(),
    }
