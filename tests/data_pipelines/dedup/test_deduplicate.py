"""Documents in, what goes out: by the documents alone, to a keeper that stays, and never by a chain."""

import gzip
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.dedup import Result, deduplicate, near, runs
from data_pipelines.dedup.near import jaccard
from data_pipelines.dedup.signatures import Shape, Signer
from data_pipelines.words import split
from fmtrain.schema.dedup import Dedup
from tests.data_pipelines.made_parts import Made, make_parts, make_scheduler

ALL = ("exact", "normalised", "url", "minhash")
Removed = dict[str, tuple[str, str, float]]  # id -> reason, id of the keeper, value


def removed(
    documents: Sequence[Made], steps: Sequence[str] = ALL, tasks: int = 1, **settings: Any
) -> tuple[Removed, Result]:
    """What goes of the documents."""
    with tempfile.TemporaryDirectory() as folder, make_scheduler(Path(folder)) as scheduler:
        parts = make_parts(scheduler.parts, documents, tasks)
        result = deduplicate(scheduler, Dedup(name="test", steps=list(steps), **settings), parts, 1)
        ids = [document["id"] for rank in range(tasks) for document in parts.documents(rank)]
        rows = result.open().tolist()
    assert len(rows) == len(documents)
    gone = {}
    for id_, (reason, keeper, value) in zip(ids, rows, strict=True):
        if reason:
            assert rows[keeper][0] == 0, "the keeper is gone itself"
            gone[id_] = (result.reasons[reason], ids[keeper], value)
    assert sum(n for name, n in result.counts.items() if name.startswith("dedup.")) == len(gone)
    return gone, result


def prose(seed: int, words: int = 200) -> list[str]:
    numbers = random.Random(seed)
    return [f"w{numbers.randrange(5000)}" for _ in range(words)]


def edited(words: list[str], places: Sequence[int]) -> list[str]:
    return [f"new{i}" if i in places else word for i, word in enumerate(words)]


def similarity(one: str, other: str) -> float:
    """Exact Jaccard of word 5-grams, in plain Python."""
    grams = []
    for text in (one, other):
        words = split(text.lower())
        some = [h for h, symbol in zip(words.hashes.tolist(), words.symbols.tolist(), strict=True) if not symbol]
        grams.append({tuple(some[i : i + 5]) for i in range(max(1, len(some) - 4))})
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def family(seed: int, members: int = 4) -> list[Made]:
    """A document, and versions of it in which up to some twenty words are others."""
    numbers = random.Random(seed)
    words = prose(seed)
    versions = [edited(words, numbers.sample(range(200), numbers.randrange(0, 22))) for _ in range(members)]
    return [
        Made(
            f"{seed}.{i}",
            " ".join(version),
            url=f"http://a.org/{numbers.randrange(30)}",
            date=numbers.randrange(3),
            score=numbers.random(),
            heldout=numbers.random() < 0.2,
            earlier=numbers.random() < 0.1,
        )
        for i, version in enumerate(versions)
    ]


@given(st.integers(0, 10_000), st.sampled_from(["longest", "newest", "score"]), st.sampled_from([0.5, 0.7]))
@settings(max_examples=4, deadline=None)
def test_result_depends_on_the_documents_alone(seed: int, keep: str, threshold: float) -> None:
    documents = [document for k in range(12) for document in family(100 * seed + k)]
    texts = {document.id: document.text for document in documents}
    earlier = {document.id for document in documents if document.earlier}
    found, first = removed(documents, keep=keep, threshold=threshold)
    for tasks in (2, 3):
        shuffled = random.Random(tasks).sample(documents, len(documents))
        again, result = removed(shuffled, tasks=tasks, keep=keep, threshold=threshold)
        assert again == found
        assert (result.counts, result.largest.copies) == (first.counts, first.largest.copies)
    assert found
    for id_, (reason, keeper, value) in found.items():
        assert id_ not in earlier
        if reason == "dedup.minhash":
            assert similarity(texts[id_], texts[keeper]) == pytest.approx(value) and value >= threshold


