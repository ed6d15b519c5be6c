"""What a setting is, told from the dataclasses alone: its type, its default, its limits, the comment beside its field.

Made of it: `fmtrain options`, the reference page docs/settings.md and a JSON Schema for editors (`fmtrain schema`).
"""

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fmtrain.schema.fields import MISSING
from fmtrain.schema.limits import GREATEST, Limits
from fmtrain.schema.load import bare, hints_of
from fmtrain.schema.options import OPTIONS, chooser

_TYPES = {
    int: ("whole number", "integer"),
    float: ("number", "number"),
    bool: ("true or false", "boolean"),
    str: ("text", "string"),
}


@dataclass(frozen=True)
class Setting:
    """One field of a dataclass, as a reader wants it."""

    key: str  # dotted, below the class
    kind: str  # a number from 0 to 1; list of text
    default: str  # "" where it must be given
    what: str


def about(cls: type) -> str:
    """Its docstring on one line; "" where nobody wrote one."""
    text = " ".join((cls.__doc__ or "").split())
    return "" if text.startswith(f"{cls.__name__}(") else text


@functools.cache
def comments(cls: type) -> dict[str, str]:
    """Field -> the comment beside it, or else on the lines above it; of the classes that it extends too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            text = textwrap.dedent(inspect.getsource(base))
        except OSError:  # made while running
            continue
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = _beside(lines, node) or found.get(node.target.id, "")
    return found


def _beside(lines: list[str], node: ast.AnnAssign) -> str:
    inside = [line[line.index("  # ") + 4 :] for line in lines[node.lineno - 1 : node.end_lineno] if "  # " in line]
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("# "):
            break
        above.insert(0, line.strip()[2:])
    return " ".join([*above, *inside])


def settings(cls: type, prefix: str = "") -> Iterator[Setting]:
    """The settings of a class, those of its groups with one shape too; a group with options is one line."""
    beside = comments(cls)
    for field in dataclasses.fields(cls):
        hint, key = hints_of(cls)[field.name], f"{prefix}{field.name}"
        inner = bare(hint)
        if dataclasses.is_dataclass(inner) and inner not in OPTIONS and field.default is dataclasses.MISSING:
            yield from settings(typing.cast(type, inner), f"{key}.")
            continue
        yield Setting(key, told(hint), _default(field), beside.get(field.name, ""))


def told(hint: Any) -> str:
    """A type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        kind = "whole number" if args[0] is int else "number"
        return str(args[1]).replace("a number", f"a {kind}")
    if origin in (typing.Union, types.UnionType):
        return f"{told(next(a for a in args if a is not type(None)))}, or null"
    if origin is list:
        return f"list of {told(args[0])}"
    if origin is dict:
        return f"map of names to {told(args[1])}"
    if hint is Any:
        return "values"
    if hint in OPTIONS:
        return f"one of {', '.join(OPTIONS[hint])}"
    return _TYPES[hint][0] if hint in _TYPES else f"settings of {hint.__name__}"


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is dataclasses.MISSING or value == MISSING:
        return ""
    if dataclasses.is_dataclass(value):
        name = str(next(iter(vars(value).values())))
        return "" if name == MISSING else name
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def json_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration of that class, and of a recipe: what is left out is the default, or
    stands in what the recipe extends."""
    made: dict[str, Any] = {}
    schema = _schema(cls, made)
    extended = {"type": "array", "description": "recipes and options that it extends, as Hydra has them"}
    if "stages" in (properties := made.get(cls.__name__, {}).get("properties", {})):
        properties["defaults"] = extended
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": made}


def _schema(hint: Any, made: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is typing.Annotated:
        return _schema(args[0], made) | _limits(args[1])
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(next(a for a in args if a is not type(None)), made), {"type": "null"}]}
    if origin is list:
        item = _schema(args[0], made)
        return {"anyOf": [{"type": "array", "items": item}, item]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], made)}
    if not dataclasses.is_dataclass(hint):
        whole = {"maximum": GREATEST, "minimum": -GREATEST} if hint is int else {}
        kind = _TYPES[hint][1]
        return {"type": [kind, "number"] if hint is str else kind, **whole}  # ranks: 2 is the text "2"
    cls = typing.cast(type, hint)
    if cls not in OPTIONS:
        return _reference(cls, made)
    shapes = [_reference(option, made, chooser(cls), name) for name, option in OPTIONS[cls].items()]
    return {"anyOf": [{"enum": list(OPTIONS[cls])}, *shapes, _part(cls, made)]}


def _part(cls: type, made: dict[str, Any]) -> dict[str, Any]:
    """Where the schema stands of settings that do not say of which option they are: of the one that stands there."""
    title = f"{cls.__name__}, some of it"
    if title not in made:
        made[title] = {}
        schemas: dict[str, list[dict[str, Any]]] = {}
        for option in OPTIONS[cls].values():
            for field, hint in hints_of(option).items():
                if field != chooser(cls) and (found := _schema(hint, made)) not in schemas.setdefault(field, []):
                    schemas[field].append(found)
        properties = {field: found[0] if len(found) == 1 else {"anyOf": found} for field, found in schemas.items()}
        made[title] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"$ref": f"#/$defs/{title}"}


def _reference(cls: type, made: dict[str, Any], key: str = "", name: str = "") -> dict[str, Any]:
    """Where the schema of a class stands; with a `key`, of it under one of its names."""
    title = f"{cls.__name__}.{name}" if name else cls.__name__
    if title not in made:
        made[title] = {}  # a class may hold itself
        beside = comments(cls)
        properties = {}
        for field, hint in hints_of(cls).items():
            told_of = {"description": beside[field]} if beside.get(field) else {}
            properties[field] = ({"const": name} if field == key else _schema(hint, made)) | told_of
        made[title] = {
            "type": "object", "description": about(cls), "properties": properties,
            "additionalProperties": False, **({"required": [key]} if key else {}),
        }  # fmt: skip
    return {"$ref": f"#/$defs/{title}"}


def _limits(limits: Limits) -> dict[str, Any]:
    if limits.pattern:
        return {"pattern": f"^({limits.pattern})$"}
    if limits.choices:
        return {"enum": list(limits.choices)}
    ends = {
        "minimum": limits.least, "maximum": limits.greatest, "exclusiveMinimum": limits.above,
        "exclusiveMaximum": limits.below,
    }  # fmt: skip
    return {name: end for name, end in ends.items() if end is not None}
