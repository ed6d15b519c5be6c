"""One loop for every objective, here over plain PyTorch in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.errors import InputError, Requeue, StageFailed
from fmtrain.kinds.objectives import Clm, Dpo, Mlm, Objective, Sft
from fmtrain.kinds.train import TrainJob, TrainStage
from fmtrain.objectives import OBJECTIVES, CollateContext
from fmtrain.schema.training import AdamW, Checkpoint, Constant
from fmtrain.train.distributed import Group
from fmtrain.train.loop import Loop
from fmtrain.train.plain import PlainEngine
from fmtrain.train.settings import derive
from tests.fmtrain.fixtures import make_examples, tiny_bert, tiny_llama, train_stage, write_jsonl

KEYS = {"step", "loss", "lr", "grad_norm", "tokens_per_second", "step_seconds", "data_wait_seconds", "tokens"}
Make = Callable[..., Loop]


@pytest.fixture
def make(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, tokens_folder: Path) -> Make:
    examples = make_examples(tmp_path / "examples")
    lines = [json.loads(line) for line in (examples / "preference.train.jsonl").read_text().splitlines()]

    def build(objective: Objective, steps: int = 8, stop: Callable[[], bool] = lambda: False, **stage: Any) -> Loop:
        packing = "concat" if objective.name in ("clm", "mlm") else "none"
        made, _ = train_stage(
            tmp_path, objective, {"tokens": tokens_folder, "examples": examples, "reference": tmp_path}, packing=packing
        )
        settings = {"global_batch_size": 4, "micro_batch_size": 2, "sequence_length": 96, **stage}
        cfg = TrainStage(
            objective=objective, optim=AdamW(lr=3e-3), schedule=Constant(), packing=packing, steps=steps, **settings
        )
        job = TrainJob(1, cfg, None, Checkpoint())
        if objective.name == "dpo":
            reference(tmp_path / "reference.jsonl", lines, tokenizer)
        rows = OBJECTIVES[objective.name].rows(made, job, tokenizer)
        model: PreTrainedModel = tiny_bert(tokenizer) if objective.name == "mlm" else tiny_llama(tokenizer)
        engine = PlainEngine(model.train(), cfg, derive(job, "s", 1))
        context = CollateContext.of(tokenizer, objective, 1)
        return Loop(
            engine, Group(), OBJECTIVES[objective.name], rows, context, cfg, derive(job, "s", 1), steps,
            torch.device("cpu"), stop,
        )  # fmt: skip

    return build


def reference(path: Path, lines: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Some reference columns; the counts must be the tokenizer's."""

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1

    rows = [
        {
            "id": line["id"],
            "chosen": -20.0,
            "rejected": -20.0,
            "chosen_tokens": count(line["chosen"]),
            "rejected_tokens": count(line["rejected"]),
        }
        for line in lines
    ]
    write_jsonl(path, rows)


@pytest.mark.parametrize("objective", [Clm(), Mlm(), Sft(), Dpo()], ids=lambda o: o.name)
def test_every_objective_learns(objective: Objective, make: Make) -> None:
    rows: list[dict[str, float]] = []
    loop = make(objective, steps=12)
    loop.run(0, rows.append, lambda step, must: None)
    assert [row["step"] for row in rows] == list(range(12))
    assert set(rows[0]) >= KEYS
    assert sum(r["loss"] for r in rows[-3:]) < sum(r["loss"] for r in rows[:3])


def test_saves_between_steps_and_stops(make: Make) -> None:
    asked = iter([False, False, True])
    loop = make(Sft(), steps=8, stop=lambda: next(asked))
    saved: list[tuple[int, bool]] = []
    rows: list[dict[str, float]] = []
    with pytest.raises(Requeue, match="step 3 of 8"):
        loop.run(0, rows.append, lambda step, must: saved.append((step, must)))
    assert saved == [(1, False), (2, False), (3, True)] and len(rows) == 3


def test_who_is_asked_during_a_step_saves_at_its_end(make: Make) -> None:
    """A step may take half of a queue's grace: no other one is begun."""
    asked: list[bool] = []
    loop = make(Sft(), steps=8, stop=lambda: bool(asked))
    backwards = loop.backwards
    object.__setattr__(loop, "backwards", lambda *step: (asked.append(True), backwards(*step))[1])
    rows: list[dict[str, float]] = []
    with pytest.raises(Requeue, match="step 1 of 8 is saved"):
        loop.run(0, rows.append, lambda step, must: None)
    assert len(rows) == 1


def test_asked_to_stop_in_the_last_step(make: Make) -> None:
    make(Sft(), steps=1, stop=lambda: True).run(0, lambda row: None, lambda step, must: None)


def test_no_weight_is_an_error(make: Make) -> None:
    """Masked positions drawn with probability 0 leave nothing to learn."""
    loop = make(Sft())
    batches = loop.batches(0)
    for batch in batches:
        batch["weight"] = torch.zeros((), dtype=torch.float64)
    object.__setattr__(loop, "batches", lambda step: batches)
    with pytest.raises(InputError, match="step 5: .* no target token"):
        loop.step(5)


def test_divergence_names_the_step(make: Make) -> None:
    loop = make(Clm())
    assert isinstance(loop.engine, PlainEngine)
    with torch.no_grad():
        next(loop.engine.module.parameters()).fill_(float("nan"))
    with pytest.raises(StageFailed, match=r"step 3: the loss is nan.*optim\.lr"):
        loop.step(3)


def test_parts_of_ranks_make_the_batch(make: Make) -> None:
    """The ranks' contiguous parts, in order, are the rows of one rank."""
    whole = torch.cat([b["input_ids"] for b in make(Clm(), global_batch_size=8).batches(2)])
    parts = []
    for rank in range(2):
        loop = make(Clm(), global_batch_size=8)
        job = TrainJob(1, loop.cfg)
        object.__setattr__(loop, "settings", derive(job, "s", 2))
        object.__setattr__(loop, "group", Group(rank, 2))
        parts += [b["input_ids"] for b in loop.batches(2)]
    assert torch.equal(whole, torch.cat(parts))
