"""Shares of listed words, and a model's score."""

import shutil
from pathlib import Path

import pytest

from data_pipelines.document import Document
from data_pipelines.filters.fasttext_model import embedded
from data_pipelines.filters.toxicity import Toxicity
from fmtrain.errors import ConfigError
from fmtrain.schema import rules


def listed(folder: Path, *entries: str) -> list[str]:
    path = folder / "list.txt"
    path.write_text("\n".join(entries))
    return [str(path)]


def test_share_of_words(tmp_path: Path) -> None:
    rule = Toxicity(rules.Toxicity(lists=listed(tmp_path, "# list", "Blasted", "flaming idiot"), max_share=0.25))
    assert rule(Document("a", "one two three four five six, blasted!")) is None
    drop = rule(Document("a", "you FLAMING idiot, I say"))
    assert drop is not None and (drop.rule, drop.value, drop.threshold) == ("toxicity.words", 0.4, 0.25)
    assert rule(Document("a", "an idiot flaming here")) is None  # the phrase, not its words
    assert rule(Document("a", "")) is None and rule(Document("a", "?!")) is None


def test_a_real_list(shared_data: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(shared_data / "lists" / "ldnoobw.tar.gz", tmp_path)
    rule = Toxicity(rules.Toxicity(lists=[str(tmp_path / "ldnoobw/en")]))
    assert rule(Document("a", "The committee met on Tuesday to discuss the harbour wall.")) is None
    drop = rule(Document("a", "what a bastard"))
    assert drop is not None and drop.rule == "toxicity.words"


def test_model_by_path() -> None:
    rule = Toxicity(rules.Toxicity(model=str(embedded()), label="fr"))
    doc = Document("a", "All human beings are born free and equal in dignity.")
    assert rule(doc) is None and doc.meta["toxicity_score"] < 0.1
    drop = rule(Document("a", "Tous les êtres humains naissent libres et égaux en dignité."))
    assert drop is not None and drop.rule == "toxicity.score" and drop.threshold == 0.5


def test_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no word"):
        Toxicity(rules.Toxicity(lists=listed(tmp_path, "# nothing", "?!")))
