"""What a model has to beat on held-out text: gzip -9 and xz -9, a file at a time, and token frequencies.

Each gives one document's cost in nats beside its bytes; the rates and intervals are text.py's.
"""

import gzip
import lzma
import math

import numpy as np
from numpy.typing import NDArray

NATS_PER_BYTE = 8 * math.log(2)


def gzip_nats(data: bytes) -> float:
    """The size of `gzip -9n < data` in nats."""
    return len(gzip.compress(data, compresslevel=9, mtime=0)) * NATS_PER_BYTE


def xz_nats(data: bytes) -> float:
    """The size of `xz -9 < data` in nats (the container's default check, CRC64, is part of it)."""
    return len(lzma.compress(data, preset=9)) * NATS_PER_BYTE


def unigram(counts: NDArray[np.int64], never: list[int]) -> NDArray[np.float64]:
    """-ln p of each token, (vocab,), from training counts with add-one smoothing; `never` are never scored.

    Leaving the document marks out of the counts is in the baseline's favour.
    """
    kept = counts.astype(np.float64) + 1.0
    kept[never] = 0.0
    with np.errstate(divide="ignore"):
        cost: NDArray[np.float64] = -np.log(kept / kept.sum())
    return cost
