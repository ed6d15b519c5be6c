"""Training curves from a model folder's metrics.jsonl, thinned to what a picture can show."""

import math
from pathlib import Path

from fmtrain.artifacts.storage import read_jsonl
from fmtrain.evaluate.records import Curve

POINTS = 400  # at most, a curve
QUANTITIES = ("loss", "lr", "grad_norm", "tokens_per_second")


def curves(model: str, folder: Path) -> list[Curve]:
    """A model's curves; none where the folder was not trained here. Steps are thinned evenly, first and last kept."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = list(read_jsonl(path))
    kept = thin(len(rows))
    found = []
    for quantity in QUANTITIES:
        points = [(int(rows[i]["step"]), float(rows[i][quantity])) for i in kept if _finite(rows[i].get(quantity))]
        if len(points) > 1:
            found.append(Curve(model, quantity, [s for s, _ in points], [v for _, v in points]))
    return found


def thin(rows: int, points: int = POINTS) -> list[int]:
    """At most `points` of `rows` row numbers, evenly spread, the first and the last among them."""
    if rows <= points:
        return list(range(rows))
    return [round(i * (rows - 1) / (points - 1)) for i in range(points)]


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
