"""report.html from an evaluation: one file, no outside resource, light and dark. Layout is report.html's beside this.

Knows how numbers are put and where a curve's points lie; computes nothing that evaluation.json does not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fmtrain import show
from fmtrain.evaluate.preference import GIVEN
from fmtrain.evaluate.records import Curve, Estimate, Evaluation, PreferenceScore

WIDTH, HEIGHT = 188.0, 80.0  # of a curve, in SVG units
WHISKER = 150.0  # width of an interval bar
TITLES = {"loss": "loss", "lr": "learning rate", "grad_norm": "gradient norm", "tokens_per_second": "tokens a second"}


@dataclass(frozen=True)
class Plot:
    """A curve as SVG points, with the ends of its axes."""

    title: str
    points: str
    low: str
    high: str
    first: int
    last: int


@dataclass(frozen=True)
class Whisker:
    """An interval as SVG positions along WHISKER."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Grid:
    """Preference accuracy: a row a scorer, a cell a kind."""

    kinds: list[str]
    rows: list[tuple[str, bool, list[PreferenceScore]]]
    pairs: list[int]


def render(evaluation: Evaluation) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=PackageLoader("fmtrain.evaluate", "."),
        autoescape=True,
        finalize=show.visible,  # what a model wrote, and the prompts it was given
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "interval": interval, "share": share}
    return environment.get_template("report.html").render(
        e=evaluation,
        plots=[(m.name, plots) for m in evaluation.models if (plots := _plots(evaluation.curves, m.name))],
        text_bars=_whiskers([t.bits_per_byte for t in evaluation.text]),
        grid=_grid(evaluation.preferences),
        given=GIVEN,
        width=WIDTH,
        height=HEIGHT,
        whisker=WHISKER,
    )


def number(value: float | int | None, digits: int = 3) -> str:
    """A count with its thousands set apart, a rate with `digits` decimals, a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def interval(estimate: Estimate) -> str:
    return f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def share(estimate: Estimate) -> str:
    """The interval of a share, in percent."""
    return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _plots(curves: Sequence[Curve], model: str) -> list[Plot]:
    return [_plot(c) for c in curves if c.model == model]


def _plot(curve: Curve) -> Plot:
    low, high = min(curve.values), max(curve.values)
    first, last = curve.steps[0], curve.steps[-1]
    x = [WIDTH * (s - first) / max(last - first, 1) for s in curve.steps]
    y = [HEIGHT * (1 - (v - low) / (high - low)) if high > low else HEIGHT / 2 for v in curve.values]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Plot(TITLES.get(curve.quantity, curve.quantity), points, _tick(low), _tick(high), first, last)


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _whiskers(estimates: Sequence[Estimate]) -> list[Whisker]:
    """All on one scale from 0, so that lengths can be compared."""
    top = max((e.high for e in estimates), default=1.0) or 1.0
    return [Whisker(*(WHISKER * v / top for v in (e.low, e.value, e.high))) for e in estimates]


def _grid(scores: Sequence[PreferenceScore]) -> Grid:
    kinds = list(dict.fromkeys(s.kind for s in scores))
    names = list(dict.fromkeys(s.scorer for s in scores))
    cells: dict[tuple[str, str], Any] = {(s.scorer, s.kind): s for s in scores}
    rows = [(n, cells[n, kinds[0]].baseline, [cells[n, k] for k in kinds]) for n in names]
    return Grid(kinds, rows, [cells[names[0], k].pairs for k in kinds] if names else [])
