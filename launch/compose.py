"""From overrides to one checked, frozen configuration: Hydra composes here, once, and nowhere else.

Hydra merges the plain YAML of conf/ and parses overrides; what stands in no file is the dataclasses' default, and they
alone say which keys there are and what a value may be (fmtrain.schema.load).
"""

import contextlib
import dataclasses
import difflib
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmtrain import redact
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import KINDS, Stage
from fmtrain.schema import plugins
from fmtrain.schema.fields import MISSING
from fmtrain.schema.load import UnknownSetting, filled, load
from fmtrain.schema.options import OPTIONS, chooser
from fmtrain.schema.root import Root
from launch.applied import check_applied
from launch.checks import check
from launch.keys import GROUPS, class_at, known_keys, nearest, node, slots
from launch.overrides import (
    check_choice,
    check_key,
    check_left_out,
    check_stage,
    check_value,
    is_choice,
    is_stage,
    parse,
    unknown,
)
from launch.recipes import check_folder, expanded, followed, merged, place, readable


@dataclasses.dataclass
class _Plugins:
    plugins: list[str] = dataclasses.field(default_factory=list)


def compose(overrides: list[str], folder: Path | None = None) -> Root:
    """The configuration that `overrides` ask for; ConfigError names the key and the mend. `folder` holds groups of
    one's own, beside ours."""
    check_folder(folder)
    for text in overrides:
        redact.learn_urls(text)
    parsed = parse(overrides)
    _load_plugins(parsed)
    base = _base([o for o in parsed if is_choice(o)], [o for o in parsed if is_stage(o)], folder)
    values = [o for o in parsed if not (is_choice(o) or is_stage(o))]
    for override in values:
        check_key(override, base)
        check_value(override, base)
    check_left_out(values)
    _check_written(base)
    data = filled(Root, expanded(Root, _overridden(base, values), folder))
    try:
        root = load(Root, data)
    except UnknownSetting as e:  # of a file: an override's key is known by now
        raise ConfigError(unknown(e.key, known_keys(base))) from None
    check(root)
    check_applied(root, folder)
    return root


def _check_written(base: dict[str, Any]) -> None:
    """ConfigError for what a recipe's file lacks."""
    if not base["stages"]:
        raise ConfigError(
            f"recipe={base['recipe']}: it names no stages; extend one of ours (defaults: [quickstart, _self_]) or "
            "write some (docs/recipes.md)"
        )
    for name, stage in base["stages"].items():
        if isinstance(stage, dict) and stage.get("kind") == MISSING:
            near = difflib.get_close_matches(name, [other for other in base["stages"] if other != name], 1)
            mean = f"did you mean stages.{near[0]}? Or " if near else ""
            raise ConfigError(f"stages.{name} has no kind; {mean}add one: kind: {' | '.join(KINDS)}")


def possible(overrides: list[str], folder: Path | None = None) -> dict[str, Any]:
    """The configuration whose keys a line that begins with `overrides` may name; of them counts what can be used."""
    parsed = []
    for text in overrides:
        with contextlib.suppress(ConfigError):
            parsed += parse([text])
    chosen_here = [o for o in parsed if is_choice(o)]
    for choices in (chosen_here, [o for o in chosen_here if o.key_or_group == "recipe"]):
        with contextlib.suppress(ConfigError):
            _load_plugins(parsed)
            return _base(choices, [o for o in parsed if is_stage(o)], folder)
    return _base([])


def _overridden(base: dict[str, Any], values: list[Override]) -> dict[str, Any]:
    """`base` with the values that overrides give, its references (`${seed}`, `${oc.env:X}`) followed."""
    redact.forget_references()
    try:
        config = OmegaConf.create(base)
        for override in values:
            key, value = override.key_or_group, _value(override, base)
            both = isinstance(value, dict) and OmegaConf.is_dict(OmegaConf.select(config, key))
            both = both and not _chooses(value, class_at(key, base), node(base, key))
            OmegaConf.update(config, key, value, merge=both, force_add=True)
        data = OmegaConf.to_container(config, resolve=True)
        _learn(OmegaConf.to_container(config, resolve=False), data)
    except OmegaConfBaseException as e:
        raise ConfigError(readable(e)) from None
    return typing.cast(dict[str, Any], data)


def _chooses(value: dict[str, Any], cls: Any, before: Any) -> bool:
    """Whether a value says another option than the one that stands there: nothing of that one stays."""
    return cls in OPTIONS and (key := chooser(cls)) in value and value[key] != before.get(key)


