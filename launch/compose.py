"""From overrides to one checked, frozen configuration: Hydra composes here, once, and nowhere else.

Hydra merges the plain YAML of conf/ and parses overrides; what stands in no file is the dataclasses' default, and they
alone say which keys there are and what a value may be (fmtrain.schema.load). Every overridden key is checked first,
`+`, `++` and `~` too, and answered with the nearest.
"""

import contextlib
import dataclasses
import difflib
import re
import shlex
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmtrain import redact
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import Stage
from fmtrain.schema import plugins, training
from fmtrain.schema.common import Common
from fmtrain.schema.load import filled, hints_of, load
from fmtrain.schema.options import OPTIONS, chooser
from fmtrain.schema.root import Root
from launch.applied import check_applied
from launch.checks import check
from launch.keys import GROUPS, class_at, elsewhere, known_keys, nearest, node, slots
from launch.recipes import check_folder, expanded, followed, is_file, merged, options, place, readable


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
    base = _base([o for o in parsed if _is_choice(o)], [o for o in parsed if _is_stage(o)], folder)
    values = [o for o in parsed if not (_is_choice(o) or _is_stage(o))]
    for override in values:
        check_key(override, base)
        _check_value(override, base)
    _check_left_out(values)
    root = load(Root, filled(Root, expanded(Root, _overridden(base, values), folder)))
    check(root)
    check_applied(root, folder)
    return root


def possible(overrides: list[str], folder: Path | None = None) -> dict[str, Any]:
    """The configuration whose keys a line that begins with `overrides` may name; of them counts what can be used."""
    parsed = []
    for text in overrides:
        with contextlib.suppress(ConfigError):
            parsed += parse([text])
    chosen_here = [o for o in parsed if _is_choice(o)]
    for choices in (chosen_here, [o for o in chosen_here if o.key_or_group == "recipe"]):
        with contextlib.suppress(ConfigError):
            _load_plugins(parsed)
            return _base(choices, [o for o in parsed if _is_stage(o)], folder)
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


