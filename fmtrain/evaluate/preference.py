"""Preference accuracy: how often a scorer puts the chosen response before the rejected one; a tie counts half.

A scorer is a column of margins, one a pair: above 0 where it prefers the chosen response. Models, the implicit reward
and the trivial baselines are all columns, so that they are counted, averaged and compared in one way.
"""

import ast
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from fmtrain.artifacts.storage import read_jsonl
from fmtrain.data.rows import PreferenceRow
from fmtrain.errors import InputError
from fmtrain.evaluate.inputs import PairText
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.records import PreferenceScore, Verdict
from fmtrain.evaluate.scoring import Scored, score_rows

ALL = "all"
GIVEN = "given"  # the kind of pairs that a user brought; every other kind is a corruption that a program made
IMPLICIT = ": implicit reward"  # ends the name of such a scorer, which begins with its model's


@dataclass(frozen=True)
class Column:
    """A scorer's margins, (pairs,)."""

    scorer: str
    baseline: bool
    margins: list[float]


@dataclass(frozen=True)
class PairScores:
    """Both responses of each pair under one model."""

    chosen: list[Scored]
    rejected: list[Scored]


def score_pairs(
    model: PreTrainedModel, rows: Sequence[PreferenceRow], batch_size: int, advance: Callable[[int], None]
) -> PairScores:
    """Both responses of each pair, given the prompt."""
    found = score_rows(model, [r.chosen for r in rows] + [r.rejected for r in rows], batch_size, advance)
    return PairScores(found[: len(rows)], found[len(rows) :])


def model_columns(name: str, scores: PairScores, baseline: bool) -> list[Column]:
    """A model's own summed and mean log-probability."""
    pairs = list(zip(scores.chosen, scores.rejected, strict=True))
    return [
        Column(f"{name}: summed log-probability", baseline, [c.logprob - r.logprob for c, r in pairs]),
        Column(f"{name}: mean log-probability", baseline, [c.mean - r.mean for c, r in pairs]),
    ]


def implicit_reward(name: str, scores: PairScores, reference: Sequence[tuple[float, float]]) -> Column:
    """The reward that DPO trains, but for beta > 0: policy minus reference log-probability (Rafailov et al. 2023)."""
    margins = [
        (c.logprob - ref_c) - (r.logprob - ref_r)
        for c, r, (ref_c, ref_r) in zip(scores.chosen, scores.rejected, reference, strict=True)
    ]
    return Column(f"{name}{IMPLICIT}", False, margins)


def trivial_columns(pairs: Sequence[PairText]) -> list[Column]:
    """The shorter response, the longer one (characters), and for functions whether prompt and response parse."""
    longer = [float(len(p.chosen) - len(p.rejected)) for p in pairs]
    columns = [
        Column("shorter response", True, [-m for m in longer]),
        Column("longer response", True, longer),
    ]
    if pairs and all(p.kind != GIVEN for p in pairs):
        parsed = [float(_parses(p, p.chosen)) - float(_parses(p, p.rejected)) for p in pairs]
        columns.append(Column("parses", True, parsed))
    return columns


def _parses(pair: PairText, response: str) -> bool:
    """Whether the prompt (signature and docstring) with the response (body) is Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an invalid escape in what is parsed
        try:
            ast.parse(pair.prompt[-1]["content"] + response)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # all four are how ast.parse says no
            return False
    return True


def reference_scores(folder: Path) -> dict[str, tuple[float, float]]:
    """(chosen, rejected) by id from a reference artifact: summed log-probabilities in nats."""
    return {row["id"]: (row["chosen"], row["rejected"]) for row in read_jsonl(folder / "reference.jsonl")}


def score(column: Column, pairs: Sequence[PairText], kind: str, bootstrap: Bootstrap) -> PreferenceScore:
    """A scorer on the pairs of `kind`, or on all; the interval is over groups (modules)."""
    points, groups = _points(column, pairs, kind)
    return PreferenceScore(
        scorer=column.scorer,
        baseline=column.baseline,
        kind=kind,
        accuracy=bootstrap.grouped(groups, points, [1.0] * len(points)),
        pairs=len(points),
        ties=sum(1 for p in points if p == 0.5),
        groups=len(set(groups)),
    )


def _points(column: Column, pairs: Sequence[PairText], kind: str) -> tuple[list[float], list[str]]:
    """1 where the scorer is right, 0.5 at a tie, 0 where it is wrong; and each pair's group."""
    taken = [i for i, p in enumerate(pairs) if kind in (ALL, p.kind)]
    margins = [column.margins[i] for i in taken]
    return [1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins], [pairs[i].group for i in taken]


def verdict(
    ours: Column, columns: Sequence[Column], pairs: Sequence[PairText], kind: str, heldout: bool, bootstrap: Bootstrap
) -> Verdict:
    """Whether an implicit reward beats every baseline on `kind`, in a sentence that follows from the numbers."""
    mine = score(ours, pairs, kind, bootstrap)
    rivals = [score(c, pairs, kind, bootstrap) for c in columns if c.baseline]
    if not rivals:
        raise InputError("a verdict needs a baseline to compare with")
    best = max(rivals, key=lambda r: r.accuracy.value)  # the first of equals
    points, groups = _points(ours, pairs, kind)
    theirs, _ = _points(next(c for c in columns if c.scorer == best.scorer), pairs, kind)
    gap = [a - b for a, b in zip(points, theirs, strict=True)]
    difference = bootstrap.grouped(groups, gap, [1.0] * len(gap))
    holds = mine.accuracy.value > best.accuracy.value
    what = f"the held-out kind {kind}" if heldout else f"held-out pairs ({kind})"
    name = ours.scorer.removesuffix(IMPLICIT)
    noise = " The difference is within noise." if difference.low <= 0 <= difference.high else ""
    return Verdict(
        subject=f"{ours.scorer} on {kind}",
        holds=holds,
        sentence=(
            f"On {what} the implicit reward of {name} is right in {_percent(mine.accuracy.value)} of {mine.pairs} "
            f"pairs [{_percent(mine.accuracy.low)}, {_percent(mine.accuracy.high)}]; the best baseline, "
            f"{best.scorer}, in {_percent(best.accuracy.value)}: it {'does' if holds else 'does not'} beat every "
            f"baseline (by {100 * difference.value:+.1f} points "
            f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]).{noise}"
        ),
        value=mine.accuracy.value,
        baseline=best.scorer,
        baseline_value=best.accuracy.value,
        difference=difference,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
