"""Which rows a step takes: a pure function of (seed, step), so that ranks, micro-batches and restarts cannot change it.

Nothing is remembered between steps but a cached permutation; a resumed run asks for its step and gets the same rows.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def batch_rows(seed: int, step: int, rows: int, global_batch_size: int) -> list[int]:
    """The row numbers of optimizer step `step` (0-based), over all ranks, in order.

    Position p = step * global_batch_size + i of the endless stream lies in epoch p // rows; each epoch is a fresh
    permutation of all rows. A batch may run over an epoch's end, and may hold several epochs of few rows.
    """
    if rows < 1 or global_batch_size < 1 or step < 0:
        raise ValueError(f"batch_rows: rows={rows}, global_batch_size={global_batch_size}, step={step} out of range")
    first = step * global_batch_size
    found: list[int] = []
    while len(found) < global_batch_size:
        epoch, at = divmod(first + len(found), rows)
        found += permutation(seed, epoch, rows)[at : at + global_batch_size - len(found)].tolist()
    return found


@lru_cache(maxsize=2)  # this epoch's and the next one's, where a batch runs over the end
def permutation(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """Epoch `epoch`'s order of all rows, (rows,)."""
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch]))).permutation(rows)
    order.flags.writeable = False
    return order
