"""Likelihoods against plain PyTorch, a token at a time, and against transformers' own loss."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.data.chat import encode_pair
from fmtrain.evaluate import scoring
from fmtrain.evaluate.scoring import CONTEXT, score_rows, score_text, text_tokens, window_starts
from fmtrain.models import load_model
from tests.fmtrain.fixtures import TEXT, make_tokenizer, tiny_llama


@pytest.fixture
def model(llama_folder: Path) -> PreTrainedModel:
    return load_model(llama_folder, "causal")


def naive(model: PreTrainedModel, ids: list[int], length: int) -> float:
    """-ln p of ids[1:], one forward a token, from the same context as the windows give it."""
    stride, total = length - length // CONTEXT, 0.0
    for j in range(1, len(ids)):
        start = 0 if j <= length else math.ceil((j - length) / stride) * stride
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids[start:j]])).logits[0, -1].double()
        total -= float(logits.log_softmax(-1)[ids[j]])
    return total


@pytest.mark.parametrize("length", [8, 32, 1000])
@pytest.mark.parametrize("text", ["x", TEXT[1], TEXT[1] * 4 + "é✓"])
def test_score_text_equals_one_forward_a_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, length: int
) -> None:
    nats, tokens, size = score_text(model, tokenizer, text, length)
    ids = [tokenizer.bos_token_id, *text_tokens(tokenizer, text)]
    assert (tokens, size) == (len(ids) - 1, len(text.encode()))
    assert nats == pytest.approx(naive(model, ids, min(length, 128)), rel=1e-5)


def test_batches_change_nothing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    one, many = (score_text(model, tokenizer, TEXT[3] * 9, 16, b)[0] for b in (1, 7))
    assert one == pytest.approx(many, rel=1e-6)


def test_an_empty_text_costs_nothing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    assert score_text(model, tokenizer, "") == (0.0, 0, 0)


def test_text_that_looks_like_a_special_token_is_text(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.eos_token_id not in text_tokens(tokenizer, "a<eos>b")
    assert tokenizer.decode(text_tokens(tokenizer, "a<eos>b")) == "a<eos>b"


@given(tokens=st.integers(0, 300), length=st.integers(4, 64))
def test_every_token_is_scored_exactly_once(tokens: int, length: int) -> None:
    scored: list[int] = []
    for number, start in enumerate(window_starts(tokens, length)):
        window = list(range(start + 1, min(start + length, tokens) + 1))  # targets, from 1
        scored += window[length // CONTEXT if number else 0 :]
        assert window[length // CONTEXT if number else 0 :]
    assert scored == list(range(1, tokens + 1))


def test_rows_equal_the_loss_of_transformers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = [{"role": "user", "content": "def add(a, b):"}]
    rows = [encode_pair(tokenizer, prompt, f"    return {'a + ' * n}b\n") for n in (1, 5, 2, 9, 5)]
    advanced: list[int] = []
    found = score_rows(model, rows, 2, advanced.append)
    assert sum(advanced) == len(rows)
    assert found[1] == found[4]
    for row, scored in zip(rows, found, strict=True):
        labels = [t if learnt else -100 for t, learnt in zip(row.ids, row.loss, strict=True)]
        with torch.inference_mode():
            loss = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels])).loss
        assert scored.tokens == sum(row.loss)
        assert scored.mean == pytest.approx(-float(loss), rel=1e-5)


def test_rows_do_not_depend_on_their_neighbours(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = [{"role": "user", "content": "f"}]
    rows = [encode_pair(tokenizer, prompt, "x" * n) for n in range(1, 30)]
    alone = [score_rows(model, [row], 1)[0].logprob for row in rows]
    together = [s.logprob for s in score_rows(model, rows, 8)]
    assert together == pytest.approx(alone, rel=1e-5)


def test_a_model_without_logits_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama(tokenizer).eval()
    ids = torch.tensor([[0, 30, 40, 50, 60]])
    with torch.inference_mode():
        expected = scoring.causal_logits(model, ids, 3)
        forward = model.forward
        monkeypatch.setattr(model, "forward", lambda input_ids: forward(input_ids=input_ids))
        torch.testing.assert_close(scoring.causal_logits(model, ids, 3), expected)
