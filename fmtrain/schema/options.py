"""Fields with several shapes: a base class, and the class behind each name that its first field (`name`) may have.

    options(Schedule, cosine=Cosine, constant=Constant)

The modules that define the classes say so; a Hydra group of the base's name holds what each option starts from.
"""

import dataclasses
from typing import Any

from fmtrain.schema.fields import MISSING

OPTIONS: dict[type, dict[str, type]] = {}


def options(base: type, **classes: type) -> None:
    """Add options to those of `base`."""
    OPTIONS.setdefault(base, {}).update(classes)


def chooser(base: type) -> str:
    """The field whose value chooses the class: `name`, of a stage `kind`."""
    return dataclasses.fields(base)[0].name


def chosen(base: type, data: Any) -> type:
    """The class whose fields `data` has; `base` itself where nothing chooses among its options."""
    if base not in OPTIONS:
        return base
    given = data.get(chooser(base), MISSING) if isinstance(data, dict) else MISSING
    return OPTIONS[base].get(given, base) if isinstance(given, str) else base
