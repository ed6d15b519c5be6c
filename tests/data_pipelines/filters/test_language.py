"""The detector that is built in, and models by path: datatrove's LanguageFilter on the same model is the peer."""

import gzip
import json
import re
from pathlib import Path

import pytest

from data_pipelines.document import Document
from data_pipelines.filters.fasttext_model import embedded
from data_pipelines.filters.language import Language
from fmtrain.errors import InputError
from fmtrain.schema import rules
from fmtrain.schema.languages import LABELS

ENGLISH = "All human beings are born free and equal in dignity and rights.\nThey are endowed with reason."
FRENCH = "Tous les êtres humains naissent libres et égaux en dignité et en droits."


def test_reasons_and_meta() -> None:
    rule, doc = Language(rules.Language()), Document("a", ENGLISH)
    assert rule(doc) is None and doc.meta["language"] == "en" and doc.meta["language_score"] > 0.8
    drop = rule(Document("a", FRENCH))
    assert drop is not None and (drop.rule, drop.value) == ("language.other", "fr")
    drop = Language(rules.Language(min_score=0.999))(Document("a", ENGLISH))
    assert drop is not None and drop.rule == "language.score" and drop.threshold == 0.999
    drop = rule(Document("a", " \n\t"))
    assert drop is not None and drop.rule in ("language.other", "language.score")
    assert Language(rules.Language(languages=["de", "fr"]))(Document("a", FRENCH)) is None
    rule(Document("a", "\ud800 lone"))


def test_a_low_score_of_a_wanted_language_is_enough() -> None:
    text = FRENCH + " " + ENGLISH
    scores = Language(rules.Language())._model.scores(text)
    second = list(scores)[1]
    rule = Language(rules.Language(languages=[second], min_score=scores[second] / 2))
    assert rule(Document("a", text)) is None


def test_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Language(rules.Language(model=str(tmp_path / "none.bin")))
    (tmp_path / "bad.bin").write_bytes(b"not a model at all")
    with pytest.raises(InputError, match="not a fastText model"):
        Language(rules.Language(model=str(tmp_path / "bad.bin")))


@pytest.mark.parametrize("min_score", [0.65, 0.2])
def test_as_datatrove_decides(shared_data: Path, min_score: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import LanguageFilter
    from datatrove.utils.lid import FastTextLID

    wanted = ["en", "fr", "sw", "oc"]

    class Local(FastTextLID):  # type: ignore[misc]
        def predict(self, doc: Theirs) -> tuple[tuple[str, float], dict[str, float]]:
            import fasttext

            self._model = self._model or fasttext.load_model(str(embedded()))
            names, scores = self._model.predict(doc.text.replace("\n", " "), k=-1)
            pairs = {name.split("__")[2]: score for name, score in zip(names, scores, strict=True)}
            return max(pairs.items(), key=lambda item: item[1]), {name: pairs.get(name, 0.0) for name in wanted}

    monkeypatch.setattr(LanguageFilter, "_requires_dependencies", [])  # of another build of fastText
    peer = LanguageFilter(languages=wanted, language_threshold=min_score)
    peer.model = Local(wanted)
    ours = Language(rules.Language(languages=wanted, min_score=min_score))
    by_path = Language(rules.Language(languages=wanted, min_score=min_score, model=str(embedded())))
    with gzip.open(shared_data / "multilingual/udhr.jsonl.gz") as rows:
        texts = [json.loads(row)["text"][:2000] for row in rows]
    for text in texts:
        kept, theirs = Document("a", text), Theirs(text=text, id="a", metadata={})
        assert (ours(kept) is None) == bool(peer.filter(theirs)) == (by_path(Document("a", text)) is None)
        assert kept.meta["language"] == theirs.metadata["language"]


def test_the_schema_knows_the_labels() -> None:
    """They stand as strings in the model's file."""
    found = set(re.findall(rb"__label__([a-z]+)\0", embedded().read_bytes()))
    assert sorted(label.decode() for label in found) == list(LABELS)
