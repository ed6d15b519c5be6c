"""Plain data to schema dataclasses and back: the one place that knows which keys there are and what a value may be.

A recipe, an override and what a worker reads pass through here alike.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from typing import Any, TypeVar

from fmtrain.errors import ConfigError
from fmtrain.schema.fields import MISSING, usual
from fmtrain.schema.limits import GREATEST
from fmtrain.schema.options import OPTIONS, chooser, chosen

T = TypeVar("T")
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {int: ("a whole number", 4), float: ("a number", 0.5), bool: ("true or false", "true"), str: ("a text", "a")}


class UnknownSetting(ConfigError):
    """A key that no setting has, dotted from the root of what is loaded."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Field -> its type, limits included."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {f.name: found[f.name] for f in dataclasses.fields(cls)}


def load(cls: type[T], data: Any, path: str = "") -> T:
    """Build `cls` from decoded JSON; ConfigError names the path of an unknown key, a missing value, a wrong type."""
    return typing.cast(T, _value(cls, data, path))


def dump(config: Any) -> dict[str, Any]:
    """The dataclass as JSON data."""
    return dataclasses.asdict(config)


def identity(config: Any) -> Any:
    """The dataclass as JSON data without the fields marked `outside`, or `later` and not set: what a fingerprint is
    taken of."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            f.name: identity(getattr(config, f.name))
            for f in dataclasses.fields(config)
            if f.metadata.get("identity", True) and not usual(f, getattr(config, f.name))
        }
    if isinstance(config, list):
        return [identity(item) for item in config]
    if isinstance(config, dict):
        return {name: identity(value) for name, value in config.items()}
    return config


def filled(hint: Any, data: Any) -> Any:
    """`data` with the defaults of what it leaves out; a key that does not belong there stays for `load` to refuse."""
    hint = bare(hint)
    if not isinstance(data, dict):
        named = isinstance(data, str) and data != MISSING and not data.startswith("${")  # a reference is all of it
        return {chooser(hint): data} if hint in OPTIONS and named else data
    if typing.get_origin(hint) is dict:
        return {name: filled(typing.get_args(hint)[1], value) for name, value in data.items()}
    if not dataclasses.is_dataclass(hint):
        return data
    cls = chosen(typing.cast(type, hint), data)
    found = {}
    for f in dataclasses.fields(cls):
        value = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if value is not dataclasses.MISSING:
            found[f.name] = dump(value) if dataclasses.is_dataclass(value) else value
    hints = hints_of(cls)
    for name, value in data.items():
        base = bare(hints.get(name))
        if base in OPTIONS and isinstance(value, dict) and isinstance(found.get(name), dict):
            value = {chooser(base): found[name][chooser(base)]} | value  # the default's option, unless told
        found[name] = filled(base, value)
    return found


def bare(hint: Any) -> Any:
    """The type behind `X | None` and behind limits."""
    if typing.get_origin(hint) is typing.Annotated:
        return bare(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return bare(next(a for a in typing.get_args(hint) if a is not type(None)))
    return hint


def _value(hint: Any, data: Any, path: str, default: Any = None) -> Any:
    """`data` as `hint` says, checked; `default` is a value that a message may give as an example."""
    origin = typing.get_origin(hint)
    if hint is Any:  # as it is: what it may be, whoever reads it says
        return data
    if origin is typing.Annotated:
        return _limited(hint, data, path, default)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        return _value(next(a for a in typing.get_args(hint) if a is not type(None)), data, path, default)
    if origin is dict:
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: {data!r} is not a group of settings")
        inner = typing.get_args(hint)[1]
        return {str(name): _value(inner, value, f"{path}.{name}") for name, value in data.items()}
    if origin is list:
        data = [data] if isinstance(data, (str, int, float)) else data
        if not isinstance(data, list):
            raise ConfigError(f"{path}: {data!r} is not a list; e.g. {path}=[a,b]")
        (item,) = typing.get_args(hint)
        return [_value(item, d, f"{path}[{i}]") for i, d in enumerate(data)]
    if dataclasses.is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), data, path)
    return _scalar(hint, data, path, default)


def _limited(hint: Any, data: Any, path: str, default: Any) -> Any:
    """A value of the type behind an Annotated one, within its limits."""
    kind, limits = typing.get_args(hint)
    value = _value(kind, data, path, default)
    if limits.hold(value):
        return value
    near = difflib.get_close_matches(str(value), [str(c) for c in limits.choices], 1)
    example = near[0] if near else limits.such or (limits.example() if default is None else default)
    key, _, in_list = path.partition("[")
    raise ConfigError(f"{path}: {value!r} is not {limits}; e.g. {key}={f'[{example}]' if in_list else example}")


def _scalar(hint: Any, data: Any, path: str, default: Any) -> Any:
    if data == MISSING:
        raise ConfigError(f"{path} is required and was not given; e.g. {path}=VALUE")
    value = _converted(hint, data)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        what, example = _KINDS[hint]
        key, _, in_list = path.partition("[")
        example = example if default is None or isinstance(default, bool) else default
        given = "null" if data is None else repr(data)
        raise ConfigError(f"{path}: {given} is not {what}; e.g. {key}={f'[{example}]' if in_list else example}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {value} is not a finite number")
    if isinstance(value, int) and abs(value) > GREATEST:
        raise ConfigError(f"{path}: {str(value)[:40]} has more digits than a number may have ({GREATEST} at most)")
    return value


def _converted(hint: Any, data: Any) -> Any:
    """What is given as a text, as all of the environment is, or as a number where a text is wanted; else as it is."""
    if hint is str and isinstance(data, (int, float)):
        return str(data)
    if hint is bool and isinstance(data, (str, int)):
        return _WORDS.get(str(data).lower(), data)
    try:
        if hint is int and isinstance(data, str):
            return int(data)
        if hint is float and isinstance(data, (str, int)) and not isinstance(data, bool):
            return float(data)
    except (ValueError, OverflowError):
        pass
    return data


def _dataclass(cls: type, data: Any, path: str) -> Any:
    if cls in OPTIONS and isinstance(data, str) and data != MISSING:
        data = {chooser(cls): data}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: {data!r} is not a group of settings ({cls.__name__})")
    if cls in OPTIONS:
        key = chooser(cls)
        name = data.get(key, MISSING)
        if not isinstance(name, str) or name not in OPTIONS[cls]:
            near = difflib.get_close_matches(str(name), OPTIONS[cls], 1)
            mean = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path}.{key}: {name!r} is not one of {', '.join(sorted(OPTIONS[cls]))}{mean}")
        cls = OPTIONS[cls][name]
    hints = hints_of(cls)
    if unknown := sorted(set(data) - set(hints)):
        near = difflib.get_close_matches(unknown[0], hints, 1)
        mean = f"; did you mean {near[0]!r}?" if near else ""
        key = f"{path}.{unknown[0]}" if path else unknown[0]
        raise UnknownSetting(key, f"{key} is not a setting of {cls.__name__}{mean}")
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if isinstance(f.default, (int, float, str))}
    values = {k: _value(hints[k], v, f"{path}.{k}" if path else k, defaults.get(k)) for k, v in data.items()}
    return cls(**values)
