"""DPO: TRL's loss to 1e-6, ln 2 at the start, reference columns that belong to these very rows."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.artifacts.storage import read_jsonl
from fmtrain.data.rows import PreferenceRow, preference_rows
from fmtrain.errors import InputError, StoreError
from fmtrain.kinds.objectives import Dpo
from fmtrain.objectives import OBJECTIVES, CollateContext
from fmtrain.objectives.dpo import FILE, Pair
from fmtrain.objectives.logprob import sequence_logprobs
from tests.fmtrain.fixtures import make_examples, tiny_llama, train_stage, write_jsonl


def logprob(model: PreTrainedModel, ids: list[int], loss: list[bool]) -> float:
    """One unpadded row, by the textbook: the sum of log_softmax at the learnt tokens, in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(logits[t - 1, ids[t]].item() for t in range(1, len(ids)) if loss[t])


def reference_line(model: PreTrainedModel, row: PreferenceRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "chosen": logprob(model, row.chosen.ids, row.chosen.loss),
        "rejected": logprob(model, row.rejected.ids, row.rejected.loss),
        "chosen_tokens": sum(row.chosen.loss),
        "rejected_tokens": sum(row.rejected.loss),
    }


@pytest.fixture
def folders(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Path]:
    examples = make_examples(tmp_path / "examples")
    reference = tiny_llama(tokenizer, seed=1).eval()
    rows = preference_rows(examples / FILE, tokenizer, 64).rows
    write_jsonl(tmp_path / "reference" / "reference.jsonl", [reference_line(reference, r) for r in rows])
    return {"examples": examples, "reference": tmp_path / "reference"}


def pairs_of(folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, **stage: Any) -> list[Pair]:
    made, job = train_stage(tmp_path, Dpo(), folders, **{"sequence_length": 64, **stage})
    rows = OBJECTIVES["dpo"].rows(made, job, tokenizer)
    return [rows[i] for i in range(len(rows))]


def terms_of(model: PreTrainedModel, pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, cfg: Dpo) -> Any:
    batch = OBJECTIVES["dpo"].collate(pairs, CollateContext.of(tokenizer, cfg, 1))
    assert batch["weight"].item() == len(pairs)
    forward = lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits  # noqa: E731
    return OBJECTIVES["dpo"].loss(forward, batch, cfg)


def test_it_starts_at_ln_2(folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    pairs = pairs_of(folders, tokenizer, tmp_path)
    terms = terms_of(tiny_llama(tokenizer, seed=1), pairs, tokenizer, Dpo())
    assert terms.total.item() / len(pairs) == pytest.approx(math.log(2), abs=1e-6)
    assert terms.metrics["margin"].item() == pytest.approx(0, abs=1e-4)


def test_it_is_trl_s_loss(folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """The real DPOTrainer with a real reference model, from the same untokenized rows."""
    import datasets
    import trl

    pairs = pairs_of(folders, tokenizer, tmp_path)[:6]
    ours = terms_of(tiny_llama(tokenizer, seed=2), pairs, tokenizer, Dpo(beta=0.3))

    def turn(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    raw = list(read_jsonl(folders["examples"] / FILE))[:6]
    raw = [{"prompt": r["prompt"], "chosen": turn(r["chosen"]), "rejected": turn(r["rejected"])} for r in raw]
    args = trl.DPOConfig(output_dir=str(tmp_path / "trl"), beta=0.3, report_to=[], use_cpu=True, bf16=False)
    trainer = trl.DPOTrainer(
        model=tiny_llama(tokenizer, seed=2),
        ref_model=tiny_llama(tokenizer, seed=1),
        args=args,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(raw),
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist() == pairs[0].row.chosen.ids
    theirs = trainer.compute_loss(trainer.model, batch)
    assert ours.total.item() / len(pairs) == pytest.approx(theirs.item(), abs=1e-6)
    metrics = {name: trainer._metrics["train"][f"rewards/{name}"][0] for name in ("chosen", "rejected", "accuracies")}
    assert ours.metrics["chosen_reward"].item() / 6 == pytest.approx(metrics["chosen"], abs=1e-5)
    assert ours.metrics["rejected_reward"].item() / 6 == pytest.approx(metrics["rejected"], abs=1e-5)
    assert ours.metrics["accuracy"].item() / 6 == pytest.approx(metrics["accuracies"], abs=1e-6)
    assert abs(ours.metrics["margin"].item()) > 1e-3  # a test at margin 0 would prove nothing


def test_one_micro_batch_or_four_give_the_same_gradient(
    folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    pairs = pairs_of(folders, tokenizer, tmp_path)[:8]

    def gradient(micro: int) -> torch.Tensor:
        model = tiny_llama(tokenizer, seed=2)
        for i in range(0, 8, micro):
            (terms_of(model, pairs[i : i + micro], tokenizer, Dpo()).total / 8).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole, split = gradient(8), gradient(2)
    assert (whole - split).abs().max() < 1e-6 and whole.abs().max() > 1e-3


def test_logprobs_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 9, 50).bfloat16(), torch.randint(0, 50, (3, 9))
    labels[:, :4] = -100
    expected = [sum(logits[b, t].float().log_softmax(-1)[labels[b, t]].item() for t in range(4, 9)) for b in range(3)]
    whole = sequence_logprobs(logits, labels)
    monkeypatch.setattr("fmtrain.objectives.logprob._ELEMENTS_AT_ONCE", 100)
    pieces = sequence_logprobs(logits, labels)
    assert whole.dtype == torch.float32 and torch.equal(whole, pieces)
    assert whole.tolist() == pytest.approx(expected, rel=1e-6)
    assert sequence_logprobs(logits, torch.full_like(labels, -100)).tolist() == [0, 0, 0]


def test_a_row_without_reference(folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = folders["reference"] / "reference.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(InputError, match=r"lacks 1 of the 12 rows .*'pref-0' first: give the stage that made it the"):
        pairs_of(folders, tokenizer, tmp_path)


def test_a_row_that_is_too_long_needs_no_reference(
    folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    lengths = {
        p.row.id: max(len(p.row.chosen.ids), len(p.row.rejected.ids)) for p in pairs_of(folders, tokenizer, tmp_path)
    }
    limit = max(lengths.values()) - 1
    path = folders["reference"] / "reference.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [line for line in lines if lengths[line["id"]] <= limit])
    kept = pairs_of(folders, tokenizer, tmp_path, sequence_length=limit)
    assert {p.row.id for p in kept} == {i for i, n in lengths.items() if n <= limit} != set(lengths)


def test_a_reference_made_by_another_tokenizer(
    folders: dict[str, Path], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = folders["reference"] / "reference.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [{**line, "chosen_tokens": line["chosen_tokens"] + 1} for line in lines])
    with pytest.raises(InputError, match="another tokenizer or chat template"):
        pairs_of(folders, tokenizer, tmp_path)
    write_jsonl(path, [{**line, "chosen": None} for line in lines])
    with pytest.raises(StoreError, match="row 'pref-0' is damaged"):
        pairs_of(folders, tokenizer, tmp_path)
