"""Gopher's rules decide as datatrove's filters do, and say by how much."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import (
    GopherRepetitionFilter,
    find_all_duplicate,
    find_top_duplicate,
    get_n_grams,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.gopher import GopherQuality, GopherRepetition
from data_pipelines.filters.ngrams import first_broken
from data_pipelines.words import PATTERN, split
from fmtrain.schema import rules
from tests.data_pipelines.datatrove_words import OUR_WORDS
from tests.data_pipelines.filters.peer import agree, made_texts, real_texts

PROSE = "The people of the town have to be with the river, and that is the end of the story they tell. " * 10
QUALITY = {
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "few_alpha_words",
    "gopher_enough_stop_words": "few_stop_words",
}


def quality_reason(theirs: str) -> str:
    return f"gopher_quality.{QUALITY[theirs]}"


def repetition_reason(theirs: str) -> str:
    return f"gopher_repetition.{theirs.replace('duplicated', 'dup').replace('n_grams', 'gram')}"


def quality_peer(config: rules.GopherQuality) -> GopherQualityFilter:
    limits = {name: value for name, value in dataclasses.asdict(config).items() if name != "view"}
    return GopherQualityFilter(**limits, language=OUR_WORDS)


def repetition_peer(config: rules.GopherRepetition) -> GopherRepetitionFilter:
    limits = {name: value for name, value in dataclasses.asdict(config).items() if name != "view"}
    top, repeated = limits.pop("top_n_grams"), limits.pop("dup_n_grams")
    return GopherRepetitionFilter(
        **limits,
        top_n_grams=tuple(enumerate(top, 2)),
        dup_n_grams=tuple(enumerate(repeated, 5)),
        language=OUR_WORDS,
    )


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        (PROSE, None),
        (PROSE[:60], Drop("gopher_quality.too_few_words", 14, 50)),
        ("", Drop("gopher_quality.too_few_words", 0, 50)),
        ("... -- " * 90, Drop("gopher_quality.too_few_words", 0, 50)),
        ("I am it. " * 30, Drop("gopher_quality.short_words", 5 / 3, 3.0)),
        ("internationalisation " * 60, Drop("gopher_quality.long_words", 20.0, 10.0)),
        (PROSE.replace("river", "#"), None),
        (PROSE.replace("the ", "# "), Drop("gopher_quality.hashes", 4 / 23, 0.1)),
        (PROSE.replace("the ", "… "), Drop("gopher_quality.ellipses", 4 / 23, 0.1)),
        ("".join(f"- {s}\n" for s in PROSE.split(".") if s.strip()), Drop("gopher_quality.bullet_lines", 1.0, 0.9)),
        ("\n".join([PROSE, *["It goes on ..."] * 5]), Drop("gopher_quality.ellipsis_lines", 5 / 6, 0.3)),
        (PROSE + "1234 " * 60, Drop("gopher_quality.few_alpha_words", 210 / 290, 0.8)),
        ("banana orange melon cherry lemon grape " * 20, Drop("gopher_quality.few_stop_words", 0, 2)),
    ],
)
def test_quality_reasons(text: str, drop: Drop | None) -> None:
    assert GopherQuality(rules.GopherQuality())(Document("x", text)) == drop


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("One of a kind.\n\nTwo by two.\n\nTwo by two.", "dup_para_frac"),
        ("A.\n\nB.\n\nC.\n\n" + f"{'x' * 300}\n\n" * 2, "dup_para_char_frac"),
        ("of two\nof two\n", "dup_line_frac"),
        (f"a\nb\nc\nd\n{'y' * 300}\n" + f"{'z' * 300}\n" * 2, "dup_line_char_frac"),
        ("the cat saw the cat and the cat", "top_2_gram"),
    ],
)
def test_repetition_reasons(text: str, reason: str) -> None:
    drop = GopherRepetition(rules.GopherRepetition())(Document("x", text))
    assert drop is not None and drop.rule == f"gopher_repetition.{reason}"
    if reason == "top_2_gram":
        assert (drop.value, drop.threshold) == (3 * len("the cat") / len(text), 0.2)


@pytest.mark.parametrize("n", range(2, 11))
def test_each_n_gram_has_its_limit(n: int) -> None:
    config = rules.GopherRepetition()
    limits = config.top_n_grams + config.dup_n_grams
    changed = [1e9] * (n - 2) + limits[n - 2 :]
    rule = GopherRepetition(dataclasses.replace(config, top_n_grams=changed[:3], dup_n_grams=changed[3:]))
    drop = rule(Document("x", "tremendously extraordinary words that come again and again in other places " * 3))
    assert drop is not None and drop.rule == f"gopher_repetition.{'top' if n < 5 else 'dup'}_{n}_gram"
    assert drop.threshold == limits[n - 2]


def test_limits_are_the_configuration_s() -> None:
    text = Document("x", PROSE)
    assert GopherQuality(rules.GopherQuality(max_doc_words=60))(text) == Drop("gopher_quality.too_many_words", 210, 60)
    assert GopherQuality(rules.GopherQuality(min_doc_words=5))(Document("x", PROSE[:60])) is None
    assert GopherQuality(rules.GopherQuality(stop_words=["river", "sea"]))(text) is not None
    assert GopherQuality(rules.GopherQuality(stop_words=["river", "town"]))(text) is None


def counted(text: str, n: int, top: bool) -> int:
    """Characters of the n-grams of a text, found through limits that are broken by that n alone."""
    limits = np.append(np.full(n - (2 if top else 5), 1e9), -1e-9)
    none = np.array([])
    return first_broken(split(text), 1, *((limits, none) if top else (none, limits)))[1]


@given(made_texts(), st.integers(2, 10))
@settings(max_examples=300, deadline=None)
@example("ab c d e f a bc d e f", 5)  # without spaces both are abcdef
@example("a b a b", 2)
def test_n_grams_are_counted_as_datatrove_counts_them(text: str, n: int) -> None:
    words = PATTERN.findall(text)
    if len(words) >= n:
        assert counted(text, n, top=True) == find_top_duplicate(get_n_grams(words, n))
        assert n < 5 or counted(text, n, top=False) == find_all_duplicate(words, n)
    else:
        assert counted(text, n, top=True) == 0


def test_real_texts_as_datatrove(shared_data: Path) -> None:
    quality, repetition = rules.GopherQuality(), rules.GopherRepetition()
    ours = GopherQuality(quality), GopherRepetition(repetition)
    theirs = quality_peer(quality), repetition_peer(repetition)
    reasons = set()
    for text in real_texts(shared_data)[::2]:
        reasons.add(agree(ours[0], theirs[0], text, quality_reason))
        reasons.add(agree(ours[1], theirs[1], text, repetition_reason))
    assert len({drop.rule for drop in reasons if drop}) >= 10


def limits(default: Any) -> st.SearchStrategy[Any]:
    """A configuration with every limit at its default, at none, or so low that short texts meet it."""
    fields = {}
    for f in dataclasses.fields(default):
        value = getattr(default, f.name)
        if isinstance(value, list):
            if value and isinstance(value[0], float):
                fields[f.name] = st.sampled_from([value, [v / 4 for v in value], value[:1], [2.0 for _ in value]])
        elif not isinstance(value, str):
            fields[f.name] = st.sampled_from([value, type(value)(value / 10), type(value)(0), type(value)(value * 3)])
    return st.builds(type(default), **fields)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # datatrove's mean of no words
@given(made_texts(), limits(rules.GopherQuality()))
@settings(max_examples=400, deadline=None)
@example("-- ..", rules.GopherQuality(min_doc_words=0))
def test_any_text_s_quality_as_datatrove(text: str, config: rules.GopherQuality) -> None:
    rule = GopherQuality(config)
    if PATTERN.search(text):
        agree(rule, quality_peer(config), text, quality_reason)
    else:  # datatrove divides by no words
        drop = rule(Document("x", text))
        assert drop is not None and drop.rule == "gopher_quality.too_few_words"


@given(made_texts(), limits(rules.GopherRepetition()))
@settings(max_examples=400, deadline=None)
def test_any_text_s_repetition_as_datatrove(text: str, config: rules.GopherRepetition) -> None:
    agree(GopherRepetition(config), repetition_peer(config), text, repetition_reason)
