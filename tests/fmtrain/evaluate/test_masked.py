"""Masked accuracy: the same positions every time, and the numbers of a plain computation."""

import numpy as np
import pytest
import torch

from fmtrain.errors import InputError
from fmtrain.evaluate import masked, samples
from fmtrain.evaluate.inputs import Document
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.scoring import text_tokens
from tests.fmtrain.fixtures import TEXT, make_tokenizer, tiny_bert


def test_positions_are_a_share_and_a_function_of_the_document() -> None:
    first = masked.chosen_positions("a", 200, 1)
    assert len(first) == 30 == len(set(first.tolist()))
    assert (
        first.tolist() == masked.chosen_positions("a", 200, 1).tolist() != masked.chosen_positions("b", 200, 1).tolist()
    )
    assert len(masked.chosen_positions("a", 1, 1)) == 1


def test_score_is_the_plain_computation() -> None:
    tokenizer = make_tokenizer()
    model = tiny_bert(tokenizer).eval()
    documents = [Document("a", TEXT[3] * 3), Document("b", "x")]
    counts = np.zeros(len(tokenizer), np.int64)
    counts[text_tokens(tokenizer, "x")[0]] = 5
    length, right, nats, total = 16, 0, 0.0, 0
    for document in documents:
        ids = torch.tensor(text_tokens(tokenizer, document.text))
        chosen = masked.chosen_positions(document.id, len(ids), 1)
        hidden = ids.clone()
        hidden[chosen] = tokenizer.mask_token_id
        with torch.inference_mode():
            cls, sep = torch.tensor([tokenizer.cls_token_id]), torch.tensor([tokenizer.sep_token_id])
            rows = [torch.cat([cls, hidden[s : s + length - 2], sep]) for s in range(0, len(ids), length - 2)]
            windows = [model(input_ids=row[None]).logits[0, 1:-1] for row in rows]  # the ends of training's rows
        logp = torch.cat(windows).log_softmax(-1)
        right += int((logp[chosen].argmax(-1) == ids[chosen]).sum())
        nats -= float(logp[chosen, ids[chosen]].sum())
        total += len(chosen)
    found = masked.score("m", model, tokenizer, documents, counts, length, 2, Bootstrap(50, 1), lambda n: None)
    assert (found.masked, found.accuracy.value) == (total, pytest.approx(right / total))
    assert found.pseudo_loss == pytest.approx(nats / total, rel=1e-5)
    assert found.commonest_token == "x"
    assert found.commonest_accuracy is not None and found.commonest_accuracy.value >= 1 / total


def test_gaps_are_filled_with_text() -> None:
    tokenizer = make_tokenizer()
    model = tiny_bert(tokenizer).eval()
    filled, guesses = samples.fill_masks(model, tokenizer, "def <mask>(a):<mask>")
    assert len(guesses) == 2 and "<" not in "".join(guesses) + filled
    ids = torch.tensor([tokenizer("<cls>def <mask>(a):<mask><sep>", add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0].index_fill(1, torch.tensor(tokenizer.all_special_ids), -torch.inf)
    assert guesses == [
        tokenizer.decode([int(logits[i].argmax())]) for i in (ids[0] == tokenizer.mask_token_id).nonzero()
    ]
    with pytest.raises(InputError, match="<mask>"):
        samples.fill_masks(model, tokenizer, "def f(a):")
