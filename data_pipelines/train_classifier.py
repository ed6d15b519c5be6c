"""Train a quality classifier and say what it is worth: what `fmtrain corpus train-classifier` runs.

Rows are JSON lines (.jsonl, .json, also .gz, .bz2, .zst): two sets of files, --positive and --negative, or one,
--labelled, whose rows hold a label. The figures are cross-validated: every row is scored by a model that has not seen
it. A classifier that does not beat the length of a text is not worth its run, so that baseline stands beside it.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.filters import classifier, texts
from fmtrain import show
from fmtrain.errors import ConfigError, InputError

FOLDS = 5

Values = npt.NDArray[Any]


def auc(labels: Values, values: Values) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def f1(labels: Values, predicted: Values) -> float:
    """Of the positive class."""
    return float(2 * (labels & predicted).sum() / max(labels.sum() + predicted.sum(), 1))


def folds(labels: Values, count: int = FOLDS) -> Values:
    """(n,) a fold for each row, the classes spread evenly; the rows' order is their hashes', so as good as random."""
    out = np.empty(len(labels), np.int64)
    for kind in (True, False):
        where = np.flatnonzero(labels == kind)
        out[where] = np.arange(len(where)) % count
    return out


def best_cut(labels: Values, values: Values) -> float:
    """The cut with the highest F1 where `values >= cut` is positive."""
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(labels[order])
    measures = 2 * hits / (labels.sum() + np.arange(1, len(labels) + 1))
    measures[:-1][values[order][:-1] == values[order][1:]] = 0  # a cut cannot part equal values
    return float(values[order][int(np.argmax(measures))])


def baseline(labels: Values, values: Values, fold: Values) -> dict[str, float]:
    """One number as a classifier: its direction and its cut chosen on the other folds."""
    predicted = np.zeros(len(labels), bool)
    for k in range(int(fold.max()) + 1):
        seen, held = fold != k, fold == k
        sign = 1 if auc(labels[seen], values[seen]) >= 0.5 else -1
        predicted[held] = sign * values[held] >= best_cut(labels[seen], sign * values[seen])
    area = auc(labels, values)
    return {"auc": max(area, 1 - area), "f1": f1(labels, predicted)}


def validate(rows: classifier.Rows) -> dict[str, dict[str, float]]:
    """Held-out AUC and F1 of the classifier, of length alone, and of calling everything positive."""
    if min(int(rows.labels.sum()), int((~rows.labels).sum())) < FOLDS:
        raise InputError(f"fewer than {FOLDS} rows of one kind: there is nothing to validate on; give more rows")
    fold = folds(rows.labels)
    held_out = np.zeros(len(rows), np.float32)
    for k in range(FOLDS):
        model = classifier.fit(rows, np.flatnonzero(fold != k))
        chosen = np.flatnonzero(fold == k)
        held_out[chosen] = classifier.scores(model, rows, chosen)
    return {
        "classifier": {"auc": auc(rows.labels, held_out), "f1": f1(rows.labels, held_out >= 0.5)},
        "length only": baseline(rows.labels, rows.lengths, fold),
        "all positive": {"auc": 0.5, "f1": f1(rows.labels, np.ones(len(rows), bool))},
    }


def records(files: list[str], text_key: str) -> Iterator[dict[str, Any]]:
    """The objects of JSON files; each must hold a text."""
    for file in files:
        content = texts.text(file)
        try:
            values = json.loads(content) if ".json" in Path(file).suffixes else map(json.loads, _lines(content))
            for value in values:
                if not isinstance(value, dict) or not isinstance(value.get(text_key), str):
                    raise InputError(f"{file}: a row has no text under {text_key!r}; name its key with --text-key")
                yield value
        except json.JSONDecodeError as e:
            raise InputError(f"{file}: not JSON ({e}); expected JSON lines, or a list in a .json file") from e


def _lines(content: str) -> Iterator[str]:
    return (line for line in content.split("\n") if line.strip())


def labelled(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(text, label) of every row that the arguments name."""
    for label, files in (("positive", args.positive), ("negative", args.negative)):
        for record in records(files, args.text_key):
            yield record[args.text_key], label
    for record in records(args.labelled, args.text_key):
        if args.label_key not in record:
            raise InputError(f"a row has no label under {args.label_key!r}; name its key with --label-key")
        label = str(record[args.label_key])
        yield record[args.text_key], "positive" if label == args.positive_label else "negative"


def arguments(argv: list[str]) -> argparse.Namespace:
    text = "Train a quality classifier for filter.classifier, and say what it is worth."
    parser = argparse.ArgumentParser(prog="fmtrain corpus train-classifier", description=text)
    parser.add_argument("--positive", nargs="+", default=[], metavar="FILE", help="texts to be like")
    parser.add_argument("--negative", nargs="+", default=[], metavar="FILE", help="texts to be unlike")
    parser.add_argument("--labelled", nargs="+", default=[], metavar="FILE", help="rows that hold a label")
    parser.add_argument("--text-key", default="text", metavar="KEY")
    parser.add_argument("--label-key", default="label", metavar="KEY")
    parser.add_argument("--positive-label", default="1", metavar="LABEL", help="all others are negative (default: 1)")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if bool(args.labelled) == bool(args.positive or args.negative):
        raise ConfigError("give either --positive and --negative, or --labelled")
    if args.out.is_dir():
        raise ConfigError(
            f"--out {args.out} is a folder; give the name of a file to be, e.g. {args.out / 'quality.bin'}"
        )
    return args


@show.command
def main(argv: list[str] | None = None) -> int:
    args = arguments(sys.argv[1:] if argv is None else argv)
    rows = classifier.read(labelled(args), "positive")
    measured = validate(rows)
    classifier.save(classifier.fit(rows), args.out, "positive")
    print(f"{len(rows)} rows, {int(rows.labels.sum())} positive; {FOLDS}-fold cross-validation")
    print(f"{'':14}{'AUC':>7}{'F1':>7}")
    for name, values in measured.items():
        print(f"{name:14}{values['auc']:7.3f}{values['f1']:7.3f}")
    print(f"model of all rows: {args.out}, {args.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
