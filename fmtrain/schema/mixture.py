"""Reading a mixture's `SOURCE:NUMBER` settings: on the launching side before anything runs, and in the tokens stage."""

import math

from fmtrain.errors import ConfigError
from fmtrain.schema.corpus import Mixture

ALL = "*"  # every source: the mixture without weights
_EXAMPLES = {"weights": "[web:0.7,code:0.3]", "epochs": "[code:2]"}


def is_plain(mixture: Mixture) -> bool:
    """Every document once: nothing to plan."""
    return not mixture.weights and mixture.tokens is None


def weights(mixture: Mixture) -> dict[str, float]:
    """Source -> its share of the tokens; they add up to 1."""
    given = _numbers(mixture.weights, "weights") or {ALL: 1.0}
    total = sum(given.values())
    if total <= 0:
        raise ConfigError(f"stages.tokens.mixture.weights={mixture.weights}: no weight is above 0")
    return {name: weight / total for name, weight in given.items() if weight > 0}


def limits(mixture: Mixture) -> dict[str, float]:
    """Source -> how many epochs of it there may be."""
    wanted, given = weights(mixture), _numbers(mixture.epochs, "epochs")
    if unknown := sorted(set(given) - set(wanted)):
        raise ConfigError(
            f"stages.tokens.mixture.epochs: {unknown[0]} has no weight; give epochs for {', '.join(wanted)}"
        )
    return {name: given.get(name, mixture.max_epochs) for name in wanted}


def check(mixture: Mixture) -> None:
    """ConfigError where a setting cannot be used, whatever the corpus."""
    limits(mixture)
    if mixture.tokens is not None and mixture.tokens < 1:
        raise ConfigError(f"stages.tokens.mixture.tokens: {mixture.tokens} is below 1; give the number wanted, or null")


def _numbers(entries: list[str], what: str) -> dict[str, float]:
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
                f"stages.tokens.mixture.{what}: {entry!r} is not SOURCE:NUMBER with a number of 0 or more; e.g. "
                f"stages.tokens.mixture.{what}={_EXAMPLES[what]}"
            )
        if name in found:
            raise ConfigError(f"stages.tokens.mixture.{what}: {name} stands twice; give each source once")
        found[name] = value
    return found
