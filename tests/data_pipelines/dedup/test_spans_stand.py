"""Text that stood in a document still stands somewhere after copies inside documents are cut or dropped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.words import PATTERN
from tests.data_pipelines.dedup.test_spans import corpora, found, units
from tests.data_pipelines.made_parts import Made

NOTHING_LOST = settings(max_examples=12, deadline=None)


def text_of(letter: str, n: int = 12) -> str:
    return " ".join(f"{letter}{i}" for i in range(n))


@pytest.mark.parametrize("tasks", [1, 3])
def test_nothing_is_dropped_for_a_document_that_went(tasks: int) -> None:
    """g and f share x, f and h share y: f goes for g, and h, which is now the only one with y, stays."""
    x, y = text_of("x"), text_of("y")
    documents = [
        Made("h", f"{y} of h"),
        Made("f", f"{x} {y} and a little more: f"),
        Made("g", f"{x} of g {text_of('g', 60)}"),
    ]
    seen = found(documents, ["substring"], tasks, substring_words=12, substring_action="drop")
    assert {id_: keeper for id_, (_, keeper, _) in seen.gone.items()} == {"f": "g"} and "h" in seen.left
    cut = found(documents, ["substring"], tasks, substring_words=12)
    assert cut.left["h"] == " of h" and y in cut.left["f"] and x not in cut.left["f"]


def test_paragraphs_are_cut_for_what_drop_leaves_only() -> None:
    """f has the first `p`, and is dropped for g: of the others the first keeps it."""
    x, p = text_of("x"), text_of("p", 6)
    documents = [
        Made("g", f"{x} of g {text_of('g', 60)}"),
        Made("f", f"{x} of f {text_of('f', 30)}\n\n{p}"),
        Made("h", f"{p}\n\n of h {text_of('h', 20)}"),
        Made("i", f"{p}\n\nof i"),
    ]
    seen = found(documents, ["paragraphs", "substring"], substring_words=12, substring_action="drop")
    assert list(seen.gone) == ["f"] and seen.left["h"] == documents[2].text and seen.left["i"] == "of i"


def test_what_another_was_dropped_for_is_not_emptied() -> None:
    """k was dropped for a, all of whose paragraphs stand elsewhere: a stays as it is."""
    p, q = text_of("p", 6), text_of("q", 6)
    documents = [
        Made("y", f"{p}\n\n{text_of('y', 60)}"),
        Made("z", f"{q}\n\n{text_of('z', 60)}"),
        Made("a", f"{p}\n\n{q}"),
        Made("k", f"{p} {q}"),
    ]
    steps = ["paragraphs", "substring"]
    seen = found(documents, steps, substring_words=12, substring_action="drop")
    assert {id_: keeper for id_, (_, keeper, _) in seen.gone.items()} == {"k": "a"}
    assert seen.left["a"] == documents[2].text
    cut = found(documents, steps, substring_words=12)
    assert list(cut.gone) == ["a"] and cut.left["k"] == documents[3].text


PIECES = st.sampled_from(["a b\n", "c d e\n", "a b\nc d e\n", "\n", "f\n", "g h i ", "c d e f ", " a b \n", "f g\n"])


@NOTHING_LOST
@given(
    documents=corpora(PIECES),
    tasks=st.integers(1, 2),
    repeats=st.integers(1, 2),
    steps=st.sampled_from([["lines"], ["paragraphs"], ["paragraphs", "lines"]]),
)
def test_every_line_and_paragraph_still_stands(
    documents: list[Made], tasks: int, repeats: int, steps: list[str]
) -> None:
    """Lines of any length do; paragraphs as such where lines are not cut from them."""
    seen = found(documents, steps, tasks, min_paragraph_words=2, max_repeats=repeats)
    for unit in ["lines"] + (["paragraphs"] if steps == ["paragraphs"] else []):
        before = {d.text[s:e].strip() for d in documents for s, e, _ in units(d.text, unit)}
        after = {text[s:e].strip() for text in seen.left.values() for s, e, _ in units(text, unit)}
        assert before - {""} <= after


def windows(text: str, n: int) -> set[tuple[str, ...]]:
    words = [w.group() for w in PATTERN.finditer(text)]
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@NOTHING_LOST
@given(documents=corpora(PIECES), tasks=st.integers(1, 2), n=st.integers(2, 5))
def test_every_window_of_two_documents_still_stands_after_drop(documents: list[Made], tasks: int, n: int) -> None:
    seen = found(documents, ["substring"], tasks, substring_words=n, substring_action="drop")
    texts = {d.id: windows(d.text, n) for d in documents}
    stands = set().union(*(texts[id_] for id_ in seen.left))
    assert all(seen.left[d.id] == d.text for d in documents if d.id in seen.left)
    for id_, (_, keeper, _) in seen.gone.items():
        assert texts[id_] & texts[keeper]
        for other in texts:
            assert other == id_ or texts[id_] & texts[other] <= stands


@NOTHING_LOST
@given(
    documents=corpora(PIECES),
    tasks=st.integers(1, 2),
    n=st.integers(2, 5),
    steps=st.sampled_from([["substring"], ["paragraphs", "substring"], ["paragraphs", "lines", "substring"]]),
)
def test_every_word_of_every_window_still_stands_after_cut(
    documents: list[Made], tasks: int, n: int, steps: list[str]
) -> None:
    """A word that was cut leads, by an equal part of a document that stays, and again, to one that was not cut."""
    seen = found(documents, steps, tasks, substring_words=n, min_paragraph_words=2)
    by_id = {d.id: d for d in documents}
    known: set[tuple[str, ...]] = set()  # parts of documents that stay, of those that are better
    for id_ in seen.order:
        text, own = by_id[id_].text, set()
        words = list(PATTERN.finditer(text))
        parts = [(i, i + n) for i in range(len(words) - n + 1) if "substring" in steps]
        for step in set(steps) - {"substring"}:
            for start, end, _ in units(text, step):
                inside = [i for i, w in enumerate(words) if start <= w.start() < end]
                parts += [(inside[0], inside[-1] + 1)] if inside else []
        copies: set[int] = set()
        for begin, end in sorted(parts):
            part = tuple(w.group() for w in words[begin:end])
            copies |= set(range(begin, end)) if part in known | own else set()
            own.add(part)
        assert all(i in copies or word.start() in seen.stays.get(id_, ()) for i, word in enumerate(words))
        known |= own if id_ in seen.left else set()
