"""A plug-in adds a kind of stage with a worker of its own, and an objective, without a line of ours touched."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import fmtrain

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
