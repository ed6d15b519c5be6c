"""A plug-in adds a kind of stage with a worker of its own, an objective, a shape of models, an optimizer and a form of
rows, without a line of ours touched."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, fmtrain

KIND = """
from dataclasses import dataclass, field
from fmtrain.kinds.base import Kind, Role, Stage

@dataclass
class CountStage(Stage):
    kind: str = "count"
    letters: str = "e"

@dataclass
class CountJob:
    stage: CountStage = field(default_factory=CountStage)

class Count(Kind):
    name, config, makes, worker, code, revision = "count", CountStage, "count", "of_ours.worker", (), 1

    def roles(self, at):
        return [Role("corpus", ("corpus",))]

    def job(self, at, inputs):
        return CountJob(at.cfg)

from fmtrain.kinds.objectives import Clm

@dataclass
class Twice(Clm):
    name: str = "twice"
    factor: float = 2.0

def make_twice():
    from dataclasses import replace
    from fmtrain.objectives import OBJECTIVES
    from fmtrain.objectives.base import Terms

    def loss(forward, batch, cfg):
        terms = OBJECTIVES["clm"].loss(forward, batch, cfg)
        return Terms(terms.total * cfg.factor, {**terms.metrics, "loss": terms.metrics["loss"] * cfg.factor})

    return replace(OBJECTIVES["clm"], name="twice", loss=loss)

def register(registry):
    registry.kind(Count())
    registry.objective(Twice, make_twice)
"""
WORKER = """
from fmtrain.artifacts.worker import Result, main

def run(stage):
    from of_ours import CountJob
    job = stage.job_as(CountJob)
    text = (stage.input("corpus") / "card.md").read_text()
    found = sum(text.count(letter) for letter in job.stage.letters)
    (stage.out / "count.txt").write_text(str(found))
    return Result(counts={"letters": found})

if __name__ == "__main__":
    main(run)
"""
RECIPE = """
defaults:
  - /stage@stages.corpus: corpus
  - /stage@stages.tokenizer: tokenizer
  - /stage@stages.tokens: tokens
  - override /model: llama_tiny
  - _self_
plugins: [of_ours]
data: {modules: [json, html, http], heldout_modulus: 0}
tokenizer: {vocab_size: 512}
stages:
  letters: {kind: count, letters: xyz}
  plain: {kind: train, objective: clm, packing: concat, steps: 3, sequence_length: 64, schedule: {warmup_steps: 0}}
  double:
    kind: train
    model: {name: llama, hidden_size: 64, num_attention_heads: 4, num_key_value_heads: 4, num_hidden_layers: 2}
    objective: {name: twice, factor: 4.0}
    packing: concat
    steps: 3
    sequence_length: 64
    schedule: {warmup_steps: 0}
"""


def test_a_kind_and_an_objective_of_a_plug_in(tmp_path: Path) -> None:
    (package := tmp_path / "plugged" / "of_ours").mkdir(parents=True)
    (package / "__init__.py").write_text(KIND)
    (package / "worker.py").write_text(WORKER)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    where = {"PYTHONPATH": str(package.parent)}
    words = [f"recipe={tmp_path / 'mine.yaml'}", "launch=inline", "launch.ranks=1", f"store={tmp_path / 'store'}"]
    code = f"import sys; from launch.cli import main; main({['plan', *words]!r}); print('torch' in sys.modules)"
    planned = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where | {"PATH": ""})
    assert planned.stdout.endswith("False\n") and "letters" in planned.stdout, planned.stderr
    done = fmtrain("run", *words, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    artifacts = tmp_path / "store" / "artifacts"
    assert int((artifacts / "count/letters/v0001/count.txt").read_text()) > 0
    losses = {}
    for name in ("plain", "double"):
        lines = (artifacts / f"model/{name}/v0001/metrics.jsonl").read_text().splitlines()
        losses[name] = json.loads(lines[0])["loss"]
    assert 3.5 < losses["double"] / losses["plain"] < 4.5  # two models of random weights
    (package / "worker.py").write_text(WORKER + "# another version of it\n")
    again = fmtrain("plan", *words, **where)
    actions = {line.split()[0]: line.split()[1] for line in again.stdout.splitlines() if len(line.split()) > 1}
    assert (actions["letters"], actions["double"], actions["plain"], actions["corpus"]) == (
        "run",
        "run",
        "reuse",
        "reuse",
    )
    misspelt = fmtrain("plan", *words, "stages.letters.leters=a", **where)
    assert misspelt.returncode == 2 and "did you mean 'stages.letters.letters'" in misspelt.stderr


PAGE = (REPOSITORY / "docs/corpus/plugins.md").read_text()
SHAPES, CLASSES = (code.replace("my_pkg", "odd_shapes") for code in re.findall(r"```python\n(.*?)```", PAGE, re.S)[2:])
MATRICES = """
from typing import ClassVar

@dataclass
class Matrices(Momentum):
    name: str = "matrices"
    whole: ClassVar[bool] = True

def register(registry, ours=register):
    ours(registry)
    registry.optimizer(Matrices, make_momentum)
"""
SHAPED = """
defaults:
  - /stage@stages.corpus: corpus
  - /stage@stages.tokenizer: tokenizer
  - /stage@stages.tokens: tokens
  - /stage@stages.examples: examples
  - _self_
