"""Reading a mixture's `SOURCE:NUMBER` settings: on the launching side before anything runs, and in its stage.

`at` is where that stage stands, for messages.
"""

import math
from dataclasses import dataclass

from fmtrain.errors import ConfigError
from fmtrain.schema.fields import items
from fmtrain.schema.limits import AboveZero, Count, Positive

ALL = "*"  # every source: the mixture without weights
_EXAMPLES = {"weights": "[web:0.7,code:0.3]", "epochs": "[code:2]"}


@dataclass
class Mixture:
    """How much of each source becomes tokens. Without weights and tokens every document, once.

    A source is named as the corpus names it, or by a pattern (`web/*`); the first that fits a document counts. `tokens`
    without weights takes every source by its size; weights without `tokens` take what repeats no source.
    """

    weights: list[str] = items()  # SOURCE:WEIGHT, e.g. [web:0.7,code:0.3]; other sources are left out
    tokens: Positive | None = None
    max_epochs: AboveZero = 4.0  # Muennighoff et al. 2023: up to four epochs are nearly as good as new text
    epochs: list[str] = items()  # SOURCE:MAXIMUM where it is another for a source
    seed: Count = 1  # which documents make a part of an epoch


def is_plain(mixture: Mixture) -> bool:
    """Every document once: nothing to plan."""
    return not mixture.weights and mixture.tokens is None


def weights(mixture: Mixture, at: str) -> dict[str, float]:
    """Source -> its share of the tokens; they add up to 1."""
    given = _numbers(mixture.weights, "weights", at) or {ALL: 1.0}
    total = sum(given.values())
    if total <= 0:
        raise ConfigError(f"{at}.mixture.weights={mixture.weights}: no weight is above 0")
    return {name: weight / total for name, weight in given.items() if weight > 0}


def limits(mixture: Mixture, at: str) -> dict[str, float]:
    """Source -> how many epochs of it there may be."""
    wanted, given = weights(mixture, at), _numbers(mixture.epochs, "epochs", at)
    if unknown := sorted(set(given) - set(wanted)):
        raise ConfigError(f"{at}.mixture.epochs: {unknown[0]} has no weight; give epochs for {', '.join(wanted)}")
    return {name: given.get(name, mixture.max_epochs) for name in wanted}


def check(mixture: Mixture, at: str) -> None:
    """ConfigError where a setting cannot be used, whatever the corpus."""
    limits(mixture, at)


def _numbers(entries: list[str], what: str, at: str) -> dict[str, float]:
    """`NAME:NUMBER` each."""
    found: dict[str, float] = {}
    for entry in entries:
        name, _, number = entry.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value) or value < 0:
            raise ConfigError(
                f"{at}.mixture.{what}: {entry!r} is not SOURCE:NUMBER with a number of 0 or more; e.g. "
                f"{at}.mixture.{what}={_EXAMPLES[what]}"
            )
        if name in found:
            raise ConfigError(f"{at}.mixture.{what}: {name} stands twice; give each source once")
        found[name] = value
    return found
