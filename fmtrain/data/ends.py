"""The ends of a masked model's row, <cls> and <sep>: the same in training, in scoring and where a gap is filled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Ends:
    """What stands before and after a row; nothing where the tokenizer lacks one of the two."""

    cls_id: int | None
    sep_id: int | None

    @property
    def count(self) -> int:
        """Positions of a row that its ends take."""
        return 0 if self.cls_id is None or self.sep_id is None else 2

    @property
    def before(self) -> int:
        """Positions before the row's first own token."""
        return self.count // 2


def ends_of(tokenizer: PreTrainedTokenizerBase) -> Ends:
    return Ends(tokenizer.cls_token_id, tokenizer.sep_token_id)


def with_ends(ids: NDArray[np.int64], ends: Ends) -> NDArray[np.int64]:
    """`ids` (..., n) between cls and sep, (..., n + ends.count)."""
    if not ends.count:
        return ids
    edge = np.ones((*ids.shape[:-1], 1), np.int64)
    return np.concatenate([edge * ends.cls_id, ids, edge * ends.sep_id], axis=-1).astype(np.int64)