plugins: [odd_shapes]
data: {name: rows, files: [ROWS], heldout_modulus: 0}
model: {name: narrow, width: 16}
tokenizer: {vocab_size: 512}
stages:
  corpus: {data: {name: stdlib, modules: [json, html, http], heldout_modulus: 0}}
  narrow: {kind: train, objective: clm, packing: concat, steps: 3, sequence_length: 64, schedule: {warmup_steps: 0}}
  odd:
    kind: train
    model: {name: odd, hidden_size: 36}
    objective: clm
    optim: {name: momentum, lr: 0.1}
    packing: concat
    steps: 3
    sequence_length: 64
    schedule: {warmup_steps: 0}
  tuned: {kind: train, objective: sft, steps: 2, sequence_length: 64, schedule: {warmup_steps: 0}, inputs: {model: odd}}
"""


def rows(file: Path) -> Path:
    lines = [{"instruction": "add", "input": {"text": f"{n} and one"}, "output": str(n + 1)} for n in range(40)]
    given = [*lines, {"instruction": "add", "input": "1", "output": "2"}, {**lines[0], "output": "refused"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return file


def test_shapes_optimizers_and_rows_of_a_plug_in(tmp_path: Path) -> None:
    (package := tmp_path / "plugged" / "odd_shapes").mkdir(parents=True)
    (package / "__init__.py").write_text(SHAPES + MATRICES)
    (package / "classes.py").write_text(CLASSES)
    (tmp_path / "mine.yaml").write_text(SHAPED.replace("ROWS", str(rows(tmp_path / "rows.jsonl"))))
    where, store = {"PYTHONPATH": str(package.parent)}, tmp_path / "store"
    words = [f"recipe={tmp_path / 'mine.yaml'}", "launch=inline", "launch.ranks=1", f"store={store}"]
    code = f"import sys; from launch.cli import main; main({['plan', *words]!r}); print('torch' in sys.modules)"
    planned = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where | {"PATH": ""})
    assert planned.stdout.endswith("False\n") and "tuned" in planned.stdout, planned.stdout + planned.stderr
    done = fmtrain("run", *words, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    manifests = {
        m["stage"]: m for m in map(json.loads, (p.read_text() for p in store.glob("artifacts/*/*/v0001/manifest.json")))
    }
    configs = {
        n: json.loads((store / f"artifacts/model/{n}/v0001/config.json").read_text()) for n in ("narrow", "tuned")
    }
    assert (configs["narrow"]["model_type"], configs["narrow"]["n_embd"]) == ("gpt2", 16)
    assert configs["tuned"]["architectures"] == ["OddForCausalLM"]
    unfit = [json.loads(line)["reason"] for line in (store / "artifacts/examples/examples/v0001/unfit.jsonl").open()]
    assert (
        sorted(unfit)[0].startswith("it has the keys of alpaca and is none")
        and sorted(unfit)[1] == "its author refused it"
    )
    assert manifests["examples"]["counts"]["sft_train"] == 40
    used = {stage for stage, m in manifests.items() if m["payload"].get("plugins")}
    assert used == {"examples", "narrow", "odd", "tuned"}  # the last reads a model whose class is the plug-in's
    said = fmtrain("generate", "tuned", "--raw", "--max-new-tokens=2", "import ", f"--store={store}", **where)
    assert said.returncode == 0, said.stderr
    lost = fmtrain("generate", "tuned", "--raw", "--max-new-tokens=2", "import ", f"--store={store}")
    assert lost.returncode == 3 and "The plug-in odd_shapes, of which it may be, cannot be imported" in lost.stderr
    (tmp_path / "plain.jsonl").write_text("".join(f'{{"prompt": "{n}", "completion": "{n}"}}\n' for n in range(9)))
    tune = ["plan", "recipe=finetune", f"data.files={tmp_path}/plain.jsonl", f"store={store}", "launch=inline"]
    tune += ["stages.sft.sequence_length=32"]
    shutil.copytree(
        store / "artifacts/model/odd/v0001", tmp_path / "copied", ignore=shutil.ignore_patterns("manifest*")
    )
    for path in ("odd@v1", tmp_path / "copied"):
        goes_on = fmtrain(*tune, f"model.path={path}", "plugins=[odd_shapes]", **where)
        assert goes_on.returncode == 0, goes_on.stdout + goes_on.stderr
    alone = fmtrain(*tune, f"model.path={tmp_path / 'copied'}", **where)
    assert alone.returncode == 2 and "name the plug-in that brings its class" in alone.stderr, alone.stderr
    (package / "classes.py").write_text(CLASSES + "# another version of it\n")
    again = fmtrain("plan", *words, **where)
    actions = {line.split()[0]: line.split()[1] for line in again.stdout.splitlines() if len(line.split()) > 1}
    assert {stage for stage in (*used, "corpus", "tokens") if actions[stage] == "run"} == used, again.stdout
    optim = "stages.narrow.optim={name: matrices}"
    refused = fmtrain("plan", *words, optim, **where)
    assert refused.returncode == 2 and "set stages.narrow.zero.stage=0" in refused.stderr
    assert fmtrain("plan", *words, optim, "stages.narrow.zero.stage=0", **where).returncode == 0
    unknown = fmtrain("plan", *words, "data.forms=[alpacca]", **where)
    assert unknown.returncode == 2 and "is not one of messages, prompt_completion, preference, alpaca" in unknown.stderr
