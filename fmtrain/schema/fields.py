"""How a field says whether it belongs to an artifact's identity."""

import dataclasses
from typing import Any

MISSING = "???"  # Hydra's and OmegaConf's mark for a mandatory value that nobody gave


def outside(default: Any) -> Any:
    """A field that may change without changing the result: it stays out of the fingerprint."""
    metadata = {"identity": False}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def items(*values: Any) -> Any:
    """A list field that belongs to the identity."""
    return dataclasses.field(default_factory=lambda: list(values))
