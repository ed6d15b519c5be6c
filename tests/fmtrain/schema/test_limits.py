"""Every number and every choice of a setting is bounded beside its field, and refused one step beyond."""

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import fmtrain.kinds
import fmtrain.schema
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import Amount
from fmtrain.schema.limits import Limits
from fmtrain.schema.load import load
from fmtrain.schema.options import OPTIONS
from fmtrain.schema.training import Shape

PLANNED = (Limits, Shape, Amount)  # no settings
STEP = 1e-6  # from an end of a range of floats


def settings() -> Iterator[tuple[type, str, Any]]:
    """Every config dataclass's fields with their types; what a program writes into a job (strings alone) among them."""
    rooms = (fmtrain.schema, fmtrain.kinds)
    for name in [f"{room.__name__}.{m.name}" for room in rooms for m in pkgutil.iter_modules(room.__path__)]:
        found = importlib.import_module(name)
        for cls in vars(found).values():
            if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls.__module__ == found.__name__:
                if cls in PLANNED:
                    continue
                hints = typing.get_type_hints(cls, include_extras=True)
                yield from ((cls, f.name, hints[f.name]) for f in dataclasses.fields(cls))


def leaf(hint: Any) -> Any:
    """The type of one value: behind `| None` and list."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return leaf(next(a for a in typing.get_args(hint) if a is not type(None)))
    return leaf(typing.get_args(hint)[0]) if typing.get_origin(hint) is list else hint


def is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is list


LIMITED = [s for s in settings() if typing.get_origin(leaf(s[2])) is typing.Annotated]


def test_every_number_has_limits() -> None:
    bare = [f"{cls.__name__}.{name}" for cls, name, hint in settings() if leaf(hint) in (int, float)]
    assert not bare, "give each Limits beside the field (fmtrain/schema/limits.py)"
    assert len(LIMITED) > 100


def beyond(kind: type, limits: Limits) -> list[Any]:
    """Values just outside each end."""
    if limits.pattern:
        return ["no such form"]
    if limits.choices:
        return ["no such choice"] if kind is str else [max(limits.choices) + 1, min(limits.choices) - 1]
    step = 1 if kind is int else STEP
    ends = [(limits.least, -step), (limits.greatest, step), (limits.above, 0), (limits.below, 0)]
    return [kind(end + by) for end, by in ends if end is not None]


@pytest.mark.parametrize(("cls", "name", "hint"), LIMITED, ids=[f"{c.__name__}.{n}" for c, n, _ in LIMITED])
def test_each_limit_is_kept(cls: type, name: str, hint: Any) -> None:
    kind, limits = typing.get_args(leaf(hint))
    (field,) = (f for f in dataclasses.fields(cls) if f.name == name)
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    for value in default if isinstance(default, list) else [default]:
        assert value in (None, dataclasses.MISSING) or limits.hold(value), "its own default"
    assert limits.hold(limits.example())
    option = {"name": next(iter(OPTIONS[cls]))} if cls in OPTIONS else {}
    for value in beyond(kind, limits):
        with pytest.raises(ConfigError, match=rf"^{name}(\[0\])?: .*{value!r} .*; e\.g\. {name}="):
            load(cls, {**option, name: [value] if is_list(hint) else value})


def test_no_number_is_longer_than_what_libraries_take() -> None:
    from fmtrain.schema.training import AdamW, Cosine

    for cls, name in ((Cosine, "warmup_steps"), (AdamW, "weight_decay")):
        with pytest.raises(ConfigError, match=f"{name}: 10000"):
            load(cls, {name: 10**400})
