"""A published folder: what it holds, that it loads in a new process, and that it scores the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from transformers import AutoModelForCausalLM

from fmtrain.artifacts.manifest import Manifest
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import write_json
from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError, InputError, StoreError
from fmtrain.evaluate import records
from fmtrain.evaluate.records import Estimate, Evaluation, ModelRecord, PreferenceScore, TextScore, Verdict
from fmtrain.evaluate.scoring import score_text
from fmtrain.kinds.publish import PublishJob
from fmtrain.models import load_model, load_tokenizer, save_model
from fmtrain.publish.card import render
from fmtrain.publish.publish import run
from fmtrain.schema.load import dump
from tests.fmtrain.fixtures import TEXT, make_tokenizer, tiny_bert, tiny_llama


def manifest(kind: str, name: str, fingerprint: str, parents: dict[str, dict[str, str]]) -> Manifest:
    job = {"job": {"data": {"name": "stdlib"}}} if kind == "corpus" else {"job": {}}
    return Manifest(kind, name, 0, fingerprint, job, parents, name, 1, "", "r", "", 0.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A committed model artifact with a corpus behind it."""
    store = Store(tmp_path / "store")
    store.prepare()
    corpus = tmp_path / "store" / "work" / "c"
    corpus.mkdir()
    (corpus / "x").write_text("x")
    store.commit(corpus, manifest("corpus", "corpus", "c" * 32, {}))
    folder = tmp_path / "store" / "work" / "m"
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer()
    save_model(tiny_llama(tokenizer), tokenizer, folder)
    for name in ("metrics.jsonl", "training.json"):
        (folder / name).write_text("{}")
    return store.commit(
        folder, manifest("model", "dpo", "d" * 32, {"corpus": {"ref": "corpus@v1", "fingerprint": "c" * 32}})
    ).path


def stage_of(tmp_path: Path, **inputs: Path) -> Stage:
    stage = Stage(
        stage="publish", kind="published", name="mine", fingerprint="p" * 32, run="r", job=dump(PublishJob("mine")),
        inputs={role: str(path) for role, path in inputs.items()}, refs={"model": "dpo@v1", "evaluation": "e@v1"},
        sources=[], work=str(tmp_path / "work"), folder=tmp_path,
    )  # fmt: skip
    stage.out.mkdir(parents=True)
    return stage


def evaluation(folder: Path) -> Path:
    folder.mkdir()
    found = Evaluation("e", "f" * 32, {}, {"sequence_length": 64, "bootstrap": 9})
    found.models = [ModelRecord("dpo", "dpo@v1", "LlamaForCausalLM", "causal", 30_000, {})]
    found.text = [TextScore("dpo", Estimate(2.125, 2.0, 2.25), 4.5, 9.0, 2, 4, 1)]
    found.preferences = [
        PreferenceScore("dpo: implicit reward", False, "foreign_name", Estimate(0.75, 0.5, 1), 4, 0, 2)
    ]
    found.heldout_kinds, found.synthetic = ["foreign_name"], True
    found.verdicts = [
        Verdict("s", False, "It does not beat every baseline.", 0.75, "b", 0.8, Estimate(-0.05, -0.1, 0.0))
    ]
    records.write(folder, found)
    return folder


def test_the_folder(model: Path, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, model=model, evaluation=evaluation(tmp_path / "e"))
    result = run(stage)
    names = {p.name for p in stage.out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "lineage.json"} <= names
    assert not names & {"metrics.jsonl", "training.json", "manifest.json"}
    assert not os.path.samefile(stage.out / "model.safetensors", model / "model.safetensors")
    assert result.counts["files"] > 3
    card = (stage.out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    numbers = ["2.125 [2.000, 2.250]", "75.0% [50.0, 100.0]", "never human preferences"]
    lines = ["PSF licence", "It does not beat every baseline.", "d" * 32, "c" * 32, "AutoModelForCausalLM", "`dpo`"]
    for wanted in numbers + lines:
        assert wanted in card, wanted
    lineage = json.loads((stage.out / "lineage.json").read_text())
    assert lineage["inputs"]["model"] == {"ref": "dpo@v1", "fingerprint": "d" * 32}
    assert [a["ref"] for a in lineage["ancestors"]] == ["dpo@v1", "corpus@v1"]


def test_what_was_not_measured_is_said_only_where_nothing_was(tmp_path: Path) -> None:
    lineage, said = {"fingerprint": "f", "inputs": {"model": {}}, "ancestors": []}, "It was not measured on anything"
    measured = records.read(evaluation(tmp_path / "e"))
    assert said in render("mine", {}, lineage, None) and said not in render("mine", {}, lineage, measured)
    measured.text = []
    assert said not in render("mine", {}, lineage, measured)  # held-out pairs are something
    measured.preferences = []
    assert said in render("mine", {}, lineage, measured)


def test_a_card_obeys_nothing_that_a_foreign_folder_says(tmp_path: Path) -> None:
    evil = "x`` | <script>alert(1)</script> ![i](http://e.vil) \x1b[31m\u202e\n# heading\n```\n"
    shapes = []
    for text in (evil, "x"):
        config = {"architectures": [text], "num_hidden_layers": [text], "hidden_size": text, "vocab_size": {text: text}}
        lineage = {"fingerprint": text, "inputs": {"model": {"files": {}}}, "ancestors": [
            {"ref": text, "kind": text, "fingerprint": text, "data": text}
        ]}  # fmt: skip
        card = render("mine", config, lineage, None)
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", card)
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card)
        shapes.append([(t.type, [c.type for c in t.children or []]) for t in tokens])
    assert shapes[0] == shapes[1]


