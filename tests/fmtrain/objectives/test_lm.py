"""clm, sft and mlm: the same loss as transformers' own, masks as Devlin et al. draw them, weights that add up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.data.order import batch_rows
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.objectives import Clm, Mlm, Sft
from fmtrain.objectives import IGNORED, OBJECTIVES, Batch, CollateContext, Forward
from tests.fmtrain.fixtures import make_examples, make_tokenizer, tiny_bert, tiny_llama, train_stage


def forward_of(model: PreTrainedModel) -> Forward:
    def forward(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        return model(input_ids=input_ids, attention_mask=attention_mask).logits

    return forward


def test_clm_is_transformers_loss(tmp_path: Path, tokens_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    clm = OBJECTIVES["clm"]
    stage, job = train_stage(tmp_path, Clm(), {"tokens": tokens_folder}, sequence_length=32, packing="concat")
    rows = clm.rows(stage, job, tokenizer)
    batch = clm.collate([rows[i] for i in range(4)], CollateContext.of(tokenizer, Clm(), 1).at(0, range(4)))
    model = tiny_llama(tokenizer)
    terms = clm.loss(forward_of(model), batch, Clm())
    assert batch["weight"].item() == 4 * 32 and batch["weight"].dtype == torch.float64
    whole = torch.cat([batch["input_ids"], batch["labels"][:, -1:]], 1)
    expected = model(input_ids=whole, labels=whole).loss * batch["weight"]
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert terms.metrics["loss"].item() == terms.total.item() and not terms.metrics["loss"].requires_grad


def test_sft_is_transformers_loss_and_padding_changes_nothing(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    sft = OBJECTIVES["sft"]
    stage, job = train_stage(tmp_path, Sft(), {"examples": make_examples(tmp_path / "e")}, sequence_length=64)
    rows = sft.rows(stage, job, tokenizer)
    context = CollateContext.of(tokenizer, Sft(), 1)
    batch = sft.collate([rows[0], rows[11]], context.at(0, [0, 11]))
    assert batch["input_ids"].shape[1] % 8 == 0
    model = tiny_llama(tokenizer)
    terms = sft.loss(forward_of(model), batch, Sft())
    labels = torch.full_like(batch["input_ids"], IGNORED)
    labels[:, 1:] = batch["labels"][:, :-1]
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert terms.total.item() == pytest.approx(expected.item() * batch["weight"].item(), rel=1e-6)
    alone = [sft.loss(forward_of(model), sft.collate([r], context), Sft()).total.item() for r in (rows[0], rows[11])]
    assert terms.total.item() == pytest.approx(sum(alone), rel=1e-6)
    learnt = tokenizer.decode(batch["labels"][0][batch["labels"][0] != IGNORED])
    assert learnt == "    return a + b\n<eos>"


@pytest.mark.parametrize("name", ["clm", "sft", "mlm"])
def test_one_micro_batch_or_four_give_the_same_gradient(
    name: str, tmp_path: Path, tokens_folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    cfg, inputs, packing = {
        "clm": (Clm(), {"tokens": tokens_folder}, "concat"),
        "sft": (Sft(), {"examples": make_examples(tmp_path / "e")}, "none"),
        "mlm": (Mlm(), {"tokens": tokens_folder}, "concat"),
    }[name]
    objective = OBJECTIVES[name]
    stage, job = train_stage(tmp_path, cfg, inputs, sequence_length=64, packing=packing)
    rows, context = objective.rows(stage, job, tokenizer), CollateContext.of(tokenizer, cfg, 1)
    numbers = batch_rows(1, 3, len(rows), 8)

    def gradient(micro: int) -> tuple[Tensor, float]:
        model = tiny_bert(tokenizer) if objective.task == "masked" else tiny_llama(tokenizer)
        parts = [numbers[i : i + micro] for i in range(0, 8, micro)]
        batches: list[Batch] = [objective.collate([rows[i] for i in p], context.at(3, p)) for p in parts]
        weight = sum(b["weight"].item() for b in batches)
        for batch in batches:
            (objective.loss(forward_of(model), batch, cfg).total / weight).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), weight

    (whole, weight), (split, same) = gradient(8), gradient(2)
    assert weight == same > 0
    assert (whole - split).abs().max() < 1e-6 and whole.abs().max() > 1e-3


def mlm_batch(tokens: Path, tokenizer: PreTrainedTokenizerBase, folder: Path, step: int, numbers: list[int]) -> Batch:
    cfg = Mlm()
    stage, job = train_stage(folder, cfg, {"tokens": tokens}, sequence_length=16, packing="concat")
    rows = OBJECTIVES["mlm"].rows(stage, job, tokenizer)
    context = CollateContext.of(tokenizer, cfg, 7).at(step, numbers)
    return OBJECTIVES["mlm"].collate([rows[i] for i in numbers], context)


def test_masks_follow_devlin(tmp_path: Path, tokens_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    masked = random = kept = chosen = free = 0
    for step in range(60):
        batch = mlm_batch(tokens_folder, tokenizer, tmp_path, step, list(range(40)))
        inputs, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        original = np.where(labels != IGNORED, labels, inputs)
        at = labels != IGNORED
        assert (original[:, 0] == tokenizer.cls_token_id).all() and (original[:, -1] == tokenizer.sep_token_id).all()
        assert (labels[at] >= 26).all()  # never a special token
        assert at.any(1).all() and batch["weight"].item() == at.sum()
        assert (inputs[~at] == original[~at]).all()
        swapped = inputs[at & (inputs != original) & (inputs != tokenizer.mask_token_id)]
        assert (swapped >= 26).all()
        masked += (inputs[at] == tokenizer.mask_token_id).sum()
        kept += (inputs[at] == original[at]).sum()
        random += len(swapped)
        chosen += at.sum()
        free += (original >= 26).sum()
    assert chosen > 4000
    # at least one a row lifts 15% a little in rows of 14: 0.15 + (1 - 0.15) ** 13.2 / 13.2 is about 0.16
    assert 0.145 < chosen / free < 0.17
    assert abs(masked / chosen - 0.8) < 0.02 and abs(random / chosen - 0.1) < 0.015 and abs(kept / chosen - 0.1) < 0.015


def test_masks_depend_on_seed_step_and_row_alone(
    tmp_path: Path, tokens_folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    together = mlm_batch(tokens_folder, tokenizer, tmp_path, 3, [4, 9, 11])
    alone = mlm_batch(tokens_folder, tokenizer, tmp_path, 3, [11])
    later = mlm_batch(tokens_folder, tokenizer, tmp_path, 4, [11])
    assert torch.equal(together["input_ids"][2], alone["input_ids"][0])
    assert torch.equal(together["labels"][2], alone["labels"][0])
    assert not torch.equal(alone["labels"], later["labels"])


def test_mlm_counts_hits(tmp_path: Path, tokens_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    batch = mlm_batch(tokens_folder, tokenizer, tmp_path, 0, [0, 1])
    truth = torch.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])

    def knows(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        return 50.0 * torch.nn.functional.one_hot(truth, len(tokenizer)).float()

    terms = OBJECTIVES["mlm"].loss(knows, batch, Mlm())
    assert terms.metrics["accuracy"].item() == batch["weight"].item()
    assert terms.total.item() == pytest.approx(0, abs=1e-5)


def test_what_cannot_be_trained(tmp_path: Path, tokens_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    stage, job = train_stage(tmp_path, Clm(), {"tokens": tokens_folder}, packing="none")
    with pytest.raises(ConfigError, match=r"set stages\.clm\.packing=concat"):
        OBJECTIVES["clm"].rows(stage, job, tokenizer)
    stage, job = train_stage(tmp_path, Sft(), {"examples": make_examples(tmp_path / "e")}, sequence_length=4)
    with pytest.raises(InputError, match="12 longer than sequence_length=4"):
        OBJECTIVES["sft"].rows(stage, job, tokenizer)
    stage, job = train_stage(tmp_path, Mlm(), {"tokens": tokens_folder}, sequence_length=16, packing="concat")
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="needs a mask token"):
        OBJECTIVES["mlm"].rows(stage, job, tokenizer)
    small = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    monkey = len(small)
    stage, job = train_stage(tmp_path, Clm(), {"tokens": tokens_folder}, sequence_length=16, packing="concat")
    assert OBJECTIVES["clm"].rows(stage, job, small).index.vocab_size == monkey


@pytest.mark.parametrize("cfg", [Clm(), Mlm()], ids=lambda cfg: cfg.name)
def test_tokens_of_another_tokenizer_are_refused(
    cfg: Clm | Mlm, tmp_path: Path, tokens_folder: Path, tokenizer_folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    make_tokenizer(["other text"] * 3).save_pretrained(tmp_path / "other")
    for folder, fits in ((tokenizer_folder, True), (tmp_path / "other", False)):
        inputs = {"tokens": tokens_folder, "tokenizer": folder}
        stage, job = train_stage(tmp_path, cfg, inputs, sequence_length=16, packing="concat")
        if fits:
            assert len(OBJECTIVES[cfg.name].rows(stage, job, tokenizer))
            continue
        with pytest.raises(ConfigError, match=rf"{tokens_folder} .*{folder}/tokenizer\.json"):
            OBJECTIVES[cfg.name].rows(stage, job, tokenizer)
