"""The quality classifier: it learns, the same model from rows in any order, and its file is checked."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import train_classifier as cli
from data_pipelines.document import Document
from data_pipelines.filters import classifier
from data_pipelines.filters.classifier import Classifier
from fmtrain.errors import ExitCode, InputError
from fmtrain.schema import rules

GOOD = [
    "the",
    "committee",
    "discussed",
    "harbour",
    "walls",
    "and",
    "agreed",
    "on",
    "mending",
    "them",
    "before",
    "winter",
]
BAD = ["click", "here", "buy", "now", "cheap", "offer", "subscribe", "login", "cart", "price", "sale", "free", "menu"]


def rows(seed: int, count: int = 60) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    made = []
    for i in range(count):
        words = rng.choices(GOOD if i % 2 else BAD, k=20) + rng.choices(GOOD + BAD, k=10)
        made.append((" ".join(words), "good" if i % 2 else "bad"))
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "quality.model"
    classifier.train(rows(0), path, positive="good")
    return path


def test_learns(model: Path) -> None:
    rule = Classifier(rules.Classifier(model=str(model)))
    for text, label in rows(1):
        doc = Document("a", text)
        drop = rule(doc)
        assert (drop is None) == (label == "good")
        assert drop is None or (drop.rule, drop.value) == ("classifier.score", doc.meta["score"])
    assert 0 < classifier.load(model).score(Document("a", "").words) < 1


def test_the_same_model_from_rows_in_any_order(model: Path, tmp_path: Path) -> None:
    shuffled = rows(0)
    random.Random(5).shuffle(shuffled)
    classifier.train(iter(shuffled), tmp_path / "again", positive="good")
    assert (tmp_path / "again").read_bytes() == model.read_bytes()


def test_faults(model: Path, tmp_path: Path) -> None:
    for content in (b"", b"{}", b"[]\n", model.read_bytes()[:-1], b"\xff" + model.read_bytes()):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InputError, match="train it again"):
            classifier.load(tmp_path / "bad")
    (tmp_path / "old").write_bytes(model.read_bytes().replace(b'"words": "', b'"words": "x', 1))
    with pytest.raises(InputError, match="splitter x"):
        classifier.load(tmp_path / "old")
    with pytest.raises(InputError, match="both kinds"):
        classifier.train([("a", "good")], tmp_path / "out", positive="good")


def test_measures() -> None:
    labels = np.array([True, False, True, False])
    assert cli.auc(labels, np.array([3, 1, 2, 0])) == 1.0 and cli.auc(labels, np.array([1, 1, 1, 1])) == 0.5
    assert cli.auc(labels, np.array([1, 2, 0, 0])) == pytest.approx(0.375)
    assert cli.f1(labels, np.array([True, True, False, False])) == 0.5
    assert cli.best_cut(labels, np.array([3, 1, 2, 0])) == 2 and cli.best_cut(labels, np.array([1, 1, 1, 1])) == 1
    short = cli.baseline(labels.repeat(10), np.array([1, 5, 1, 5]).repeat(10), np.arange(40) % 5)
    assert short == {"auc": 1.0, "f1": 1.0}  # shorter may be better


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, files = rows(0), {}
    for label in ("good", "bad"):
        files[label] = tmp_path / f"{label}.jsonl"
        files[label].write_text("".join(json.dumps({"body": text}) + "\n" for text, of in made if of == label))
    both = tmp_path / "both.json"
    both.write_text(json.dumps([{"body": text, "kind": label} for text, label in made]))
    two = ["--positive", str(files["good"]), "--negative", str(files["bad"])]
    one = ["--labelled", str(both), "--label-key", "kind", "--positive-label", "good"]
    for name, args in (("two", two), ("one", one)):
        assert cli.main([*args, "--text-key", "body", "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    out = capsys.readouterr().out
    assert "60 rows, 30 positive" in out and "length only" in out and "classifier      1.000  1.000" in out

    assert cli.main([*two, "--out", str(tmp_path / "x")]) == ExitCode.INPUT
    assert "no text under 'text'" in capsys.readouterr().err
    assert cli.main([*two, *one, "--out", str(tmp_path / "x")]) == ExitCode.CONFIG
    assert cli.main([*two, "--out", str(tmp_path)]) == ExitCode.CONFIG
    assert f"--out {tmp_path} is a folder" in capsys.readouterr().err


def test_agrees_with_people_better_than_length(shared_data: Path) -> None:
    with gzip.open(shared_data / "web/dclm_quality_labels/majority_data.jsonl.gz") as lines:
        pairs = [(row["text"], str(row["label"])) for row in map(json.loads, lines)]
    measured = cli.validate(classifier.read(pairs, "1"))
    assert measured["classifier"]["auc"] > 0.87 > 0.77 > measured["length only"]["auc"]
