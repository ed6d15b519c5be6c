"""What a run hands on of itself: its configuration as a recipe, and the command, without where anything lay.

Of paths only what tells files apart is told, nothing of the store and of what it ran on. A worker that publishes writes
it down; launch/reproduce.py reads it again.
"""

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fmtrain import redact
from fmtrain.artifacts.remote import is_url, plain
from fmtrain.schema.load import dump
from fmtrain.schema.root import Root
from fmtrain.schema.rules import Filter
from launch import provenance
from launch.overrides import parse

_RULES = {field.name for field in dataclasses.fields(Filter)} - {"name", "rules", "words", "datatrove"}
HERE = ("store", "launch")  # groups of settings that say nothing of the result


@dataclass(frozen=True)
class Setting:
    """A setting that says where something lies: its key, what it says, and whether a name elsewhere may stand there."""

    key: str
    values: list[str]
    named: bool


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """All that say where something lies: files of data and of lists, folders of models, a stage's input that is one."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        if field.metadata.get("file") or field.metadata.get("place"):
            if value:
                named = field.name == "path" or "data_sets" in field.metadata
                yield Setting(key, [value] if isinstance(value, str) else list(value), named)
        elif field.name == "inputs":
            yield from (Setting(f"{key}.{role}", list(refs), True) for role, refs in value.items() if refs)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from settings(value, f"{key}.")
        elif field.name == "stages":
            for name, stage in value.items():
                yield from settings(stage, f"{key}.{name}.") if stage is not None else ()


def asked(root: Root, overrides: list[str]) -> dict[str, Any]:
    """What the run hands on: the configuration as a recipe, the command that asked for it, the versions here."""
    config, said = _escaped(dump(root)), dict[str, list[str]]()
    for setting in settings(root):
        said[setting.key] = told = _placeless(setting)
        *path, last = setting.key.split(".")
        holder = config
        for part in path:
            holder = holder[part]
        holder[last] = told[0] if isinstance(holder[last], str) else told
    recipe = _applied({name: value for name, value in config.items() if name not in HERE})
    recipe["recipe"] = os.path.basename(root.recipe)
    command = ["fmtrain", "run", *_words(overrides, said)]
    return {"recipe": recipe, "command": command, "git": provenance.git(), "packages": provenance.packages()}


def _escaped(config: dict[str, Any]) -> Any:
    """The configuration with references to the environment as they were given, and `${` for what it says elsewhere."""

    def escape(given: Any, resolved: Any) -> Any:
        if isinstance(given, dict):
            return {name: escape(value, resolved[name]) for name, value in given.items()}
        if isinstance(given, list):
            return [escape(one, other) for one, other in zip(given, resolved, strict=True)]
        return given.replace("${", "\\${") if isinstance(given, str) and given == resolved else given

    return escape(redact.as_given(config), config)


def _applied(config: Any) -> Any:
    """A configuration without the settings of rules of ours that its filters do not apply."""
    if not isinstance(config, dict):
        return config
    rules = config.get("rules")
    idle = _RULES - set(rules) if isinstance(rules, list) else set()
    return {name: _applied(value) for name, value in config.items() if name not in idle}


def _words(overrides: list[str], said: dict[str, list[str]]) -> list[str]:
    """The overrides that count, without where the run took place; `said` are settings with what is told of them."""
    words: dict[str, str] = {}
    for text, override in zip(overrides, parse(overrides), strict=True):
        key = override.key_or_group
        inside = [one for one in said if one == key or one.startswith(f"{key}.")]
        if key.partition(".")[0] in HERE:
            continue
        if key == "recipe":
            text = f"recipe={os.path.basename(str(override.value()))}"
        elif key in said:
            text = f"{key}={said[key][0] if len(said[key]) == 1 else '[' + ','.join(said[key]) + ']'}"
        elif inside and isinstance(override.value(), dict):
            text = f"{key}={{..}}"  # the recipe has it whole
        words.pop(name := f"{key}@{override.package or ''}", None)  # the last one counts
        words[name] = text
    return [str(word) for word in redact.shown_in(list(words.values()))]


def _placeless(setting: Setting) -> list[str]:
    """Paths and globs from the folder that all of them share, URLs without what may be secret, names as they are."""
    local = {v: os.path.abspath(os.path.expanduser(v)) for v in setting.values if is_path(v, setting.named)}
    base = os.path.commonpath([os.path.dirname(_fixed(path)) for path in local.values()]) if local else ""
    head = "./" if setting.named else ""  # what else would be taken for a name
    return [head + os.path.relpath(local[v], base) if v in local else plain(v) for v in setting.values]


def _fixed(pattern: str) -> str:
    """A pattern up to its first part with a wildcard, and some name there."""
    parts = pattern.split("/")
    ends = next((n for n, part in enumerate(parts) if set("*?[") & set(part)), len(parts) - 1)
    return "/".join([*parts[:ends], "x"])


def is_path(value: str, named: bool) -> bool:
    """Whether a value is a path, not a URL, nor a name where one may stand: of a stage, a version, on the hub."""
    if not named or is_url(value):
        return not is_url(value)
    return value.startswith(("./", "../", "/", "~")) or os.path.isdir(value)