def test_it_loads_in_a_new_process_and_scores_the_same(model: Path, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, model=model)
    run(stage)
    nats, tokens, _ = score_text(load_model(model, "causal"), load_tokenizer(model), TEXT[3] * 5, 32)
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from fmtrain.evaluate.scoring import score_text\n"
        "m, t = (A.from_pretrained(sys.argv[1]) for A in (AutoModelForCausalLM, AutoTokenizer))\n"
        "nats, tokens, _ = score_text(m, t, sys.argv[2], 32); m.generate(t('def', return_tensors='pt').input_ids)\n"
        "print(repr(nats / tokens))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(stage.out), TEXT[3] * 5], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(nats / tokens, abs=1e-4)


def test_a_folder_of_the_users_is_copied(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    save_model(tiny_bert(tokenizer), tokenizer, tmp_path / "bert")
    stage = stage_of(tmp_path, model=tmp_path / "bert")
    run(stage)
    assert not os.path.samefile(stage.out / "model.safetensors", tmp_path / "bert" / "model.safetensors")
    card = (stage.out / "README.md").read_text()
    assert "AutoModelForMaskedLM" in card and "It was not evaluated." in card
    assert "model.safetensors" in json.loads((stage.out / "lineage.json").read_text())["inputs"]["model"]["files"]


def test_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    stage = stage_of(tmp_path, model=tmp_path / "empty")
    with pytest.raises(InputError, match=r"no config\.json"):
        run(stage)
    write_json(tmp_path / "empty" / "config.json", {})
    with pytest.raises(InputError, match="no weights"):
        run(stage)


def test_publishing_imports_no_torch() -> None:
    code = "import sys, fmtrain.publish.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "hydra", "ray", "datatrove"} & set(loaded)


def test_what_is_copied_is_what_the_manifest_records(model: Path, tmp_path: Path) -> None:
    """A byte that changes after the planner has looked is not published."""
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(StoreError, match="model.safetensors is not as its manifest records it"):
        run(stage_of(tmp_path, model=model))


@pytest.mark.parametrize(("dtype", "shard_gb"), [("bf16", None), ("fp16", 0.00005), (None, 0.00005), ("fp32", None)])
def test_the_type_and_the_files_that_the_stage_says(
    model: Path, tmp_path: Path, dtype: str | None, shard_gb: float | None
) -> None:
    stage = stage_of(tmp_path, model=model)
    stage.job["stage"] |= {"dtype": dtype, "shard_gb": shard_gb}
    run(stage)
    target = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, None: torch.float32}[dtype]
    loaded = AutoModelForCausalLM.from_pretrained(stage.out)
    assert loaded.dtype == target
    exact = load_model(model, "causal").state_dict()
    assert all(torch.equal(exact[name].to(target), value) for name, value in loaded.state_dict().items())
    files = sorted(stage.out.glob("*.safetensors"))
    assert (len(files) > 1) == (shard_gb is not None)
    if dtype in (None, "fp32") and shard_gb is None:
        assert files[0].read_bytes() == (model / "model.safetensors").read_bytes()


def test_numbers_that_a_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    huge = tiny_llama(tokenizer)
    huge.model.norm.weight.data.fill_(1e6)
    save_model(huge, tokenizer, tmp_path / "huge")
    stage = stage_of(tmp_path, model=tmp_path / "huge")
    stage.job["stage"]["dtype"] = "fp16"
    with pytest.raises(ConfigError, match="model.norm.weight holds 1e\\+06, which torch.float16 cannot hold"):
        run(stage)


def test_a_folder_s_model_is_handed_on_and_nothing_beside_it(tmp_path: Path) -> None:
    """Templates in their folder go along; what a trainer left there, its paths and rows, stays."""
    tokenizer, folder = make_tokenizer(), tmp_path / "theirs"
    save_model(tiny_llama(tokenizer), tokenizer, folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    for name in ("trainer_state.json", "rows.jsonl", "training_args.bin", "optimizer.pt", "pytorch_model.bin"):
        (folder / name).write_text("private")
    stage = stage_of(tmp_path, model=folder)
    run(stage)
    assert (stage.out / "additional_chat_templates" / "tools.jinja").read_text() == "{{ messages }}"
    assert not [p.name for p in stage.out.rglob("*") if p.is_file() and p.read_bytes() == b"private"]
