"""A transformers model as the function that an objective calls."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def logits_of(call: Callable[..., Any], module: nn.Module, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Logits (batch, seq, vocab) of `module`, called through `call` (itself, or the engine around it)."""
    options = {"use_cache": False} if _has_cache(type(module).forward) else {}
    logits: Tensor = call(input_ids=input_ids, attention_mask=attention_mask, **options).logits
    return logits


@functools.cache
def _has_cache(forward: Callable[..., Any]) -> bool:
    return "use_cache" in inspect.signature(forward).parameters
