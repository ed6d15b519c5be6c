"""The reference and the evaluate stage whole, as a worker runs them."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.stage import Stage, write_stage
from fmtrain.artifacts.worker import Result
from fmtrain.data.chat import encode_pair
from fmtrain.errors import ConfigError, InputError, StoreError
from fmtrain.evaluate import preference, records, reference, report
from fmtrain.evaluate.__main__ import run
from fmtrain.evaluate.inputs import heldout_documents
from fmtrain.evaluate.scoring import score_rows
from fmtrain.kinds.evaluate import EvaluateJob, EvaluateStage
from fmtrain.kinds.reference import ReferenceJob, ReferenceStage
from fmtrain.models import load_model, load_tokenizer
from tests.fmtrain.evaluate.conftest import Lineage
from tests.hostile import EVIL, Elements

IMPLICIT = f"dpo{preference.IMPLICIT}"
REFERENCE = ReferenceJob(ReferenceStage(sequence_length=96, batch_size=4))
EVALUATE = EvaluateJob(
    1, EvaluateStage(sequence_length=32, example_length=96, bootstrap=50, samples=1, sample_tokens=6, batch_size=4)
)


def go(stage: Stage) -> Result:
    stage.out.mkdir(parents=True, exist_ok=True)
    return run(stage)


@pytest.fixture(scope="module")
def reference_stage(lineage: Lineage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Result]:
    work = tmp_path_factory.mktemp("reference")
    stage = lineage.stage("reference", REFERENCE, ["examples"], work, model=lineage.folders["sft"])
    return stage, go(stage)


@pytest.fixture(scope="module")
def evaluated(
    lineage: Lineage, reference_stage: tuple[Stage, Result], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Stage, Result]:
    work = tmp_path_factory.mktemp("evaluate")
    roles = ["corpus", "tokens", "examples", "pretrain", "sft", "dpo"]
    stage = lineage.stage("evaluate", EVALUATE, roles, work, reference=reference_stage[0].out)
    return stage, go(stage)


def test_reference_rows(lineage: Lineage, reference_stage: tuple[Stage, Result]) -> None:
    stage, result = reference_stage
    lines = [json.loads(line) for line in (stage.out / "reference.jsonl").read_text().splitlines()]
    assert [r["id"] for r in lines] == sorted(r["id"] for r in lines)
    assert len(lines) == 6 + 16 == result.counts["rows"]
    assert (result.counts["too_long"], result.counts["train_too_long"]) == (2, 1)
    tokenizer = load_tokenizer(lineage.folders["sft"])
    model = load_model(lineage.folders["sft"], "causal")
    found = {r["id"]: r for r in lines}
    for row in map(json.loads, (lineage.folders["examples"] / "preference.train.jsonl").read_text().splitlines()[:6]):
        for side in ("chosen", "rejected"):
            (alone,) = score_rows(model, [encode_pair(tokenizer, row["prompt"], row[side])], 1)
            assert found[row["id"]][side] == pytest.approx(alone.logprob, rel=1e-5)
            assert found[row["id"]][f"{side}_tokens"] == alone.tokens


def test_reference_takes_a_limit_of_training_rows_alone(lineage: Lineage, tmp_path: Path) -> None:
    job = ReferenceJob(replace(REFERENCE.stage, max_rows=2))
    result = go(lineage.stage("reference", job, ["examples"], tmp_path, model=lineage.folders["sft"]))
    assert (result.counts["train_rows"], result.counts["heldout_rows"]) == (2, 16)


def test_reference_beyond_the_models_positions_is_refused(lineage: Lineage, tmp_path: Path) -> None:
    job = ReferenceJob(ReferenceStage(sequence_length=4096))
    with pytest.raises(ConfigError, match=r"stages\.reference\.sequence_length=4096 .*at most 128 tokens"):
        go(lineage.stage("reference", job, ["examples"], tmp_path, model=lineage.folders["sft"]))


def test_reference_stops_where_the_template_refuses_too_many(lineage: Lineage, tmp_path: Path) -> None:
    model = shutil.copytree(lineage.folders["sft"], tmp_path / "model")
    template = model / "chat_template.jinja"
    odd = "{% if 'def f1(' in messages[0].content %}{{ raise_exception('an odd row') }}{% endif %}"
    template.write_text(odd + template.read_text())
    for most, refused in ((0.1, True), (1.0, False)):
        job = ReferenceJob(replace(REFERENCE.stage, max_refused_fraction=most))
        stage = lineage.stage("reference", job, ["examples"], tmp_path / f"{most}", model=model)
        with pytest.raises(InputError, match=r"reference\.max_refused_fraction=0\.1") if refused else nullcontext():
            go(stage)
    assert "refused by the chat template" in (stage.folder / "said.txt").read_text()


def test_reference_without_a_row_that_fits(lineage: Lineage, tmp_path: Path) -> None:
    job = ReferenceJob(ReferenceStage(sequence_length=8))
    with pytest.raises(InputError, match="24 are longer"):
        go(lineage.stage("reference", job, ["examples"], tmp_path, model=lineage.folders["sft"]))


def test_evaluation_is_complete(evaluated: tuple[Stage, Result]) -> None:
    stage, result = evaluated
    found = records.read(stage.out)
    assert [t.name for t in found.text] == ["pretrain", "sft", "dpo", "gzip -9", "xz -9", "token unigram"]
    assert len({t.bytes for t in found.text}) == 1
    for text in found.text:
        assert text.bits_per_byte.low <= text.bits_per_byte.value <= text.bits_per_byte.high
    assert [r.name for r in found.responses] == ["pretrain", "sft", "dpo"]
    assert found.heldout_kinds == ["foreign_name"] and found.synthetic
    scorers = {p.scorer for p in found.preferences}
    assert {IMPLICIT, "shorter response", "longer response", "parses", "sft: mean log-probability"} <= scorers
    by = {(p.scorer, p.kind): p for p in found.preferences}
    assert by["parses", "bracket"].accuracy.value == 1.0
    assert by["parses", "foreign_name"].accuracy.value == 0.5
    assert by[IMPLICIT, "foreign_name"].pairs == 8 and by[IMPLICIT, "all"].pairs == 16
    assert result.counts["preference_too_long"] == 1
    said = (stage.folder / "said.txt").read_text()
    assert "17 held-out preference rows: 1 longer than example_length=96" in said and "16 used" in said
    assert all(f"held-out SFT rows under {name}: " in said for name in ("pretrain", "sft", "dpo"))
    assert result.metrics["dpo_heldout_kind_accuracy"] == by[IMPLICIT, "foreign_name"].accuracy.value
    assert {"pretrain_bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte"} <= set(result.metrics)
    verdict = found.verdicts[-1]
    assert "On the held-out kind foreign_name" in verdict.sentence
    assert verdict.holds == (verdict.value > verdict.baseline_value)
    assert all(len(c.steps) <= 400 and c.steps[-1] == 900 for c in found.curves)
    assert {s.form for s in found.samples} == {"text", "chat"}


def test_report_is_self_contained_and_holds_the_numbers(evaluated: tuple[Stage, Result]) -> None:
    stage, _ = evaluated
    html, found = (stage.out / "report.html").read_text(), records.read(stage.out)
    assert not re.search(r"(?:src|href|url|@import|xlink)\s*[=(]?\s*[\"']?\s*(?:https?:)?//", html)
    assert "<script" not in html and "<link" not in html
    for text in found.text:
        assert f"{text.bits_per_byte.value:.3f}" in html
    for p in found.preferences:
        assert f"{100 * p.accuracy.value:.1f}%" in html
    assert "synthetic corruptions, never human preferences" in html
    assert "<polyline" in html and "training of pretrain: rows" in html
    assert all(role in html for role in ("tokens@v1", "dpo@v1"))


def test_the_same_again_bit_for_bit(lineage: Lineage, evaluated: tuple[Stage, Result], tmp_path: Path) -> None:
    stage = replace(evaluated[0], work=str(tmp_path / "work"), folder=tmp_path)
    go(stage)
    for name in ("evaluation.json", "report.html"):
        assert (stage.out / name).read_bytes() == (evaluated[0].out / name).read_bytes()


def test_a_masked_model(lineage: Lineage, tmp_path: Path) -> None:
    stage = lineage.stage("evaluate", EVALUATE, ["corpus", "tokens"], tmp_path, pretrain=lineage.folders["masked"])
    result = go(stage)
    found = records.read(stage.out)
    assert not found.text and found.masked[0].commonest_accuracy is not None
    assert result.metrics["pretrain_masked_accuracy"] == found.masked[0].accuracy.value
    assert {s.form for s in found.samples} == {"masked"}
    assert "always the commonest training token" in (stage.out / "report.html").read_text()


def test_a_base_model_on_rows_alone(lineage: Lineage, tmp_path: Path) -> None:
    stage = lineage.stage("evaluate", EVALUATE, ["examples", "base"], tmp_path)
    go(stage)
    found = records.read(stage.out)
    assert not found.text and not found.verdicts and found.responses[0].name == "base"


def test_nothing_to_evaluate(lineage: Lineage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model"):
        go(lineage.stage("evaluate", EVALUATE, ["corpus"], tmp_path))
    with pytest.raises(InputError, match="nothing to evaluate on"):
        go(lineage.stage("evaluate", EVALUATE, ["pretrain"], tmp_path))
    with pytest.raises(ConfigError, match="and no model"):
        go(replace(lineage.stage("evaluate", EVALUATE, ["corpus"], tmp_path), kind="model"))


def test_a_limit_of_bytes_takes_whole_documents(lineage: Lineage) -> None:
    corpus = lineage.folders["corpus"]
    every = heldout_documents(corpus, None)
    some = heldout_documents(corpus, sum(d.bytes for d in every) - 1)
    one = heldout_documents(corpus, 1)
    assert len(every) == 4 and len(one) == 1 and one[0] in some and set(some) < set(every)


def test_a_damaged_corpus_is_named(tmp_path: Path) -> None:
    (tmp_path / "heldout").mkdir()
    (tmp_path / "heldout" / "00000.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(StoreError, match=r"00000\.jsonl\.gz is damaged"):
        heldout_documents(tmp_path, None)


def test_a_flipped_bit_in_a_corpus_is_named_or_harmless(tmp_path: Path) -> None:
    (tmp_path / "heldout").mkdir()
    file = tmp_path / "heldout" / "00000.jsonl.gz"
    text = json.dumps({"id": "a", "text": "def f():\n    return 1\n" * 9, "group": "a"})
    whole = gzip.compress((text + "\n").encode() * 3, mtime=0)
    file.write_bytes(whole)
    good, refused = heldout_documents(tmp_path, None), 0
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            assert heldout_documents(tmp_path, None) == good  # of the header's time and system
        except StoreError as e:
            refused += "00000.jsonl.gz is damaged" in str(e)
    assert refused > 7 * (len(whole) - 10)


def with_folder(folder: Path, target: Path, template: str = "", **config: int) -> Path:
    """A copy of a model folder with another chat template, or with other settings in its config.json."""
    shutil.copytree(folder, target)
    if template:
        (target / "chat_template.jinja").write_text(template)
    data = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**data, **config}))
    return target


def test_a_row_that_the_template_refuses_is_passed_over(lineage: Lineage, tmp_path: Path) -> None:
    """One held-out row of eight; the sample asks for them all."""
    refusing = "{% if 'f3(' in messages[0]['content'] %}{{ raise_exception('no f3') }}{% endif %}"
    old = (lineage.folders["sft"] / "chat_template.jinja").read_text()
    folder = with_folder(lineage.folders["sft"], tmp_path / "sft", refusing + old)
    job = replace(EVALUATE, stage=replace(EVALUATE.stage, samples=8))
    stage = lineage.stage("evaluate", job, ["examples"], tmp_path, sft=folder)
    go(stage)
    shown = [s.prompt for s in records.read(stage.out).samples if s.sampling == "greedy"]
    assert len(shown) == 4 and not any("f3(" in s for s in shown)


def test_the_report_obeys_nothing_that_it_shows(evaluated: tuple[Stage, Result]) -> None:
    """Names, prompts, tokens, notes and what models wrote, each an attack on whoever opens the page."""

    def said(value: Any, more: str) -> Any:
        if isinstance(value, dict):
            return {key: said(v, more) for key, v in value.items()}
        if isinstance(value, list):
            return [said(v, more) for v in value]
        return value + more if isinstance(value, str) else value

    whole = records.read(evaluated[0].out)
    whole.notes.append("a note")
    pages = []
    for more in (EVIL, "x"):
        changed = {f.name: getattr(whole, f.name) for f in fields(whole)}
        for name, value in changed.items():
            rows = value if isinstance(value, list) else []
            if rows and is_dataclass(rows[0]):
                changed[name] = [
                    replace(r, **{k.name: said(getattr(r, k.name), more) for k in fields(r)}) for r in rows
                ]
            else:
                changed[name] = said(value, more)
        pages.append(report.render(records.Evaluation(**changed)))
    evil, plain = (Elements(page).found for page in pages)
    assert evil == plain and not {"script", "img", "a"} & {tag for tag, _ in evil}
    assert pages[0].count("onerror") > 20
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", pages[0])


def test_rows_beyond_a_models_positions_are_too_long(lineage: Lineage, tmp_path: Path) -> None:
    """example_length is beyond the 70 positions of the model, which hold rows of 64 padded tokens."""
    folder = with_folder(lineage.folders["sft"], tmp_path / "sft", max_position_embeddings=70)
    job = replace(EVALUATE, stage=replace(EVALUATE.stage, example_length=4096))
    result = go(lineage.stage("evaluate", job, ["examples"], tmp_path, sft=folder))
    rows = (lineage.folders["examples"] / "preference.heldout.jsonl").read_text().splitlines()
    tokenizer = load_tokenizer(folder)
    pairs = [(r["prompt"], r["chosen"], r["rejected"]) for r in map(json.loads, rows)]
    longest = [max(len(encode_pair(tokenizer, p, r).ids) for r in (a, b)) for p, a, b in pairs]
    assert result.counts["preference_too_long"] == sum(n > 64 for n in longest) > 0
    assert result.numerics["batch_size"] == 4 and result.numerics["zlib"]
    with pytest.raises(ConfigError, match="at most 64 tokens"):
        go(lineage.stage("reference", REFERENCE, ["examples"], tmp_path, model=folder))


def test_neither_hydra_nor_ray_nor_deepspeed_is_imported(lineage: Lineage, tmp_path: Path) -> None:
    stage = lineage.stage("reference", REFERENCE, ["examples"], tmp_path, model=lineage.folders["sft"])
    stage.work_dir.mkdir()
    write_stage(tmp_path / "stage", stage)
    blocked = ["hydra", "omegaconf", "ray", "datatrove", "wandb", "deepspeed"]
    code = (
        f"import sys, runpy; sys.modules |= dict.fromkeys({blocked!r})\n"
        f"import fmtrain.evaluate.evaluate, fmtrain.generate; sys.argv = ['x', {str(tmp_path / 'stage')!r}]\n"
        "runpy.run_module('fmtrain.evaluate', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "work" / "result.json").read_text())["counts"]["rows"] == 22
    assert (stage.out / reference.FILE).is_file()
