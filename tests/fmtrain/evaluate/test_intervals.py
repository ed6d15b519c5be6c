"""The bootstrap on cases whose answer is known."""

import numpy as np
import pytest

from fmtrain.evaluate.intervals import Bootstrap, ratio


def test_equal_units_have_no_spread() -> None:
    found = ratio([2.0] * 9, [4.0] * 9, 500, 1)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    found = ratio(values.tolist(), [1.0] * 400, 4000, 1)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_it_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    assert ratio([1.0, 30.0], [1.0, 10.0], 100, 1).value == pytest.approx(31 / 11)


def test_a_seed_draws_the_same_and_another_does_not() -> None:
    values = [float(i * i % 17) for i in range(40)]
    ones = [1.0] * 40
    assert ratio(values, ones, 200, 1) == ratio(values, ones, 200, 1) != ratio(values, ones, 200, 2)


def test_groups_are_drawn_whole() -> None:
    # two groups of many rows, one all right and one all wrong: the interval must reach from 0 to 1
    rows = [1.0] * 50 + [0.0] * 50
    found = Bootstrap(500, 1).grouped(["a"] * 50 + ["b"] * 50, rows, [1.0] * 100)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    alone = Bootstrap(500, 1).ratio(rows, [1.0] * 100)
    assert alone.high - alone.low < 0.25


def test_nothing_to_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to estimate"):
        ratio([], [], 10, 1)
