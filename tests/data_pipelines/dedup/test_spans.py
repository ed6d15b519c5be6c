"""Paragraphs, lines and substrings: what goes and what stays, beside a reference that knows no shortcut."""

import gzip
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.dedup import cuts, deduplicate, order, runs, spans, substring
from data_pipelines.words import PATTERN, split
from fmtrain.errors import ConfigError
from fmtrain.schema.dedup import Dedup
from tests.data_pipelines.made_parts import Made, make_parts, make_scheduler

MANY = settings(max_examples=12, deadline=None)


@dataclass
class Found:
    """What is left of each document by its id, and why others went: reason, id of the keeper, share."""

    left: dict[str, str]
    gone: dict[str, tuple[str, str, float]]
    counts: dict[str, int]
    order: list[str]  # ids, the best first
    stays: dict[str, set[int]]  # code points that are left, by id


def found(documents: Sequence[Made], steps: Sequence[str], tasks: int = 2, **settings: Any) -> Found:
    config = Dedup(name="test", steps=list(steps), **settings)
    with tempfile.TemporaryDirectory() as folder, make_scheduler(Path(folder)) as scheduler:
        parts = make_parts(scheduler.parts, documents, tasks)
        result, cut = spans.cut(scheduler, config, parts, deduplicate(scheduler, config, parts, 1))
        assert cut is not None
        texts = {d["id"]: d["text"] for rank in range(tasks) for d in parts.documents(rank)}
        ids, rows = list(texts), result.open().tolist()
        ordered = [ids[row] for row in np.fromfile(order.rows_file(scheduler.parts), "<u8").tolist()]
        left, gone, stays = {}, {}, {}
        for row, (id_, (reason, keeper, value)) in enumerate(zip(ids, rows, strict=True)):
            if reason:
                assert rows[keeper][0] == 0 and keeper != row
                gone[id_] = (result.reasons[reason], ids[keeper], value)
            else:
                left[id_] = cut.apply(row, texts[id_])
                cut_out = {i for start, end in cut.spans(row) for i in range(start, end)}
                stays[id_] = set(range(len(texts[id_]))) - cut_out
        return Found(left, gone, result.counts, ordered, stays)


# ---------------------------------------------------------------------------------------------- the reference


Copies = dict[str, list[tuple[set[int], str]]]  # by id: code points that are a copy, and the id of the keeper


def reference_parts(documents: list[Made], step: str, config: Dedup) -> Copies:
    """`documents` in the order of preference."""
    seen: dict[str, list[Made]] = {}
    goes: Copies = {d.id: [] for d in documents}
    for document in documents:
        for start, end, after in units(document.text, step):
            text = document.text[start:end].strip()
            if len(text.split()) < config.min_paragraph_words:
                continue
            before = seen.setdefault(text, [])
            learnt = [d for d in before if not d.heldout or d.earlier]
            late = document.heldout and not document.earlier and before[:1] == learnt[:1] != []
            if (len(before) >= config.max_repeats or late) and not document.earlier:
                goes[document.id].append((set(range(start, after)), before[0].id))
            before.append(document)
    return goes


def units(text: str, step: str) -> list[tuple[int, int, int]]:
    pieces = text.split("\n")
    starts = [sum(len(p) + 1 for p in pieces[:i]) for i in range(len(pieces))]
    rows = [(s, s + len(p), min(s + len(p) + 1, len(text))) for s, p in zip(starts, pieces, strict=True)]
    if step == "lines":
        return [row for row in rows if row[0] < len(text)]
    blocks: list[list[tuple[int, int, int]]] = [[]]
    for row, piece in zip(rows, pieces, strict=True):
        if piece.strip():
            blocks[-1].append(row)
        elif blocks[-1]:
            blocks.append([])
    blocks = [b for b in blocks if b]
    ends = [*(b[0][0] for b in blocks[1:]), len(text)][: len(blocks)]
    return [(b[0][0], b[-1][1], after) for b, after in zip(blocks, ends, strict=True)]


