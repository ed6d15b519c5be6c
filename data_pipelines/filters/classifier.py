"""A quality classifier trained here, and the rule that scores documents with it.

Logistic regression over hashed word unigrams and bigrams, counts scaled to length 1: what fastText's supervised mode
(Joulin et al. 2017), which DCLM (Li et al. 2024, section 4.4) filters with, comes to for two classes and no embedding.
One file, one pass over the words, the same model from the same rows in any order.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import xxhash

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.words import FAST, VERSION, Words, split
from fmtrain.errors import InputError
from fmtrain.schema import rules

BITS = 18  # 2**18 weights, a file of 1 MB
EPOCHS, RATE, L2, SEED = 10, 0.1, 1e-3, 0  # AdaGrad (Duchi et al. 2011); chosen by 5-fold AUC on DCLM's labels
FORMAT = "fmtrain classifier 1"

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Classifier:
    """Drops a document below `min_score`; sets score in meta, which deduplication can rank copies by."""

    def __init__(self, config: rules.Classifier) -> None:
        assert config.model is not None
        self.config, self._model = config, load(config.model)

    def __call__(self, doc: Document) -> Drop | None:
        # the words it was trained on, whatever splitter the other rules use
        words = doc.words if doc.split is FAST else split(doc.text)
        score = self._model.score(words)
        doc.meta["score"] = round(score, 6)
        if score < self.config.min_score:
            return Drop("classifier.score", round(score, 6), self.config.min_score)
        return None


@dataclass(frozen=True)
class Model:
    """`weights` (2**bits,) and the bias; a score is the probability that a text is of the positive class."""

    weights: Floats
    bias: float

    def score(self, words: Words) -> float:
        index, values = features(words, len(self.weights))
        return float(1 / (1 + np.exp(-(self.bias + float(self.weights[index] @ values)))))


@dataclass(frozen=True)
class Rows:
    """Training texts as rows of a sparse matrix: row i is index[begin[i]:begin[i + 1]], values alike."""

    begin: Ints
    index: Ints
    values: Floats
    labels: npt.NDArray[np.bool_]
    lengths: Ints  # words

    def __len__(self) -> int:
        return len(self.labels)


def read(rows: Iterable[tuple[str, str]], positive: str, bits: int = BITS) -> Rows:
    """(text, label) pairs, ordered by a hash of both: in which files they came, and in what order, does not matter."""
    found = []
    for text, label in rows:
        words = split(text)
        key = xxhash.xxh64_intdigest(f"{label == positive}\0{text}".encode("utf-8", "surrogatepass"))
        found.append((key, *features(words, 1 << bits), label == positive, len(words)))
    found.sort(key=lambda row: row[0])
    labels = np.array([row[3] for row in found], bool)
    if not labels.any() or labels.all():
        raise InputError(
            f"{len(found)} rows, {int(labels.sum())} of them labelled {positive!r}: rows of both kinds are needed"
        )
    return Rows(
        begin=np.cumsum([0, *(len(row[1]) for row in found)]).astype(np.int64),
        index=np.concatenate([row[1] for row in found]),
        values=np.concatenate([row[2] for row in found]),
        labels=labels,
        lengths=np.array([row[4] for row in found], np.int64),
    )


def fit(rows: Rows, chosen: Ints | None = None, bits: int = BITS) -> Model:
    """A model of `chosen` rows, all by default."""
    weights = np.zeros(1 << bits, np.float32)
    order = np.arange(len(rows)) if chosen is None else chosen.copy()
    bias = _fit(rows.begin, rows.index, rows.values, rows.labels, order, weights, RATE, L2, EPOCHS, SEED)
    return Model(weights, float(bias))


def train(rows: Iterable[tuple[str, str]], out: Path, positive: str) -> Model:
    """Train on (text, label) pairs and write the model to the file `out`."""
    model = fit(read(rows, positive))
    save(model, out, positive)
    return model


def scores(model: Model, rows: Rows, chosen: Ints) -> Floats:
    """The scores of `chosen` rows."""
    parts = [slice(rows.begin[i], rows.begin[i + 1]) for i in chosen]
    z = np.array([model.weights[rows.index[part]] @ rows.values[part] for part in parts], np.float64) + model.bias
    return (1 / (1 + np.exp(-z))).astype(np.float32)


def save(model: Model, out: Path, positive: str) -> None:
    """A line of JSON, then the weights as little-endian float32."""
    head = {"format": FORMAT, "weights": len(model.weights), "bias": model.bias, "positive": positive, "words": VERSION}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_bytes(json.dumps(head).encode() + b"\n" + model.weights.astype("<f4").tobytes())
    part.replace(out)


def load(path: str | Path) -> Model:
    try:
        head, _, body = Path(path).read_bytes().partition(b"\n")
        info = json.loads(head)
        assert info["format"] == FORMAT and len(body) == 4 * info["weights"]
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); expected a model of train-classifier") from e
    except (ValueError, KeyError, TypeError, AssertionError) as e:
        raise InputError(f"{path}: not a whole model of `fmtrain corpus train-classifier`; train it again") from e
    if info["words"] != VERSION:
        raise InputError(f"{path}: trained on words of splitter {info['words']}, this is {VERSION}; train it again")
    return Model(np.frombuffer(body, "<f4"), float(info["bias"]))


def features(words: Words, size: int) -> tuple[Ints, Floats]:
    """(places, values) of the distinct unigrams and bigrams of a text; `size` places, a power of two."""
    places = np.empty(max(2 * len(words) - 1, 0), np.int64)
    _places(words.hashes, 64 - (size.bit_length() - 1), places)
    index, counts = np.unique(places, return_counts=True)
    values = counts.astype(np.float32)
    return index, values / max(float(np.sqrt(values @ values)), 1.0)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _places(hashes: Any, shift: int, out: Any) -> None:
    for i in range(len(hashes)):
        out[i] = np.int64(hashes[i] >> np.uint64(shift))
    for i in range(len(hashes) - 1):
        pair = (hashes[i] * np.uint64(0x5851F42D4C957F2D) + hashes[i + 1]) * np.uint64(0x9E3779B97F4A7C15)
        out[len(hashes) + i] = np.int64(pair >> np.uint64(shift))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fit(
    begin: Any, index: Any, values: Any, labels: Any, order: Any, w: Any, rate: float, l2: float, epochs: int, seed: int
) -> float:
    """AdaGrad over shuffled rows, one at a time; the bias. L2 weighs on the weights of the row alone."""
    np.random.seed(seed)
    squares, bias, bias_squares = np.full(len(w), 1e-8), 0.0, 1e-8
    for _ in range(epochs):
        np.random.shuffle(order)
        for row in order:
            z = bias
            for k in range(begin[row], begin[row + 1]):
                z += w[index[k]] * values[k]
            slope = 1 / (1 + np.exp(-z)) - (1.0 if labels[row] else 0.0)
            for k in range(begin[row], begin[row + 1]):
                j = index[k]
                step = slope * values[k] + l2 * w[j]
                squares[j] += step * step
                w[j] -= rate * step / np.sqrt(squares[j])
            bias_squares += slope * slope
            bias -= rate * slope / np.sqrt(bias_squares)
    return bias
