"""How a field says whether it belongs to an artifact's identity."""

import dataclasses
from typing import Any

MISSING = "???"  # Hydra's and OmegaConf's mark for a mandatory value that nobody gave
TEMPLATE_DATE = "2026-01-01"  # what chat templates that ask for today's date are told, unless another day is named


def outside(default: Any) -> Any:
    """A field that may change without changing the result: it stays out of the fingerprint."""
    metadata = {"identity": False}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def later(default: Any) -> Any:
    """A field that came when there were artifacts already: it belongs to the identity where it is not this default, so
    that what was made before it is known by the same fingerprint."""
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"later": True})
    return dataclasses.field(default=default, metadata={"later": True})


def usual(field: "dataclasses.Field[Any]", value: Any) -> bool:
    """Whether the value of a field that came later is the default, which says nothing."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(field.metadata.get("later", False)) and value == default


def items(*values: Any) -> Any:
    """A list field that belongs to the identity."""
    return dataclasses.field(default_factory=lambda: list(values))


def file() -> Any:
    """An optional path of a file whose content, not whose path, belongs to the identity (see `referenced`)."""
    return dataclasses.field(default=None, metadata={"identity": False, "file": True})


def files() -> Any:
    """Paths or globs of files whose content, not whose paths, belongs to the identity (see `referenced`)."""
    return dataclasses.field(default_factory=list, metadata={"identity": False, "file": True})


def place(default: Any, identity: bool = False) -> Any:
    """Where data or a model lies, a path, globs or a name: whoever makes the same again says their own."""
    metadata = {"identity": identity, "place": True}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def data_sets(into: str) -> Any:
    """Data sets (fmtrain.schema.evaluation_sets) whose commit or content, not whose entry, belongs to the identity.

    A worker reads them from files, which it adds to those of the field `into`.
    """
    return dataclasses.field(default_factory=list, metadata={"identity": False, "file": True, "data_sets": into})


@dataclasses.dataclass(frozen=True)
class Reference:
    """Something beside the data that a setting names."""

    key: str  # dotted field that names it
    value: str  # path or glob; a data set's entry
    is_data_set: bool


def referenced(config: Any, prefix: str = "") -> list[Reference]:
    """What the `file`, `files` and `data_sets` fields under a dataclass name."""
    found: list[Reference] = []
    for f in dataclasses.fields(config):
        value, key = getattr(config, f.name), f"{prefix}{f.name}"
        if f.metadata.get("file") and value:
            values = [value] if isinstance(value, str) else value
            found += [Reference(key, v, "data_sets" in f.metadata) for v in values]
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += referenced(value, f"{key}.")
    return found