def reference_substring(documents: list[Made], n: int) -> Copies:
    first: dict[tuple[str, ...], tuple[str, int]] = {}
    goes: Copies = {d.id: [] for d in documents}
    for document in documents:
        words = list(PATTERN.finditer(document.text))
        for at in range(len(words) - n + 1):
            window = tuple(w.group() for w in words[at : at + n])
            keeper, there = first.setdefault(window, (document.id, at))
            if (keeper, there) == (document.id, at) or document.earlier:
                continue
            begin = max(at, there + n) if keeper == document.id else at
            goes[document.id].append(({i for w in words[begin : at + n] for i in range(*w.span())}, keeper))
    return goes


def reference_left(documents: list[Made], each: dict[str, Copies]) -> dict[str, str]:
    """What is left of those that stay; only a keeper that stays counts."""
    left: dict[str, str] = {}
    for document in documents:
        goes: set[int] = set()
        for step, copies in each.items():
            some = {
                i for points, keeper in copies[document.id] if keeper in left or keeper == document.id for i in points
            }
            words = [w for w in PATTERN.finditer(document.text) if step == "substring"]
            for word, after in zip(words, words[1:], strict=False):
                if word.start() in some and after.start() in some:
                    some |= set(range(word.end(), after.start()))
            goes |= some
        text = "".join(c for i, c in enumerate(document.text) if i not in goes)
        if text.strip() or not goes:
            left[document.id] = text
    return left


def check(
    documents: list[Made],
    steps: list[str],
    tasks: int,
    expected: Callable[[list[Made]], dict[str, Copies]],
    **settings: Any,
) -> Found:
    """What is left of every document is what the reference leaves; white-only ones are gone."""
    seen = found(documents, steps, tasks, **settings)
    by_id = {d.id: d for d in documents}
    ordered = [by_id[id_] for id_ in seen.order]
    assert seen.left == reference_left(ordered, expected(ordered))
    return seen


WORDS = st.sampled_from(["a", "b", "c'd", "-", "é", "x.y"])
SPACES = st.sampled_from([" ", "  ", "\n", " \n\n", "\t"])


def corpora(piece: st.SearchStrategy[str]) -> st.SearchStrategy[list[Made]]:
    one = st.tuples(st.lists(piece, max_size=12).map("".join), st.booleans(), st.integers(0, 5))
    return st.lists(one, min_size=1, max_size=6).map(
        lambda rows: [
            Made(f"d{i}", text, heldout=held, earlier=early == 0) for i, (text, held, early) in enumerate(rows)
        ]
    )


LINES = st.sampled_from(
    ["one two\n", "one two", "three  four \n", "\n", " \t\n", "five\n", " one two \n", "six seven\r\n"]
)


@MANY
@given(
    documents=corpora(LINES),
    tasks=st.integers(1, 3),
    repeats=st.integers(1, 2),
    step=st.sampled_from(["lines", "paragraphs"]),
)
def test_parts_as_the_reference(documents: list[Made], tasks: int, repeats: int, step: str) -> None:
    config = {"min_paragraph_words": 2, "max_repeats": repeats}
    check(documents, [step], tasks, lambda ds: {step: reference_parts(ds, step, Dedup(**config))}, **config)


@MANY
@given(
    documents=corpora(st.lists(st.tuples(WORDS, SPACES).map("".join), min_size=1, max_size=6).map("".join)),
    tasks=st.integers(1, 3),
    n=st.integers(2, 6),
)
def test_substrings_as_the_reference(documents: list[Made], tasks: int, n: int) -> None:
    expected = lambda ds: {"substring": reference_substring(ds, n)}  # noqa: E731
    check(documents, ["substring"], tasks, expected, substring_words=n)


