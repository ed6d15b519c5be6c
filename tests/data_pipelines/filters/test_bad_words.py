"""Bad words are found where C4's rule finds them, in lists given by path."""

import re
import shutil
from pathlib import Path

import pytest
from datatrove.pipeline.filters import c4_filters
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.c4 import BadWords, WordList, chance
from fmtrain.schema import rules
from tests.data_pipelines.filters.peer import agree, real_texts


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    (tmp_path / "en.txt").write_text("darn\nold goat\nold-fangled\nc++\n\n🖕\n")
    (tmp_path / "ja").write_text("ばか\nsm\n")
    (tmp_path / "mine.txt").write_text("Humbug\n")
    return [str(tmp_path / name) for name in ("en.txt", "ja", "mine.txt")]


def found(lists: list[str], text: str, language: str = "", **config: float) -> Drop | None:
    rule = BadWords(rules.BadWords(lists=lists, **config))  # type: ignore[arg-type]
    return rule(Document("x", text, meta={"language": language} if language else None))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Well, DARN it.", "darn"),
        ("darn", "darn"),
        ("He darned his socks, the darning_needle.", ""),
        ("the old goat\n", "old goat"),
        ("the old goats", ""),
        ("an old fangled old  goat", ""),
        ("very old-fangled!", "old-fangled"),
        ("c++", "c++"),
        ("c++11", ""),
        ("so: 🖕.", "🖕"),
        ("きみはばかだ", "ばか"),
        ("a small smith", ""),  # C4 leaves the commonest parts of words out of lists without spaces
        ("humbug", "humbug"),
    ],
)
def test_words(lists: list[str], text: str, word: str) -> None:
    assert found(lists, text) == (Drop("bad_words.found", word, 0) if word else None)


def test_a_list_of_a_language_is_for_its_documents(lists: list[str]) -> None:
    assert found(lists, "darn", "en") and not found(lists, "darn", "de") and found(lists, "darn")
    assert found(lists, "humbug", "de")


def test_some_may_stand(lists: list[str]) -> None:
    assert found(lists, "darn, darn", max_hits=2) is None
    assert found(lists, "darn the old goat and darn", max_hits=2) == Drop("bad_words.found", "old goat", 2)


def test_a_fraction_is_kept_by_id(lists: list[str]) -> None:
    rule = BadWords(rules.BadWords(lists=lists, keep_fraction=0.3))
    docs = [Document(str(i), "darn") for i in range(1000)]
    kept = [doc.id for doc in docs if rule(doc) is None]
    assert kept == [doc.id for doc in docs if chance(doc.id) < 0.3]
    assert 250 < len(kept) < 350
    assert sum(doc.counts.get("bad_words.kept", 0) for doc in docs) == len(kept)


def test_real_lists_as_datatrove(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.unpack_archive(shared_data / "lists" / "ldnoobw.tar.gz", tmp_path)
    monkeypatch.setattr(
        c4_filters, "cached_asset_path_or_download", lambda url, **_: str(tmp_path / "ldnoobw" / url[-2:])
    )
    for language in ("en", "ja"):
        rule = BadWords(rules.BadWords(lists=[str(tmp_path / "ldnoobw" / language)]))
        peer = c4_filters.C4BadWordsFilter(default_language=language)
        texts = real_texts(shared_data)[::3]
        drops = [agree(rule, peer, text[:3000], lambda _: "bad_words.found") for text in texts]
        assert any(drops) or language == "ja"


WORDS = ["ab", "a", "a b", "a-b", "b a", "_b", "-a", "b.", "é a", "ab-"]


@given(st.lists(st.sampled_from(WORDS), min_size=1), st.text("ab-_. é\n", max_size=20))
@settings(max_examples=400, deadline=None)
def test_a_word_list_finds_what_one_expression_finds(entries: list[str], text: str) -> None:
    expression = re.compile(r"(?:\W|^)({})(?:\W|$)".format("|".join(map(re.escape, sorted(entries)))))
    hits = list(WordList("", entries).hits(text, re.findall(r"\w+", text)))
    assert bool(hits) == bool(expression.search(text))
    assert all(hit in entries for hit in hits)