def test_result_is_the_same_out_of_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for few records at a time there are many runs and many ranges."""
    documents = [document for k in range(40) for document in family(k)]
    whole, result = removed(documents, tasks=2)
    monkeypatch.setattr(runs, "BUDGET", 2000)
    monkeypatch.setattr(near, "_EDGES", 20)
    monkeypatch.setattr(near, "_CACHE", 10_000)
    pieces, again = removed(documents, tasks=2)
    assert pieces == whole and (again.counts, again.largest) == (result.counts, result.largest)


def test_similarity_does_not_chain() -> None:
    """b is like a, c is like b and not like a: b goes in favour of a, and c stays, since b does not."""
    words = prose(1)
    b = edited(words, range(0, 60))
    documents = [
        Made("a", " ".join([*words, *prose(9, 20)])),
        Made("b", " ".join([*b, *prose(9, 10)])),
        Made("c", " ".join(edited(b, range(140, 200)))),
    ]
    assert similarity(documents[0].text, documents[1].text) > 0.5 < similarity(documents[1].text, documents[2].text)
    assert similarity(documents[0].text, documents[2].text) < 0.5
    found, _ = removed(documents, ["minhash"], bands=60, rows=2)
    assert {id_: keeper for id_, (_, keeper, _) in found.items()} == {"b": "a"}


def test_the_keeper_of_a_copy_goes_as_a_near_copy() -> None:
    words = prose(1)
    longest, middle = " ".join([*words, "more", "words"]), " ".join(edited(words, [50]))
    documents = [Made("a", middle), Made("b", middle), Made("c", longest), Made("d", middle.upper())]
    found, result = removed(documents)
    assert {id_: (reason, keeper) for id_, (reason, keeper, _) in found.items()} == {
        **{min("ab", key=lambda i: i not in found): ("", "")},
        **{id_: (found[id_][0], "c") for id_ in "abd"},
    }
    assert sorted(reason for reason, _, _ in found.values()) == ["dedup.exact", "dedup.minhash", "dedup.normalised"]
    assert result.largest.copies == 3 and result.largest.row == 2


@pytest.mark.parametrize(("keep", "best"), [("longest", "long"), ("newest", "new"), ("score", "good")])
def test_the_best_stays(keep: str, best: str) -> None:
    words = prose(3)
    documents = [
        Made("long", " ".join([*words, "longer"]), date=1, score=-2.0),
        Made("new", " ".join(words), date=9, score=-1.0),
        Made("good", " ".join(words[1:]), date=-5, score=0.5),
        Made("heldout", " ".join([*words, *words[:9]]), date=99, score=9.0, heldout=True),
    ]
    found, _ = removed(documents, keep=keep)
    assert {keeper for _, keeper, _ in found.values()} == {best}
    documents.append(Made("old", " ".join(words[:190]), earlier=True))
    found, _ = removed(documents, keep=keep)
    assert set(found) == {"long", "new", "good", "heldout"}


def test_a_large_band_is_compared_with_its_best_documents() -> None:
    """Forty copies of each of two documents that differ only in what a band does not see."""
    words = prose(5, 400)
    documents = [Made(f"{i:03}", " ".join(edited(words, [i, i + 100]))) for i in range(80)]
    found, result = removed(documents, ["minhash"])
    assert len(found) == 79 and result.largest.copies == 79
    assert result.counts["candidates"] < 80 * 79 / 2


def test_addresses_are_of_documents_that_are_there() -> None:
    """The copy that went had the address of another page: that page stays."""
    documents = [
        Made("a", "one text here", url="http://a.org/1"),
        Made("b", "one text here", url="http://a.org/2"),
        Made("c", "other", url="http://a.org/1"),
        Made("d", "third", url="http://a.org/2"),
        Made("e", "no address"),
        Made("f", "nor here"),
    ]
    found, _ = removed(documents, ["exact", "url"])
    gone = "b" if "b" in found else "a"
    url_of_gone = {"a": "c", "b": "d"}[gone]
    assert url_of_gone not in found and len(found) == 2


@pytest.mark.parametrize("tasks", [1, 3])
def test_few_words_and_no_documents(tasks: int) -> None:
    texts = ["", "!!! ...", "?", "one word", "One  word!", "two", "東京都"]
    found, _ = removed([Made(str(i), text) for i, text in enumerate(texts)], ["minhash"], tasks=tasks)
    assert {frozenset((id_, keeper)) for id_, (_, keeper, _) in found.items()} == {frozenset("34")}
    assert removed([], tasks=tasks)[0] == {}
    assert removed([Made("a", "b")], [], tasks=tasks)[0] == {}


def test_licences(shared_data: Path) -> None:
    """Real near copies of every degree: what goes is similar to what stays, and of two that are alike one goes."""
    with gzip.open(shared_data / "dedup" / "spdx_licenses.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [Made(row["id"], row["text"]) for row in map(json.loads, lines)]
    found, result = removed(documents, ["exact", "minhash"], tasks=2)
    texts = {document.id: document.text for document in documents}
    for id_, (_, keeper, value) in found.items():
        assert similarity(texts[id_], texts[keeper]) == pytest.approx(value, abs=1e-6) and value >= 0.5
    assert result.counts["dedup.exact"] == len(documents) - len(set(texts.values()))
    kept = [text for id_, text in texts.items() if id_ not in found]
    signer = Signer(Shape(5, 1, 1, 0))
    sets = [signer.shingle_set(text) for text in kept]
    pairs = (jaccard(a, b, 0.75) for i, a in enumerate(sets) for b in sets[:i] if len(a) and len(b))
    assert sum(value >= 0.75 for value in pairs) == 0


@pytest.mark.parametrize(("bands", "rows"), [(20, 5), (14, 8), (40, 2)])
def test_bands_meet_as_often_as_the_formula_says(bands: int, rows: int) -> None:
    """Sets of a known Jaccard of .6: their bands are equal with probability .6 ** rows, and no other band is."""
    signer, numbers = Signer(Shape(5, bands, rows, 7)), np.random.default_rng(5)
    pairs, met = 300, 0
    for _ in range(pairs):
        shared, one, other = (numbers.integers(0, 1 << 63, size).astype(np.uint64) for size in (300, 100, 100))
        a, b = (signer.bands_of(np.concatenate([shared, own])) for own in (one, other))
        met += len(np.intersect1d(a, b))
        assert set(np.intersect1d(a, b)) == set(a[a == b])
    expected = 0.6**rows * bands * pairs
    assert abs(met - expected) < 4 * expected**0.5 + 0.05 * expected
