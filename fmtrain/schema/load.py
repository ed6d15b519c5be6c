"""Plain JSON data to schema dataclasses and back, without OmegaConf: what a worker reads is checked as strictly."""

import dataclasses
import difflib
import math
import types
import typing
from typing import Any, TypeVar

from fmtrain.errors import ConfigError
from fmtrain.schema.fields import MISSING
from fmtrain.schema.limits import GREATEST
from fmtrain.schema.root import KINDS

T = TypeVar("T")


def load(cls: type[T], data: Any, path: str = "") -> T:
    """Build `cls` from decoded JSON; ConfigError names the path of an unknown key, a missing value, a wrong type."""
    return typing.cast(T, _value(cls, data, path))


def dump(config: Any) -> dict[str, Any]:
    """The dataclass as JSON data."""
    return dataclasses.asdict(config)


def identity(config: Any) -> Any:
    """The dataclass as JSON data without the fields marked `outside`: what a fingerprint is taken of."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            f.name: identity(getattr(config, f.name))
            for f in dataclasses.fields(config)
            if f.metadata.get("identity", True)
        }
    if isinstance(config, list):
        return [identity(item) for item in config]
    return config


def _value(hint: Any, data: Any, path: str, default: Any = None) -> Any:
    """`data` as `hint` says, checked; `default` is a value that a message may give as an example."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _limited(hint, data, path, default)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        return _value(next(a for a in typing.get_args(hint) if a is not type(None)), data, path, default)
    if origin is list:
        if not isinstance(data, list):
            raise ConfigError(f"{path}: {data!r} is not a list; e.g. {path}=[a,b]")
        (item,) = typing.get_args(hint)
        return [_value(item, d, f"{path}[{i}]") for i, d in enumerate(data)]
    if dataclasses.is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), data, path)
    return _scalar(hint, data, path)


def _limited(hint: Any, data: Any, path: str, default: Any) -> Any:
    """A value of the type behind an Annotated one, within its limits."""
    kind, limits = typing.get_args(hint)
    value = _value(kind, data, path)
    if limits.hold(value):
        return value
    near = difflib.get_close_matches(str(value), [str(c) for c in limits.choices], 1)
    example = near[0] if near else limits.example() if default is None else default
    key, _, in_list = path.partition("[")
    raise ConfigError(f"{path}: {value!r} is not {limits}; e.g. {key}={f'[{example}]' if in_list else example}")


def _scalar(hint: Any, data: Any, path: str) -> Any:
    if data == MISSING:
        raise ConfigError(f"{path} is required and was not given; e.g. {path}=VALUE")
    if isinstance(data, float) and not math.isfinite(data):
        raise ConfigError(f"{path}: {data} is not a finite number")
    if isinstance(data, int) and abs(data) > GREATEST:
        raise ConfigError(f"{path}: {str(data)[:40]} has more digits than a number may have ({GREATEST} at most)")
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (hint is int and isinstance(data, bool)):
        raise ConfigError(f"{path}: {data!r} is not of type {hint.__name__}")
    return data


def _dataclass(cls: type, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: {data!r} is not a group of settings ({cls.__name__})")
    if cls in KINDS:
        name = data.get("name", MISSING)
        if name not in KINDS[cls]:
            raise ConfigError(f"{path}.name: {name!r} is not one of {', '.join(sorted(KINDS[cls]))}")
        cls = KINDS[cls][name]
    hints = typing.get_type_hints(cls, include_extras=True)
    if unknown := sorted(set(data) - set(hints)):
        raise ConfigError(f"{path + '.' if path else ''}{unknown[0]} is not a setting of {cls.__name__}")
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if isinstance(f.default, (int, float, str))}
    values = {k: _value(hints[k], v, f"{path}.{k}" if path else k, defaults.get(k)) for k, v in data.items()}
    return cls(**values)
