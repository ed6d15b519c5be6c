"""Which values a field takes: limits stand in its type, beside the field, and `load` checks every value against them.

    lr: Annotated[float, Limits(above=0, greatest=10)] = 1e-3
    keep: Annotated[str, Limits(choices=("longest", "newest"))] = "longest"

A list's limits stand in the type of its elements.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fmtrain.errors import ConfigError

GREATEST = 2**63 - 1  # no whole number is above it, whatever its field


@dataclass(frozen=True)
class Limits:
    """Both ends closed (`least`, `greatest`) or open (`above`, `below`), a few choices, or texts of a form, with an
    example of it. None is no limit."""

    least: float | None = None
    greatest: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    pattern: str = ""  # a regular expression, of the whole
    form: str = ""  # the pattern in words
    such: str = ""

    def hold(self, value: Any) -> bool:
        if self.pattern:
            return re.fullmatch(self.pattern, value) is not None
        if self.choices:
            return value in self.choices
        return (
            (self.least is None or value >= self.least)
            and (self.greatest is None or value <= self.greatest)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """What a value is to be: `one of cut, drop`, `a number above 0 and at most 1`."""
        if self.pattern:
            return self.form
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if self.least is not None and self.greatest is not None:
            return f"a number from {self.least} to {self.greatest}"
        ends = {"of at least": self.least, "above": self.above, "at most": self.greatest, "below": self.below}
        return "a number " + " and ".join(f"{word} {end}" for word, end in ends.items() if end is not None)

    def example(self) -> Any:
        """A value within the limits, for a message about a field without a default."""
        if self.pattern or self.choices:
            return self.such or self.choices[0]
        return next(v for v in (self.least, self.greatest, 1, 0.5, 0) if v is not None and self.hold(v))


Count = Annotated[int, Limits(least=0)]
Positive = Annotated[int, Limits(least=1)]
Share = Annotated[float, Limits(least=0, greatest=1)]
NotNegative = Annotated[float, Limits(least=0)]
AboveZero = Annotated[float, Limits(above=0)]
Size = Annotated[int, Limits(least=1, greatest=2**24)]  # of one dimension of a model or a batch
RowLength = Annotated[int, Limits(least=2, greatest=2**24)]  # tokens of a row: one to read, one to predict


def check_ranges(settings: Any, key: str) -> None:
    """ConfigError where a `min_X` of the settings at `key` is above their `max_X`; 0 as a greatest is none."""
    for name, low in vars(settings).items():
        what = name.removeprefix("min_")
        high = getattr(settings, f"max_{what}", 0) if what != name else 0
        if isinstance(high, (int, float)) and 0 < high < low:
            raise ConfigError(f"{key}.{name}={low} is above {key}.max_{what}={high}; change one of them")
