"""docs/recipes/branches.yaml from outside the checkout: two corpora, a cooldown, two fine-tunings, two betas."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, fmtrain

pytestmark = [pytest.mark.long(4), pytest.mark.timeout(1800)]


def actions(*words: str) -> dict[str, str]:
    """Stage -> what a plan says of it."""
    done = fmtrain("plan", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return {row[0]: row[1] for row in rows if len(row) > 1 and row[1] in ("reuse", "run", "resume")}


def test_a_recipe_with_branches(tmp_path: Path) -> None:
    recipe = shutil.copyfile(REPOSITORY / "docs/recipes/branches.yaml", tmp_path / "mine.yaml")
    words = [f"recipe={recipe}", "launch=inline", f"store={tmp_path / 'store'}"]
    done = fmtrain("run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    manifests = {}
    for path in (tmp_path / "store").glob("artifacts/*/*/v0001/manifest.json"):
        manifest = json.loads(path.read_text())
        manifests[manifest["stage"]] = manifest
    parents = {stage: {role: p["ref"] for role, p in m["parents"].items()} for stage, m in manifests.items()}
    assert parents["tokens"] == {"corpus.0": "text@v1", "corpus.1": "code@v1", "tokenizer": "tokenizer@v1"}
    assert parents["cooldown"]["model"] == "pretrain@v1" and parents["cooldown"]["tokens"] == "code_tokens@v1"
    assert parents["gentle"]["model"] == parents["strict"]["model"] == parents["reference"]["model"] == "sft2@v1"
    rules = {name: manifests[name]["payload"]["job"]["filter"]["rules"] for name in ("text", "code")}
    assert rules == {"text": ["length"], "code": ["code"]}
    counts = {name: manifests[name]["counts"] for name in ("tokens", "code_tokens")}
    assert counts["tokens"]["documents"] > counts["code_tokens"]["documents"] > 0
    evaluation = json.loads((tmp_path / "store/artifacts/evaluation/evaluate/v0001/evaluation.json").read_text())
    names = ["pretrain", "cooldown", "sft", "sft2", "gentle", "strict"]
    assert [model["name"] for model in evaluation["models"]] == names
    settings = evaluation["settings"]
    assert (settings["beta of gentle"], settings["beta of strict"]) == (0.1, 0.5)

    begun = time.monotonic()
    again = fmtrain("run", *words)
    assert again.returncode == 0 and again.stdout.count(" reuse ") == len(manifests) == 15, again.stdout
    assert time.monotonic() - begun < 60  # ten seconds on a quiet machine
    changed = actions(*words, "stages.strict.objective.beta=0.3")
    assert {stage for stage, action in changed.items() if action == "run"} == {"strict", "evaluate", "publish"}
    renamed = actions(*words, "stages.text.artifact=prose", "stages.sft2.artifact=tuned")
    assert set(renamed.values()) == {"reuse"}, renamed  # names are no identity
    assert fmtrain("run", *words, "stages.sft2.artifact=tuned").returncode == 0
    models = tmp_path / "store/artifacts/model"
    tuned = json.loads((models / "tuned/v0001/manifest.json").read_text())
    assert tuned["files"] == manifests["sft2"]["files"] and tuned["name"] == "tuned"
    assert os.path.samefile(*(models / name / "v0001/model.safetensors" for name in ("tuned", "sft2")))
    assert actions(*words, "seed=2")["text"] == "reuse"  # draws nothing