@MANY
@given(documents=corpora(LINES), tasks=st.integers(1, 3))
def test_steps_together_cut_what_each_cuts(documents: list[Made], tasks: int) -> None:
    config = Dedup(min_paragraph_words=2)

    def expected(ds: list[Made]) -> dict[str, Copies]:
        parts = {step: reference_parts(ds, step, config) for step in ("paragraphs", "lines")}
        return parts | {"substring": reference_substring(ds, 3)}

    steps = ["paragraphs", "lines", "substring"]
    seen = check(documents, steps, tasks, expected, min_paragraph_words=2, substring_words=3)
    cut = sum(n for name, n in seen.counts.items() if name.endswith("cut_bytes"))
    whole = {d.id: len(d.text.encode()) for d in documents}
    assert cut == sum(whole[id_] - len(text.encode()) for id_, text in seen.left.items())
    assert len(seen.gone) == sum(n for name, n in seen.counts.items() if name.startswith("dedup."))


@MANY
@given(documents=corpora(LINES), seed=st.randoms())
def test_neither_tasks_nor_order_matter(documents: list[Made], seed: Any) -> None:
    documents = [replace(d, text=d.text + f"\n\n{i}") for i, d in enumerate(documents)]
    steps = ["paragraphs", "substring"]
    config = {"min_paragraph_words": 2, "substring_words": 3}
    one = found(documents, steps, 1, **config)
    seed.shuffle(documents)
    other = found(documents, steps, 3, **config)
    assert (one.left, one.gone, one.counts) == (other.left, other.gone, other.counts)


# ---------------------------------------------------------------------------------------------- by hand

SPAN_ = " ".join(f"w{i}" for i in range(12))
LONG = "The best of all by its length, " + " ".join(f"u{i}" for i in range(60))


def test_the_repeated_span_is_cut_at_words_and_the_longest_document_keeps_it() -> None:
    documents = [Made("long", f"{LONG}. {SPAN_} end."), Made("short", f"Mine, {SPAN_}; and more of my own words here.")]
    seen = found(documents, ["substring"], substring_words=12)
    assert seen.left == {"long": documents[0].text, "short": "Mine, ; and more of my own words here."}
    assert seen.counts["substring.cut_documents"] == 1 and seen.counts["substring.cut_bytes"] == len(SPAN_)


def test_a_document_goes_whole_where_nothing_is_left_or_where_drop_says_so() -> None:
    documents = [Made("long", f"{LONG} {SPAN_}"), Made("short", f"{SPAN_} a b"), Made("all", f" {SPAN_}\n")]
    seen = found(documents, ["substring"], substring_words=12)
    assert seen.left == {"long": documents[0].text, "short": " a b"}
    assert seen.gone == {"all": ("dedup.substring", "long", 1.0)} and seen.counts["dedup.substring"] == 1
    assert found(documents, ["substring"], substring_words=13).gone == {}
    dropped = found(documents, ["substring"], substring_words=12, substring_action="drop")
    assert {id_: keeper for id_, (_, keeper, _) in dropped.gone.items()} == {"short": "long", "all": "long"}
    assert 0.9 < dropped.gone["short"][2] < 1 and dropped.left == {"long": documents[0].text}


def test_what_repeats_itself_is_cut_but_never_goes() -> None:
    documents = [Made("a", " ".join([SPAN_] * 9)), Made("b", "quite another text")]
    assert found(documents, ["substring"], substring_words=12).left["a"].strip() == SPAN_
    kept = found(documents, ["substring"], substring_words=12, substring_action="drop")
    assert kept.left["a"] == documents[0].text and not kept.gone


def test_held_out_loses_to_training_and_earlier_is_never_cut() -> None:
    long = Made("held", f"{LONG}\n\n{SPAN_}", heldout=True)
    documents = [long, Made("train", f"{SPAN_}\n\nmine alone"), Made("early", f"{SPAN_}\n\nof before", earlier=True)]
    for steps in (["paragraphs"], ["lines"], ["substring"]):
        seen = found(documents, steps, substring_words=12)
        assert SPAN_ not in seen.left["held"] and SPAN_ not in seen.left["train"]
        assert seen.left["early"] == documents[2].text
        two = found(documents[:2], steps, substring_words=12, max_repeats=2)
        assert SPAN_ not in two.left["held"] and two.left["train"] == documents[1].text


