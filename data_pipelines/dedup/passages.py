"""The paragraphs and lines of a text, each with a hash of 128 bits, by one compiled pass over its code points.

A line ends at its line feed. A paragraph is a run of lines that are not blank. Words are what stands between white
space (`str.split`); white space around a passage is no part of its hash.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.words import SPACE, classes, code_points, mix

_LINE_FEED = 10


def passages(text: str, paragraphs: bool, least: int) -> npt.NDArray[np.uint64]:
    """(4, n): of each paragraph or line of `least` words or more both halves of its hash, its start, the next one's."""
    codes = code_points(text)
    out = np.empty((4, int(np.count_nonzero(codes == _LINE_FEED)) + 1), np.uint64)
    return out[:, : _passages(codes, classes(), paragraphs, least, out)]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _passages(codes: Any, table: Any, paragraphs: bool, least: int, out: Any) -> int:
    """Fill `out`; the number of passages."""
    n, size, at = 0, len(codes), 0
    begun, last, parted = -1, 0, False  # the paragraph at hand, where its last line ends, a blank line since
    while at < size:
        end, blank = at, True
        while end < size and codes[end] != _LINE_FEED:
            blank &= table[codes[end]] == SPACE
            end += 1
        after = min(end + 1, size)
        if blank:
            parted = True
        elif not paragraphs:
            n += _put(codes, table, at, end, after, least, out[:, n])
        else:
            if begun < 0 or parted:
                if begun >= 0:
                    n += _put(codes, table, begun, last, at, least, out[:, n])
                begun = at
            last, parted = end, False
        at = after
    if begun >= 0:
        n += _put(codes, table, begun, last, size, least, out[:, n])
    return n


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put(codes: Any, table: Any, start: int, end: int, after: int, least: int, out: Any) -> int:
    """Write a passage if it has `least` words: 1, else 0."""
    words, space = 0, True
    for i in range(start, end):
        now = table[codes[i]] == SPACE
        words += space and not now
        space = now
    if words < least:
        return 0
    first, stop = start, end
    while table[codes[first]] == SPACE:
        first += 1
    while table[codes[stop - 1]] == SPACE:
        stop -= 1
    one, other = np.uint64(0xCBF29CE484222325), np.uint64(stop - first)
    for i in range(first, stop):  # FNV-1a, and one that adds where it multiplies by another number
        one = (one ^ np.uint64(codes[i])) * np.uint64(0x100000001B3)
        other = (other + np.uint64(codes[i])) * np.uint64(0x9E3779B97F4A7C15)
        other ^= other >> np.uint64(32)
    out[0], out[1], out[2], out[3] = mix(one), mix(other), start, after
    return 1
