"""95% bootstrap intervals of a ratio of sums over units (documents, modules). Knows nothing of what is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fmtrain.evaluate.records import Estimate

_AT_ONCE = 1 << 22  # drawn indices held at a time


def ratio(numerator: Sequence[float], denominator: Sequence[float], resamples: int, seed: int) -> Estimate:
    """sum(numerator) / sum(denominator) over units, (units,) each, with the percentile bootstrap over units.

    Efron and Tibshirani 1993, chapter 13. The same seed and number of units draw the same resamples, so intervals of
    two scorers are comparable, and that of their difference is `ratio(a - b, denominator, ...)`.
    """
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if len(top) != len(bottom) or bottom.sum() <= 0:
        raise ValueError(f"ratio of {len(top)} over {len(bottom)} units with sum {bottom.sum()}: nothing to estimate")
    value = float(top.sum() / bottom.sum())
    if resamples < 1:
        return Estimate(value, value, value)
    weights = _draws(len(top), resamples, seed)
    below = weights @ bottom
    drawn = (weights @ top)[below > 0] / below[below > 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


@lru_cache(maxsize=4)  # every scorer of one table asks for the same draws
def _draws(units: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each unit occurs in each resample, (resamples, units)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, units])))
    weights = np.zeros((resamples, units), np.float64)
    rows = max(1, _AT_ONCE // units)
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = rng.integers(0, units, size=(n, units))
        flat = (drawn + np.arange(n)[:, None] * units).ravel()
        weights[start : start + n] = np.bincount(flat, minlength=n * units).reshape(n, units)
    weights.flags.writeable = False
    return weights


@dataclass(frozen=True)
class Bootstrap:
    """How an evaluation draws its intervals."""

    resamples: int
    seed: int

    def ratio(self, numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
        """`ratio` over the units as they are given."""
        return ratio(numerator, denominator, self.resamples, self.seed)

    def grouped(self, groups: Sequence[str], numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
        """`ratio` over the sums within each group: rows of one module are not independent."""
        names, at = np.unique(np.asarray(groups), return_inverse=True)
        top, bottom = (np.bincount(at, np.asarray(v, np.float64), len(names)) for v in (numerator, denominator))
        return self.ratio(top.tolist(), bottom.tolist())