def parse(overrides: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    found = []
    for text in overrides:
        try:
            found += parser.parse_overrides([text])
        except HydraException:
            raise ConfigError(_unparsed(text)) from None
    return found


def _unparsed(text: str) -> str:
    """What to say of an override that Hydra's grammar does not have."""
    key, equals, value = text.partition("=")
    if any("\udc80" <= letter <= "\udcff" for letter in value):
        return f"{text}: a name that is no UTF-8, and settings are kept as UTF-8; rename the file, or link to it"
    if equals and key.endswith("+"):
        return f"{text!r}: a list is given whole: {key[:-1]}=[a,b] (docs/corpus says what each preset of rules holds)"
    if equals and key and value:
        quoted = _quoted(value)
        if value[0] == "[" and value[-1] == "]":
            quoted = "[" + ",".join(_quoted(v.strip()) for v in value[1:-1].split(",")) + "]"
        word = _shell_word(f"{key}={quoted}")
        return f"{text!r} cannot be read: a value with odd characters needs quotes within quotes: {word}"
    group = next((g for g in ("recipe", *GROUPS) if text in options(g)), None)
    if group is not None:
        return f"{text!r} is no KEY=VALUE; did you mean {f'{group}={text}'!r}?"
    return f"{text!r} is no KEY=VALUE, e.g. recipe=quickstart or seed=2"


def _quoted(value: str) -> str:
    """A value in Hydra's quotes, in which a backslash counts only before a quote; quotes around it already are none."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + value + "\\" * (len(value) - len(value.rstrip("\\"))) + "'"


def _shell_word(text: str) -> str:
    """What to type in a shell for an argument: double quotes where nothing in them is special."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def check_key(override: Override, base: dict[str, Any]) -> None:
    """Refuse an overridden key that the schema does not have, naming the nearest one that it has."""
    key, line = override.key_or_group, override.input_line
    known = known_keys(base)
    if key in known:
        return
    _check_stage(key, base)
    parent = key.rpartition(".")[0]
    while parent:
        if parent in known and node(base, parent) is None:
            if class_at(parent, base) is training.Model:
                option = "hf" if key.endswith(".path") else f"({' | '.join(options('model'))})"
                raise ConfigError(
                    f"{line}: {parent} is null, the recipe's model; give the stage one of its own first: "
                    f"model@{parent}={option}"
                )
            raise ConfigError(f"{key}: {parent} is null; give it a value first")
        parent = parent.rpartition(".")[0]
    _check_option(override, base, known)
    if (ours := elsewhere(key, known)) is not None:
        raise ConfigError(f"{line}: there is no setting {key!r}; here it is {ours}")
    near = nearest(key, [*known, *GROUPS, "recipe"])
    raise ConfigError(f"{line}: there is no setting {key!r}; did you mean {near!r}?")


def _check_stage(key: str, base: dict[str, Any]) -> None:
    """Refuse a key under a stage that the recipe does not have, unless it may be misspelt."""
    root, _, rest = key.partition(".")
    name, stages = rest.partition(".")[0], base["stages"]
    gone = name in stages and stages[name] is None
    if root == "stages" and name and (gone or not (name in stages or difflib.get_close_matches(name, stages, 1))):
        raise ConfigError(
            f"{key}: stages.{name} is not part of recipe={base['recipe']}, whose stages are "
            f"{', '.join(n for n, stage in stages.items() if stage is not None)}; choose a recipe that has it, or add "
            f"one: +stage@stages.{name}={' | '.join(options('stage'))}"
        )


def _check_option(override: Override, base: dict[str, Any], known: list[str]) -> None:
    """Refuse a setting that another option of its group has: no typing error, and no other setting is meant."""
    group, _, field = override.key_or_group.rpartition(".")
    kinds = OPTIONS.get(class_at(group, base), {}) if group in known else {}
    if having := [f"{group}={option}" for option, cls in kinds.items() if field in hints_of(cls)]:
        has = next(iter(node(base, group).values()))
        given = f"{override.input_line}: {group}={has} has no setting {field!r}"
        raise ConfigError(f"{given}; leave it out, or choose what has it: {' or '.join(having)}")


def _check_value(override: Override, base: dict[str, Any]) -> None:
    """Refuse what Hydra would answer in its own terms: sweeps, removals, an option given as a value."""
    key, line = override.key_or_group, override.input_line
    parent, _, last = key.rpartition(".")
    if override.is_delete():
        if parent == "stages":
            raise ConfigError(f"{line}: a stage is left out with {key}=null")
        raise ConfigError(f"{line}: settings cannot be removed; give another value: {key}=VALUE")
    value = line.partition("=")[2] if line else ""
    if override.is_sweep_override():
        if isinstance(node(base, key), list):
            raise ConfigError(
                f"{line}: {key} is a list; did you mean {_shell_word(f'{key}=[{value}]')}? For one value with a comma "
                f"in it: {_shell_word(f'{key}={_quoted(value)}')}"
            )
        word = _shell_word(f"{key}={_quoted(value)}")
        raise ConfigError(f"{line}: sweeps are not run; give one value, or quote it: {word}")
    if (cls := class_at(parent, base) if parent else Root) in OPTIONS and last == chooser(cls):
        raise ConfigError(f"{line}: {_choose(parent, value, base)}")
    if not isinstance(override.value(), (dict, type(None))):
        cls = class_at(key, base)
        if cls in GROUPS.values():
            raise ConfigError(f"{line}: {_choose(key, value, base)}")
        if dataclasses.is_dataclass(cls):
            raise ConfigError(f"{line}: {key} has settings of its own, e.g. {key}.{_first_key(cls)}=VALUE")


def _check_left_out(values: list[Override]) -> None:
    """Refuse a value under a key that the same command sets to null: `stages.sft=null stages.sft.steps=3`."""
    gone = {o.key_or_group: o.input_line for o in values if not o.is_delete() and o.value() is None}
    for override in values:
        parts = override.key_or_group.split(".")
        for parent in (".".join(parts[:n]) for n in range(1, len(parts))):
            if parent in gone:
                raise ConfigError(
                    f"{override.input_line}: {gone[parent]} in the same command leaves it out; take one of the two away"
                )


def _choose(slot: str, option: str, base: dict[str, Any]) -> str:
    """How to choose the option that stands at `slot`: `objective@stages.dpo.objective=sft`."""
    group = next(name for name, cls in GROUPS.items() if cls is class_at(slot, base))
    head = group if slot == group else f"{group}@{slot}"
    have = ", ".join(options(group))
    example = f"{head}={option if option in options(group) else options(group)[0]}"
    return f"an option of the group {group!r} is chosen with {example} (it has {have})"


def _first_key(cls: Any) -> str:
    return dataclasses.fields(cls)[0].name


def _is_stage(override: Override) -> bool:
    """Whether it adds or changes a whole stage, `+stages.more={kind: train, ..}`, or what its rules follow from."""
    whole = re.fullmatch(r"stages\.[^.]+(\.(data|filter))?", override.key_or_group)
    return whole is not None and isinstance(override.value(), dict)


def _base(choices: list[Override], stages: Sequence[Override] = (), folder: Path | None = None) -> dict[str, Any]:
    """The configuration before any value is overridden, whole: the keys that may be overridden."""
    for override in choices:
        _check_choice(override, folder)
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
        _check_stage(slot, whole)
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


def _is_choice(override: Override) -> bool:
    """Does the override choose a group's option (`objective@stages.dpo.objective=dpo`, `data=local`)?"""
    key = override.key_or_group
    return override.package is not None or key in GROUPS or key == "recipe" or "/" in key


def _check_choice(override: Override, folder: Path | None) -> None:
    group, package, line = override.key_or_group, override.package, override.input_line
    if group not in GROUPS and group != "recipe":
        near = nearest(group, [*GROUPS, "recipe"])
        raise ConfigError(f"{line}: there is no group {group!r}; did you mean {near!r}?")
    if override.is_delete():
        raise ConfigError(
            f"{line}: a group cannot be removed; choose another option of {group}: {', '.join(options(group))}"
        )
    if override.is_sweep_override():
        raise ConfigError(f"{line}: sweeps are not run; give one value of {', '.join(options(group))}")
    value = override.value()
    if package is None and group != "recipe" and group not in hints_of(Common):
        slot = "stages.NAME" if group == "stage" else f"stages.NAME.{group}"
        raise ConfigError(f"{line}: {group} is chosen for a stage: {group}@{slot}={value}")
    if package is None and override.is_add():
        raise ConfigError(f"{line}: {group} stands already; leave out the +: {group}={value}")
    known = options(group, folder)
    if value in known or (group == "recipe" and is_file(str(value))):
        return
    near = nearest(str(value), known)
    raise ConfigError(f"{line}: {group} has no option {value!r}; did you mean {near!r}? It has {', '.join(known)}.")
