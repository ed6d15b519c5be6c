"""MinHash signatures of a document's word n-grams, compiled: a document in, one hash a band out.

Words are the splitter's of the text in lower case, runs of punctuation left out. Shingles are hashed to 64 bits, of
which the upper half goes through bands x rows permutations, x -> a x + b modulo 2^32 with a odd. Measured, candidates
come as often as 1 - (1 - J^rows)^bands says. A document of fewer words than a shingle has is one shingle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.order import Corpus, chunks
from data_pipelines.dedup.runs import Form, Writer
from data_pipelines.schedule import Counts, Task
from data_pipelines.words import Splitter, mix, splitter

BANDS = Form([("band", "<u8"), ("ordinal", "<u8")], order=("band", "ordinal"))
_DOCUMENTS = 4096  # signatures held before they go to the runs
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Shape:
    """What a signature is made of."""

    n_grams: int
    bands: int
    rows: int
    seed: int
    words: str = "fast"


class Signer:
    """Signs documents: `bands_of(shingles(text))`. One document at a time: it has room for one."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.split: Splitter = splitter(shape.words)
        numbers = np.random.Generator(np.random.PCG64(shape.seed))
        hashes = shape.bands * shape.rows
        self.factors = numbers.integers(0, 1 << 31, hashes).astype(np.uint32) * np.uint32(2) + np.uint32(1)
        self.terms = numbers.integers(0, 1 << 32, hashes).astype(np.uint32)
        self.low = np.empty(hashes, np.uint32)

    def shingles(self, text: str) -> npt.NDArray[np.uint64]:
        """The hashes of the text's shingles, in order, repeated ones too."""
        words = self.split(text.lower())
        hashes: npt.NDArray[np.uint64] = _shingles(words.hashes, words.symbols, self.shape.n_grams)
        return hashes

    def shingle_set(self, text: str) -> npt.NDArray[np.uint64]:
        """The same, each once, sorted: what exact Jaccard is taken of."""
        each: npt.NDArray[np.uint64] = _once(np.sort(self.shingles(text)))
        return each

    def bands_of(self, shingles: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """(bands,) hashes of one or more shingles."""
        _minima(shingles, self.factors, self.terms, self.low)
        out = np.empty(self.shape.bands, np.uint64)
        _band_hashes(self.low, self.shape.rows, out)
        return out


@dataclass(frozen=True)
class SignItem:
    corpus: Corpus
    shape: Shape
    before: str | None


def sign_task(task: Task, item: SignItem) -> Counts:
    """Sorted runs of the bands of one rank's documents that are still there."""
    signer = Signer(item.shape)
    signed = 0
    hashes = np.empty((_DOCUMENTS, item.shape.bands), np.uint64)
    owners = np.empty(_DOCUMENTS, np.uint64)
    nothing = np.empty(0, np.uint64)
    with Writer(task.scratch, f"{task.rank:05d}", BANDS) as runs:

        def hand_over(held: int) -> None:
            if held:
                ordinals = np.repeat(owners[:held], item.shape.bands)
                runs.add(BANDS.make(band=hashes[:held].reshape(-1), ordinal=ordinals))

        held = 0
        for number, (ordinal, text) in enumerate(_texts(task, item)):
            task.tick(number + 1)
            shingles = signer.shingles(text) if text is not None else nothing
            if not len(shingles):
                continue  # gone, or without a word
            hashes[held], owners[held] = signer.bands_of(shingles), ordinal
            held, signed = held + 1, signed + 1
            if held == _DOCUMENTS:
                hand_over(held)
                held = 0
        hand_over(held)
    return {"documents": int(np.diff(item.corpus.parts.base)[task.rank]), "signed": signed}


def _texts(task: Task, item: SignItem) -> Iterator[tuple[int, str | None]]:
    """Ordinal and text of each document of the rank, in order; no text where it is gone."""
    documents = item.corpus.parts.documents(task.rank)
    for _, ordinals, there in chunks(task.parts, item.corpus, task.rank, item.before):
        for ordinal, keep in zip(ordinals.tolist(), there.tolist(), strict=True):
            document = next(documents)
            yield ordinal, document["text"] if keep else None


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _shingles(hashes: Any, symbols: Any, n_grams: int) -> Any:
    """(words - n_grams + 1,) hashes of the runs of n words, symbols left out; one of all words where they are fewer."""
    words = np.empty(len(hashes), np.uint64)
    n = 0
    for i in range(len(hashes)):
        words[n] = hashes[i]
        n += not symbols[i]
    if n == 0:
        return words[:0]
    size = min(n_grams, n)
    for i in range(n - size + 1):  # each result takes the place of the first of its words
        h = np.uint64(size)
        for j in range(i, i + size):
            h = (h ^ words[j]) * np.uint64(_GOLDEN)
            h ^= h >> np.uint64(32)
        words[i] = mix(h)
    return words[: n - size + 1]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _once(ordered: Any) -> Any:
    """A sorted array without repetition, in place."""
    n = 0
    for i in range(len(ordered)):
        ordered[n] = ordered[i]
        n += i + 1 == len(ordered) or ordered[i + 1] != ordered[i]
    return ordered[:n]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _minima(shingles: Any, factors: Any, terms: Any, low: Any) -> None:
    """The least value of every permutation over the shingles, four shingles a pass: the inner loop is SIMD."""
    low[:] = np.uint32(0xFFFFFFFF)
    n = len(shingles)
    shift = np.uint64(32)
    for i in range(0, n, 4):  # the last few again, which changes no minimum
        x = np.uint32(shingles[i] >> shift)
        y = np.uint32(shingles[min(i + 1, n - 1)] >> shift)
        z = np.uint32(shingles[min(i + 2, n - 1)] >> shift)
        w = np.uint32(shingles[min(i + 3, n - 1)] >> shift)
        for j in range(len(low)):
            a, b = factors[j], terms[j]
            p, q = np.uint32(a * x + b), np.uint32(a * y + b)
            r, s = np.uint32(a * z + b), np.uint32(a * w + b)
            low[j] = min(low[j], min(min(p, q), min(r, s)))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _band_hashes(low: Any, rows: int, out: Any) -> None:
    """(bands,) 64 bits of each band's minima and number, so that one key serves all bands."""
    for band in range(len(out)):
        h = np.uint64(band + 1) * np.uint64(_GOLDEN)
        for j in range(band * rows, (band + 1) * rows):
            h = mix(h ^ np.uint64(low[j])) + np.uint64(_GOLDEN)
        out[band] = h
