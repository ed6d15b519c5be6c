"""Hydra's overrides as they are typed: keys under the recipe that is chosen so far, groups, places, their values."""

import dataclasses
import types
import typing
from typing import Any

from fmtrain.schema.common import Common
from fmtrain.schema.load import bare, hints_of
from fmtrain.schema.options import OPTIONS, chooser, chosen
from launch.completion.asked import Asked, files, refs
from launch.compose import possible
from launch.keys import GROUPS, class_at, known_keys, node, slots
from launch.recipes import options

WHOLE = ["recipe", *(group for group in GROUPS if group in hints_of(Common))]  # chosen for the whole run
_PATHS = ("files", "path", "store")  # fields that name files, beside those that say so
_ADDED = "+stage@stages."


def overrides(asked: Asked) -> list[str]:
    """Candidates for a word of `fmtrain run` or `plan`, up to the next dot of a key."""
    key, equals, value = asked.current.partition("=")
    if equals:
        return [f"{key}={found}" for found in _values(asked, key, value)]
    data = possible(asked.before, asked.config_dir)
    whole = [f"{group}=" for group in WHOLE]
    placed = [f"{group}@{slot}=" for group in GROUPS for slot in slots(group, data) if slot.count(".") > 1]
    keys = [key for key in known_keys(data) if not _is_chooser(key, data)]
    inner = {key.rpartition(".")[0] for key in keys}
    left_out = [f"{key}=" for key in keys if key.startswith("stages.") and key.count(".") == 1]
    settings = [f"{key}=" for key in keys if key not in inner and class_at(key, data) not in GROUPS.values()]
    return [_cut(found, asked.current) for found in (*whole, *placed, *left_out, *settings, _ADDED)]


def _cut(found: str, current: str) -> str:
    """As far as the next dot or @ behind what is typed: a step of the way, as with folders."""
    ends = [n + 1 for n, letter in enumerate(found) if letter in ".@" and n >= len(current)]
    return found[: ends[0]] if found.startswith(current) and ends else found


def _values(asked: Asked, key: str, value: str) -> list[str]:
    group, _, place = key.lstrip("+").partition("@")
    if group in WHOLE or (place and group in GROUPS):
        given = options(group, asked.config_dir)
        return [*given, *files(value, ".yaml")] if group == "recipe" and ("/" in value or "~" in value) else given
    data = possible(asked.before, asked.config_dir)
    if key not in known_keys(data) or _is_chooser(key, data):
        return []
    parent, _, last = key.rpartition(".")
    if parent == "stages":
        return ["null"]
    if parent.endswith(".inputs") and parent.startswith("stages."):
        return [*data["stages"], *refs(asked.store)]
    cls = chosen(class_at(parent, data), node(data, parent)) if parent else Common
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    if last in _PATHS or (last in fields and fields[last].metadata.get("file")):
        return files(value)
    return choices(hints_of(cls)[last]) if last in fields else []


def choices(hint: Any) -> list[str]:
    """The values that a field of this type may have, where they are few."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return [str(choice) for choice in args[1].choices]
    if origin in (typing.Union, types.UnionType):
        return [*(value for arg in args if arg is not type(None) for value in choices(arg)), "null"]
    if origin is list:
        return choices(args[0])
    return ["true", "false"] if hint is bool else []


def _is_chooser(key: str, data: dict[str, Any]) -> bool:
    """Whether the key says which option stands there: that is chosen by its group."""
    parent, _, last = key.rpartition(".")
    cls = bare(class_at(parent, data)) if parent else None
    return cls in OPTIONS and chooser(cls) == last