def _value(override: Override, base: dict[str, Any]) -> Any:
    """What an override gives: where the schema has a list `data.files=a.jsonl` means [a.jsonl], where it has a text
    `launch.comment=007` means what was typed."""
    value, cls = override.value(), class_at(override.key_or_group, base)
    in_list = typing.get_origin(cls) is list
    if value is None or isinstance(value, (list, dict)) or not (in_list or cls is str):
        return value
    if not isinstance(value, str):
        value = (override.input_line or "").partition("=")[2]
    return [value] if in_list else value


def _load_plugins(parsed: list[Override]) -> None:
    """Let plug-ins register before anything is composed: those installed, and those that `plugins=[..]` names."""
    named = next((o.value() for o in parsed if o.key_or_group == "plugins"), [])
    modules = named if isinstance(named, list) else [named]
    plugins.register([*plugins.installed(), *map(str, modules)])


def _base(choices: list[Override], stages: Sequence[Override] = (), folder: Path | None = None) -> dict[str, Any]:
    """The configuration before any value is overridden, whole: the keys that may be overridden."""
    for override in choices:
        check_choice(override, folder)
    whole = [o for o in choices if o.package is None]
    if twice := [o for o in whole if sum(other.key_or_group == o.key_or_group for other in whole) > 1]:
        raise ConfigError(f"{' '.join(o.input_line or '' for o in twice)}: chosen twice; give one")
    recipe = next((str(o.value()) for o in whole if o.key_or_group == "recipe"), "")
    data = expanded(Root, merged([o.input_line or "" for o in whole], recipe, folder), folder)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create({"plugins": data.get("plugins") or []}), resolve=True)
        plugins.register(load(_Plugins, resolved).plugins)  # those that the recipe names
        for override in stages:
            _put(data, override, folder)
    except OmegaConfBaseException as e:
        raise ConfigError(readable(e)) from None
    for override in sorted((o for o in choices if o.package is not None), key=lambda o: o.key_or_group != "stage"):
        _place(data, override, folder)
    return typing.cast(dict[str, Any], filled(Root, followed(data, folder)))


def _put(data: Any, override: Override, folder: Path | None) -> None:
    """Merge a stage that is given as a value, or its data or filter, into what stands there."""
    _, name, *inner = override.key_or_group.split(".")
    value = typing.cast(dict[str, Any], override.value())
    before = data["stages"].get(name) or {}
    if inner:
        whole = filled(Root, data)
        check_key(override, whole)
        if _chooses(value, class_at(override.key_or_group, whole), before.get(inner[0]) or {}):
            before = {**before, inner[0]: None}
        value = {inner[0]: value}
    together = OmegaConf.to_container(OmegaConf.merge(before, value))
    data["stages"][name] = expanded(Stage, together, folder)


def _place(data: Any, choice: Override, folder: Path | None) -> None:
    """Put an option where it was chosen to stand."""
    group, slot, line = choice.key_or_group, choice.package or "", choice.input_line
    parent, _, last = slot.rpartition(".")
    whole = filled(Root, data)
    if group == "recipe" or not parent:
        raise ConfigError(f"{line}: chosen for the whole run it is {group}={choice.value()}")
    if parent != "stages":
        check_stage(slot, whole)
        if slot not in known_keys(whole) or class_at(slot, whole) is not GROUPS[group]:
            near = nearest(slot, slots(group, whole))
            raise ConfigError(f"{line}: {group} has no place {slot!r}; did you mean {near!r}?")
    elif group == "stage" and whole["stages"].get(last) is not None:
        another = f"+stage@{slot}2={choice.value()}"
        raise ConfigError(f"{line}: {slot} stands already; another has another name, e.g. {another}")
    elif group != "stage":
        raise ConfigError(f"{line}: {slot} is a stage; {group} stands in one: {group}@{slot}.{group}={choice.value()}")
    holder = data
    for part in parent.split("."):
        holder = holder.setdefault(part, {})
    holder[last] = place(group, str(choice.value()), holder.get(last), folder)


def _learn(given: Any, data: Any, key: str = "") -> None:
    """What of the configuration is not to be shown; places in a store are, wherever their names come from."""
    if isinstance(given, dict) and isinstance(data, dict):
        for name, value in data.items():
            _learn(given[name], value, f"{key}.{name}" if key else str(name))
    elif isinstance(given, list) and isinstance(data, list):
        for n, (one, value) in enumerate(zip(given, data, strict=True)):
            _learn(one, value, f"{key}[{n}]")
    elif isinstance(given, str):
        if re.search(r"\$\{\s*oc\.env\s*:", given) and key != "store" and not key.endswith(".artifact"):
            redact.refer(key, given, data)
        redact.learn_urls(str(data))
