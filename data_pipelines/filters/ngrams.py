"""How many characters of a text stand in repeated word n-grams: compiled passes over the hashes of words.

Counts exactly as datatrove's Gopher repetition filter does, except that two n-grams with one 64-bit hash are one.
"""

from typing import Any

import numba
import numpy as np

from data_pipelines.words import Words, mix

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


def first_broken(words: Words, characters: int, top: Any, repeated: Any) -> tuple[int, int]:
    """The first n whose share of `characters` is over its limit, and its characters; (0, 0) where none is.

    `top` (at most 3,) float64 are the limits for n = 2, 3, 4; `repeated` (any,) those for n = 5, 6, ..
    """
    n, found = _first_broken(words.codes, words.starts, words.ends, words.hashes, characters, top, repeated)
    return int(n), int(found)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first_broken(
    codes: Any, starts: Any, ends: Any, hashes: Any, characters: int, top: Any, repeated: Any
) -> tuple[int, int]:
    table, lengths = _table(len(hashes)), _lengths(starts, ends)
    for i in range(len(top)):
        found = _top(hashes, lengths, 2 + i, table)
        if found > 0 and found / characters > top[i]:
            return 2 + i, found
    sums, inverses = _prefixes(codes, starts, ends)
    for i in range(len(repeated)):
        n = 5 + i
        found = _repeated(sums, inverses, lengths, n, table)
        if found / characters > repeated[i]:
            return n, found
    return 0, 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _table(n: int) -> Any:
    """(3, slots) uint64: an n-gram's hash (0: a free slot), its occurrences, its first place. At most half full."""
    slots = 16
    while slots < 2 * n:
        slots *= 2
    return np.empty((3, slots), np.uint64)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lengths(starts: Any, ends: Any) -> Any:
    """(n + 1,) int64: characters of the words before each."""
    sums = np.zeros(len(starts) + 1, np.int64)
    for i in range(len(starts)):
        sums[i + 1] = sums[i] + ends[i] - starts[i]
    return sums


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mix(h: Any) -> Any:
    """A hash that is never 0: that is a free slot's."""
    h = mix(h)
    return h if h else np.uint64(1)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _slot(keys: Any, h: Any) -> Any:
    """Where `h` stands, or the free slot where it belongs."""
    mask = np.uint64(len(keys) - 1)
    slot = h & mask
    while keys[slot] != 0 and keys[slot] != h:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _top(hashes: Any, lengths: Any, n: int, table: Any) -> int:
    """Words hold no space, so joined words are equal where their sequences are."""
    keys, counts, places = table[0], table[1], table[2]
    keys[:] = 0
    most, first = np.uint64(0), np.uint64(0)
    for i in range(len(hashes) - n + 1):
        h = np.uint64(0)
        for j in range(i, i + n):
            h = h * np.uint64(_BASE) + hashes[j]
        h = _mix(h)
        slot = _slot(keys, h)
        if keys[slot] == 0:
            keys[slot], counts[slot], places[slot] = h, 0, i
        counts[slot] += np.uint64(1)
        if counts[slot] > most or (counts[slot] == most and places[slot] < first):
            most, first = counts[slot], places[slot]
    at = np.int64(first)
    return np.int64(most) * (lengths[at + n] - lengths[at] + n - 1) if most else 0


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _prefixes(codes: Any, starts: Any, ends: Any) -> Any:
    """Hashes of runs of words joined without spaces, whatever the borders between them ("ab c" is "a bc").

    sums[i] is the sum of (c_k + 1) B^k over the characters c_k of the words before i, k counting on over words, and
    inverses[i] is B^-k at its end: (sums[j] - sums[i]) inverses[i] is the polynomial hash of words i to j.
    """
    sums, inverses = np.zeros(len(starts) + 1, np.uint64), np.ones(len(starts) + 1, np.uint64)
    total, power, inverse = np.uint64(0), np.uint64(1), np.uint64(1)
    for i in range(len(starts)):
        for k in range(starts[i], ends[i]):
            total += (np.uint64(codes[k]) + np.uint64(1)) * power
            power *= np.uint64(_BASE)
            inverse *= np.uint64(_INVERSE)
        sums[i + 1], inverses[i + 1] = total, inverse
    return sums, inverses


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _repeated(sums: Any, inverses: Any, lengths: Any, n: int, table: Any) -> int:
    keys = table[0]
    keys[:] = 0
    characters, i = 0, 0
    while i < len(sums) - n:
        h = _mix((sums[i + n] - sums[i]) * inverses[i])
        slot = _slot(keys, h)
        if keys[slot] == h:
            characters += lengths[i + n] - lengths[i]
            i += n
        else:
            keys[slot] = h
            i += 1
    return characters
