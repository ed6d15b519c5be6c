"""Preference accuracy, its baselines, and the verdict's words."""

import pytest

from fmtrain.evaluate.inputs import PairText
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.preference import (
    IMPLICIT,
    Column,
    PairScores,
    implicit_reward,
    model_columns,
    score,
    trivial_columns,
    verdict,
)
from fmtrain.evaluate.scoring import Scored

PROMPT = [{"role": "user", "content": 'def f(x):\n    """Double."""\n'}]
BOOTSTRAP = Bootstrap(200, 1)


def pair(number: int, chosen: str, rejected: str, kind: str = "foreign_name") -> PairText:
    return PairText(f"p{number}", f"g{number % 3}", kind, PROMPT, chosen, rejected)


PAIRS = [
    pair(0, "    return x + x", "    return x + xx"),
    pair(1, "    return 2 * x", "    return 2 * (x"),
    pair(2, "    return x * 2", "    return y * 2"),
]


def test_trivial_baselines() -> None:
    shorter, longer, parses = trivial_columns(PAIRS)
    assert shorter.margins == [1.0, 1.0, 0.0]
    assert longer.margins == [-1.0, -1.0, 0.0]
    assert parses.margins == [0.0, 1.0, 0.0]
    found = score(parses, PAIRS, "all", BOOTSTRAP)
    assert (found.accuracy.value, found.ties, found.pairs, found.groups) == (pytest.approx(2 / 3), 2, 3, 3)


def test_given_pairs_are_not_parsed() -> None:
    assert [c.scorer for c in trivial_columns([pair(0, "yes", "no", "given")])] == [
        "shorter response",
        "longer response",
    ]


def test_log_probabilities_and_implicit_reward() -> None:
    scores = PairScores([Scored(-10.0, 5), Scored(-4.0, 2)], [Scored(-9.0, 3), Scored(-5.0, 5)])
    summed, mean = model_columns("sft", scores, baseline=True)
    assert summed.margins == [-1.0, 1.0]
    assert mean.margins == [1.0, -1.0]
    assert implicit_reward("dpo", scores, [(-12.0, -9.0), (-4.0, -6.0)]).margins == [2.0, -1.0]


def test_only_the_kind_asked_for_counts() -> None:
    pairs = [pair(0, "a", "b", "one"), pair(1, "a", "b", "two"), pair(2, "a", "b", "two")]
    column = Column("s", False, [1.0, 1.0, -1.0])
    assert score(column, pairs, "one", BOOTSTRAP).accuracy.value == 1.0
    assert score(column, pairs, "two", BOOTSTRAP).accuracy.value == 0.5


@pytest.mark.parametrize(
    ("ours", "holds", "words"),
    [
        ([1.0, 1.0, 1.0], True, "right in 100.0% of 3 pairs"),
        ([1.0, -1.0, -1.0], False, "right in 33.3% of 3 pairs"),
        ([1.0, 1.0, -1.0], False, "right in 66.7% of 3 pairs"),  # no better than the best baseline: it does not beat it
    ],
)
def test_verdict_says_what_the_numbers_say(ours: list[float], holds: bool, words: str) -> None:
    columns = [
        Column("weak", True, [-1.0, -1.0, -1.0]),
        Column("strong", True, [1.0, 1.0, -1.0]),
        Column("dpo: summed log-probability", False, [1.0, 1.0, 1.0]),  # the model's own, no baseline
        mine := Column(f"dpo{IMPLICIT}", False, ours),
    ]
    found = verdict(mine, columns, PAIRS, "foreign_name", True, BOOTSTRAP)
    assert found.holds is holds
    assert f"On the held-out kind foreign_name the implicit reward of dpo is {words}" in found.sentence
    assert "the best baseline, strong, in 66.7%" in found.sentence
    assert f"it {'does' if holds else 'does not'} beat every baseline" in found.sentence
    assert found.difference.value == pytest.approx(found.value - found.baseline_value)
