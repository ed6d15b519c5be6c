"""The paragraphs and lines of a text, each with a hash of 128 bits, by one compiled pass over its code points.

A line ends at its line feed. A paragraph is a run of lines that are not blank. Words are what stands between white
space (`str.split`); white space around a passage is no part of its hash.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.words import classes, code_points, mix

_LINE_FEED = 10


def passages(
    text: str, paragraphs: bool, least: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """(high, low) of the hash, start, and where the next begins, of each paragraph or line of `least` words or more."""
    codes = code_points(text)
    room = int(np.count_nonzero(codes == _LINE_FEED)) + 1
    high, low = np.empty(room, np.uint64), np.empty(room, np.uint64)
    starts, afters = np.empty(room, np.uint32), np.empty(room, np.uint32)
    n = _passages(codes, classes(), paragraphs, least, high, low, starts, afters)
    return high[:n], low[:n], starts[:n], afters[:n]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _passages(
    codes: Any, table: Any, paragraphs: bool, least: int, high: Any, low: Any, starts: Any, afters: Any
) -> int:
    """Fill the four arrays; the number of passages."""
    n, size, at, begun, last = 0, len(codes), 0, -1, 0
    while at < size:
        end, blank = at, True
        while end < size and codes[end] != _LINE_FEED:
            blank &= table[codes[end]] == 0
            end += 1
        after = min(end + 1, size)
        if not blank:
            if not paragraphs:
                n += _put(codes, table, at, end, after, least, n, high, low, starts, afters)
            else:
                begun = at if begun < 0 else begun
                last = end
        at = after
        if begun >= 0 and (blank or at == size):
            while blank and at < size and table[codes[at]] == 0:  # to the line that the next one begins at
                at += 1
            if blank and at < size:
                while codes[at - 1] != _LINE_FEED:
                    at -= 1
            n += _put(codes, table, begun, last, at, least, n, high, low, starts, afters)
            begun = -1
    return n


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put(
    codes: Any,
    table: Any,
    start: int,
    end: int,
    after: int,
    least: int,
    n: int,
    high: Any,
    low: Any,
    starts: Any,
    afters: Any,
) -> int:
    """Write the passage at `n` if it has `least` words: 1, else 0."""
    words, space = 0, True
    for i in range(start, end):
        now = table[codes[i]] == 0
        words += space and not now
        space = now
    if words < least:
        return 0
    first, stop = start, end
    while table[codes[first]] == 0:
        first += 1
    while table[codes[stop - 1]] == 0:
        stop -= 1
    one, other = np.uint64(0xCBF29CE484222325), np.uint64(stop - first)
    for i in range(first, stop):  # FNV-1a, and one that adds where it multiplies by another number
        one = (one ^ np.uint64(codes[i])) * np.uint64(0x100000001B3)
        other = (other + np.uint64(codes[i])) * np.uint64(0x9E3779B97F4A7C15)
        other ^= other >> np.uint64(32)
    high[n], low[n] = mix(one), mix(other)
    starts[n], afters[n] = start, after
    return 1
