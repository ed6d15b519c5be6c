"""How much of each source of a corpus becomes tokens: planned from bytes and a sample, realised in whole epochs and a
part.

A document's source is matched against the mixture's names and patterns, the first that fits. In every pass over the
corpus a source's documents come in corpus order; in the last, a part of them chosen by the hash of seed and id.
"""

import fnmatch
import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from data_pipelines.corpus_reader import Document
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.mixture import Mixture, limits, weights

SAMPLE_DOCUMENTS = 100  # of a source, to measure its tokens per byte
_SAMPLE_CHARACTERS = 10_000  # of a document, at most
_SCALE = 1 << 64


@dataclass
class Share:
    """One source of the plan. `epochs` is wanted / available: 2.3 is every document twice and three tenths thrice."""

    source: str
    weight: float  # of all the tokens, 0 to 1
    documents: int
    bytes: int
    tokens_per_byte: float
    available: int  # tokens of one epoch, as estimated
    wanted: int
    epochs: float
    max_epochs: float
    became: dict[str, int] = field(default_factory=dict)  # what came of it: documents, tokens

    @property
    def whole(self) -> int:
        """Epochs that every document takes part in."""
        return int(self.epochs)

    def takes(self, key: int, epoch: int) -> bool:
        """Whether the document whose hash is `key` stands in the pass `epoch`, from 0."""
        return epoch < self.whole or (epoch == self.whole and key < (self.epochs - self.whole) * _SCALE)


class Matcher:
    """Which of the mixture's names a source goes under; None where it is left out."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._found: dict[str, str | None] = {}

    def __call__(self, source: str) -> str | None:
        if source not in self._found:
            exact = source if source in self.names else None
            self._found[source] = exact or next((n for n in self.names if fnmatch.fnmatchcase(source, n)), None)
        return self._found[source]


def key(document_id: str, seed: int) -> int:
    """64 bits that choose whether a document is in a part of an epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{document_id}".encode()).digest()[:8], "big")


class Survey:
    """What one reading of a corpus finds: documents and bytes a source, and a sample of each source's text."""

    def __init__(self, names: Iterable[str], seed: int) -> None:
        self.matcher, self.seed = Matcher(names), seed
        self.documents, self.bytes = Counter[str](), Counter[str]()
        self.left_out = Counter[str]()  # documents by source
        self._samples: dict[str, list[tuple[int, str, str]]] = {name: [] for name in self.matcher.names}

    def add(self, document: Document) -> None:
        name = self.matcher(document.source)
        if name is None:
            self.left_out[document.source] += 1
            return
        self.documents[name] += 1
        self.bytes[name] += len(document.text.encode())
        # the documents of the least hashes, so that the sample depends on no order
        sample, rank = self._samples[name], -key(document.id, self.seed ^ 0x5A)
        if len(sample) < SAMPLE_DOCUMENTS:
            heapq.heappush(sample, (rank, document.id, document.text[:_SAMPLE_CHARACTERS]))
        elif rank > sample[0][0]:
            heapq.heapreplace(sample, (rank, document.id, document.text[:_SAMPLE_CHARACTERS]))

    def sample(self, name: str) -> list[str]:
        return [text for _, _, text in sorted(self._samples[name])]


def plan(mixture: Mixture, survey: Survey, count: Callable[[list[str]], int], marks: int, at: str) -> list[Share]:
    """The shares of a mixture. `count` gives the tokens of texts; `marks` are added to each document.

    `at` is where the stage stands, for messages.

    ConfigError where a source has to be repeated more often than it may, InputError where it has no document.
    """
    most = limits(mixture, at)
    shares = []
    for name, weight in weights(mixture, at).items():
        documents, size = survey.documents[name], survey.bytes[name]
        if not documents:
            others = ", ".join(repr(s) for s, _ in survey.left_out.most_common(10)) or "none"
            raise InputError(
                f"{at}.mixture.weights: the corpus has no training document of a source {name!r}; sources "
                f"without a weight in it: {others}"
            )
        texts = survey.sample(name)
        ratio = count(texts) / max(sum(len(text.encode()) for text in texts), 1)
        available = max(round(size * ratio) + marks * documents, 1)
        shares.append(Share(name, weight, documents, size, round(ratio, 6), available, 0, 0.0, most[name]))
    target = mixture.tokens if mixture.tokens is not None else min(s.available / s.weight for s in shares)
    for share in shares:
        share.wanted = round(target * share.weight)
        share.epochs = round(target * share.weight / share.available, 9)
    _check_epochs(shares, target, at)
    return shares


def _check_epochs(shares: list[Share], target: float, at: str) -> None:
    over = [share for share in shares if share.epochs > share.max_epochs]
    if not over:
        return
    most = int(min(share.available * share.max_epochs / share.weight for share in shares))
    needs = "; ".join(
        f"{s.source} has {s.available:,} tokens and {s.wanted:,} are wanted: {s.epochs:.2f} epochs, at most "
        f"{s.max_epochs:g}"
        for s in over
    )
    raise ConfigError(
        f"{at}.mixture: {needs}. Ask for at most {most:,} tokens ({at}.mixture.tokens; {target:,.0f} "
        f"now), another weight, or more epochs: {at}.mixture.max_epochs=N, or for one source "
        f"{at}.mixture.epochs=[{over[0].source}:N]"
    )


def table(shares: list[Share], left_out: Counter[str]) -> str:
    """The plan, a line a source; with what came of it once that is known."""
    rows = [("source", "weight", "documents", "available", "wanted", "epochs", "tokens", "")]
    for s in shares:
        what = "cut" if s.epochs < 1 else "repeated" if s.epochs > 1 else "whole"
        became = f"{s.became['tokens']:,}" if s.became else "planned"
        numbers = (f"{s.weight:.3f}", f"{s.documents:,}", f"{s.available:,}", f"{s.wanted:,}", f"{s.epochs:.2f}")
        rows.append((s.source, *numbers, became, what))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i in (0, 7) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    ]
    if left_out:
        lines.append(f"left out, without a weight: {left_out.total():,} documents of {len(left_out)} sources")
    return "\n".join(line.rstrip() for line in lines)


def record(shares: list[Share], left_out: Counter[str]) -> dict[str, Any]:
    """The plan and what came of it, for mixture.json."""
    return {"sources": [asdict(share) for share in shares], "left_out": dict(sorted(left_out.items()))}