def test_a_keeper_that_goes_later_is_replaced_by_its_own() -> None:
    copy = f"{SPAN_} tail"
    documents = [Made("a", f"{LONG}\n\n{SPAN_}"), Made("b", f"{SPAN_}"), Made("c", f"{SPAN_}")]
    seen = found(documents, ["exact", "paragraphs"])
    assert {seen.gone[id_][1] for id_ in ("b", "c")} == {"a"} and copy not in seen.left["a"]
    assert sorted(reason for reason, _, _ in seen.gone.values()) == ["dedup.exact", "dedup.paragraphs"]


def test_a_collision_of_hashes_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every window under one hash: only those whose words are the first window's are cut."""
    monkeypatch.setattr(substring, "grams", lambda hashes, n: np.zeros(max(len(hashes) - n + 1, 0), np.uint64))
    documents = [Made("a", f"{SPAN_} {LONG}"), Made("b", f"{SPAN_} {' '.join(f'v{i}' for i in range(30))}")]
    seen = found(documents, ["substring"], substring_words=12)
    assert seen.left["a"] == documents[0].text
    assert seen.left["b"] == documents[1].text.removeprefix(SPAN_)


def test_many_ranges_and_small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where every step's records fill many runs."""
    documents = [
        Made(f"d{i}", "\n\n".join(f"p{i * 7 % (j + 2)} q{j} r s t" for j in range(20)), heldout=i % 5 == 0)
        for i in range(16)
    ]
    steps = ["paragraphs", "lines", "substring"]
    whole = found(documents, steps, substring_words=8)
    for function, number in ((runs.Writer.__init__, 0), (runs.merge, 0)):
        assert "budget" in function.__code__.co_varnames, number
    monkeypatch.setattr(runs.Writer.__init__, "__defaults__", (400,))
    monkeypatch.setattr(runs.merge, "__kwdefaults__", {**(runs.merge.__kwdefaults__ or {}), "budget": 600})
    monkeypatch.setattr(cuts, "BUDGET", 300)
    monkeypatch.setattr(cuts, "_LEAST", 300)
    small = found(documents, steps, 3, substring_words=8)
    assert (whole.left, whole.gone, whole.counts) == (small.left, small.gone, small.counts)


def test_settings_that_mean_nothing_are_refused() -> None:
    for name, value in (("substring_action", "mark"), ("substring_words", 1), ("max_repeats", 0)):
        with pytest.raises(ConfigError, match=f"dedup.{name}"):
            found([Made("a", "text")], ["substring"], **{name: value})


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.sampled_from("abcd"), max_size=40), n=st.integers(2, 9))
def test_equal_windows_choose_equal_spans(words: list[str], n: int) -> None:
    """Winnowing's guarantee, which makes the short way complete."""
    keys, chosen = substring.anchors(split(" ".join(words)).hashes, n)
    assert len(chosen) == max(len(words) - n + 1, 0)
    by_window: dict[tuple[str, ...], set[int]] = {}
    for at, where in enumerate(chosen.tolist()):
        assert at <= where <= at + n - max(n // 2, 1)
        by_window.setdefault(tuple(words[at : at + n]), set()).add(where - at)
    assert all(len(places) == 1 for places in by_window.values())


def test_licences_as_the_reference(shared_data: Path) -> None:
    """Real texts that share long passages: the same is cut as the reference cuts."""
    with gzip.open(shared_data / "dedup" / "spdx_licenses.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(80), strict=False)]
    documents = [Made(str(i), row["text"], heldout=i % 9 == 0) for i, row in enumerate(rows)]
    expected = lambda ds: {"substring": reference_substring(ds, 50)}  # noqa: E731
    seen = check(documents, ["substring"], 3, expected)
    assert seen.counts["substring.cut_documents"] > 10
