"""Sequences of words met in a text, by hash, for decontamination, lists of phrases and repeated substrings.

A sequence is a polynomial over the 64-bit hashes of its words, finished with its length. Two different sequences meet
with a chance of about 2**-64 a pair. Knows nothing of rows, lists or documents.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.words import mix, split

Hashes = npt.NDArray[np.uint64]


def plain_words(text: str) -> Hashes:
    """(n,) hashes of the words of `text`, lower-cased, punctuation left out."""
    words = split(text.lower())
    return words.hashes[~words.symbols]


def grams(words: Hashes, length: int) -> Hashes:
    """(max(n - length + 1, 0),) the hash of each sequence of `length` words."""
    out = np.empty(max(len(words) - length + 1, 0), np.uint64)
    _grams(words, length, out)
    return out


class Sequences:
    """A set of sequences of one or several lengths; each has the number of its place among the sorted hashes."""

    def __init__(self, hashes: Hashes, lengths: list[int]) -> None:
        """`hashes` (n,), sorted, without repeats; `lengths`: those that occur among them."""
        self.lengths = np.array(sorted(set(lengths)), np.int64)
        size = 16
        while size < 2 * len(hashes):
            size *= 2
        self._slots = np.full(size, -1, np.int32)
        self._hashes = hashes
        _fill(hashes, self._slots)

    def find(self, words: Hashes) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """(numbers, starts, lengths), each (m,): every place in `words` where a sequence stands."""
        room = len(words) * len(self.lengths)
        out = np.empty((3, room), np.int32)
        m = _find(words, self.lengths, self._hashes, self._slots, out)
        found = out[:, :m].copy()
        return found[0], found[1], found[2]


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _finish(h: Any, length: Any) -> Any:
    """murmur3's finaliser over the polynomial and the length."""
    return mix(h + np.uint64(length) * np.uint64(0x9E3779B97F4A7C15))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grams(words: Any, length: int, out: Any) -> None:
    if len(words) < length:
        return
    base, top, h = np.uint64(0x5851F42D4C957F2D), np.uint64(1), np.uint64(0)
    for j in range(length):
        h = h * base + words[j]
        if j:
            top *= base
    for i in range(len(words) - length + 1):
        if i:
            h = (h - words[i - 1] * top) * base + words[i + length - 1]
        out[i] = _finish(h, length)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(hashes: Any, slots: Any) -> None:
    mask = np.uint64(len(slots) - 1)
    for number in range(len(hashes)):
        at = hashes[number] & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = number


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find(words: Any, lengths: Any, hashes: Any, slots: Any, out: Any) -> int:
    """Fill out[:, :m] with number, start and length; m."""
    mask, m = np.uint64(len(slots) - 1), 0
    found = np.empty(len(words), np.uint64)
    for length in lengths:
        _grams(words, length, found)
        for i in range(len(words) - length + 1):
            at = found[i] & mask
            while slots[at] >= 0:
                if hashes[slots[at]] == found[i]:
                    out[0, m], out[1, m], out[2, m] = slots[at], i, length
                    m += 1
                    break
                at = (at + np.uint64(1)) & mask
    return m
