"""From overrides to one checked, frozen configuration: Hydra composes here, once, and nowhere else.

Hydra merges the plain YAML of conf/ and parses overrides; what stands in no file is the dataclasses' default, and they
alone say which keys there are and what a value may be (fmtrain.schema.load). Every overridden key is checked first,
`+`, `++` and `~` too, and answered with the nearest.
"""

import dataclasses
import difflib
import functools
import re
import shlex
import types
import typing
from importlib import resources
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmtrain import redact
from fmtrain.errors import ConfigError
from fmtrain.schema import plugins, training
from fmtrain.schema import root as schema_root
from fmtrain.schema.load import filled, load
from fmtrain.schema.root import KINDS, Root
from launch.checks import check

# Hydra group -> base class; groups whose options all have one class have no entry in KINDS
GROUPS: dict[str, type] = {
    **{base.__name__.lower(): base for base in KINDS},
    "zero": training.Zero,
    "checkpoint": training.Checkpoint,
}
CONFIG_MODULE = "fmtrain.conf"


def compose(overrides: list[str]) -> Root:
    """The configuration that `overrides` ask for; ConfigError names the key and the mend."""
    for text in overrides:
        redact.learn_urls(text)
    parsed = parse(overrides)
    _load_plugins(parsed)
    base = _base(_accepted(tuple(o.input_line or "" for o in parsed if _is_choice(o))))
    values = [o for o in parsed if not _is_choice(o)]
    for override in values:
        check_key(override, base)
        _check_value(override, base)
    _check_left_out(values)
    root = load(Root, _overridden(base, values))
    check(root)
    return root


def _overridden(base: dict[str, Any], values: list[Override]) -> dict[str, Any]:
    """`base` with the values that overrides give, its references (`${seed}`, `${oc.env:X}`) followed."""
    redact.forget_references()
    try:
        config = OmegaConf.create(base)
        for override in values:
            key, value = override.key_or_group, _value(override, base)
            both = isinstance(value, dict) and OmegaConf.is_dict(OmegaConf.select(config, key))
            OmegaConf.update(config, key, value, merge=both, force_add=True)
        data = OmegaConf.to_container(config, resolve=True)
        _learn(OmegaConf.to_container(config, resolve=False), data)
    except OmegaConfBaseException as e:
        raise ConfigError(_readable(e)) from None
    return typing.cast(dict[str, Any], data)


def _value(override: Override, base: dict[str, Any]) -> Any:
    """What an override gives: where the schema has a list `data.files=a.jsonl` means [a.jsonl], where it has a text
    `launch.comment=007` means what was typed."""
    value, cls = override.value(), _class_at(override.key_or_group, base)
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
    if plugins.register([*plugins.installed(), *map(str, modules)]):
        for cached in (_base, _accepted):
            cached.cache_clear()


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
    return f"{text!r} is no KEY=VALUE, e.g. recipe=quickstart or stages.dpo.objective.beta=0.2"


def _quoted(value: str) -> str:
    """A value in Hydra's quotes, in which a backslash counts only before a quote; quotes around it already are none."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + value + "\\" * (len(value) - len(value.rstrip("\\"))) + "'"


def _shell_word(text: str) -> str:
    """What to type in a shell for an argument: double quotes where nothing in them is special."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def options(group: str) -> list[str]:
    """The options of a Hydra group, from the files in conf/."""
    folder = resources.files(CONFIG_MODULE).joinpath(group)
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def check_key(override: Override, base: dict[str, Any]) -> None:
    """Refuse an overridden key that the schema does not have, naming the nearest one that it has."""
    key = override.key_or_group
    known = known_keys(base)
    if key in known:
        return
    parent = key.rpartition(".")[0]
    while parent:
        if parent in known and _node(base, parent) is None:
            if _class_at(parent, base) is training.Model:
                option = "hf" if key.endswith(".path") else f"({' | '.join(options('model'))})"
                raise ConfigError(
                    f"{override.input_line}: {parent} is null, the recipe's model; "
                    f"give the stage one of its own first: model@{parent}={option}"
                )
            raise ConfigError(f"{key}: {parent} is not part of recipe={base['recipe']}; choose a recipe that has it")
        parent = parent.rpartition(".")[0]
    groups = [g for g in GROUPS if g != "recipe"] + ["recipe"]
    _check_option(override, base, known)
    nearest = _nearest(key, [*known, *groups])
    raise ConfigError(f"{override.input_line}: there is no setting {key!r}; did you mean {nearest!r}?")


def _check_option(override: Override, base: dict[str, Any], known: list[str]) -> None:
    """Refuse a setting that another option of its group has: no typing error, and no other setting is meant."""
    group, _, field = override.key_or_group.rpartition(".")
    kinds = KINDS.get(_class_at(group, base), {}) if group in known else {}
    if having := [f"{group}={option}" for option, cls in kinds.items() if field in _hints(cls)]:
        given = f"{override.input_line}: {group}={_node(base, group)['name']} has no setting {field!r}"
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
        if isinstance(_node(base, key), list):
            raise ConfigError(
                f"{line}: {key} is a list; did you mean {_shell_word(f'{key}=[{value}]')}? For one value with a comma "
                f"in it: {_shell_word(f'{key}={_quoted(value)}')}"
            )
        word = _shell_word(f"{key}={_quoted(value)}")
        raise ConfigError(f"{line}: sweeps are not run; give one value, or quote it: {word}")
    if last == "name" and _class_at(parent, base) in KINDS:
        raise ConfigError(f"{line}: {_choose(parent, value, base)}")
    if not isinstance(override.value(), (dict, type(None))):
        cls = _class_at(key, base)
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
    group = next(name for name, cls in GROUPS.items() if cls is _class_at(slot, base))
    head = group if slot == group else f"{group}@{slot}"
    have = ", ".join(options(group))
    example = f"{head}={option if option in options(group) else options(group)[0]}"
    return f"an option of the group {group!r} is chosen with {example} (it has {have})"


def _first_key(cls: Any) -> str:
    return dataclasses.fields(cls)[0].name


def _class_at(key: str, base: Any) -> Any:
    """The schema's class of a known key; of a group the base class."""
    cls: Any = Root
    for part in key.split("."):
        if isinstance(base, dict) and cls in KINDS:
            cls = KINDS[cls].get(base.get("name", ""), cls)
        cls = _class(_hints(cls)[part])
        base = base.get(part) if isinstance(base, dict) else None
    return cls


@functools.lru_cache(maxsize=64)
def _accepted(choices: tuple[str, ...]) -> tuple[str, ...]:
    """`choices` as Hydra takes them: one for a slot that the recipe does not list, as a stage's model, is added."""
    try:
        _base(choices)
        return choices
    except ConfigError as e:
        missing = re.match(r"Could not override '([^']+)'", str(e))
        choice = next((c for c in choices if missing and c.startswith(f"{missing[1]}=")), None)
        if choice is None:
            raise
    without = _base(_accepted(tuple(c for c in choices if c != choice)))
    stage = (parse([choice])[0].package or "").rpartition(".")[0]
    if _node(without, stage) is None:
        raise ConfigError(f"{choice}: {stage} is not part of recipe={without['recipe']}; choose a recipe that has it")
    return _accepted(tuple(f"+{c}" if c == choice else c for c in choices))


@functools.lru_cache(maxsize=64)
def _base(choices: tuple[str, ...]) -> dict[str, Any]:
    """The configuration before any value is overridden, whole: the keys that may be overridden."""
    for line in choices:
        _check_choice(parse([line])[0])
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
            config = hydra_compose("config", overrides=list(choices))
        return typing.cast(dict[str, Any], filled(Root, OmegaConf.to_container(config)))
    except (HydraException, OmegaConfBaseException) as e:
        cause = e.__cause__ if isinstance(e.__cause__, OmegaConfBaseException) else e
        raise ConfigError(_readable(cause)) from None


def _learn(given: Any, data: Any, key: str = "") -> None:
    """What of the configuration is not to be shown; places in a store are, wherever their names come from."""
    if isinstance(given, dict) and isinstance(data, dict):
        for name, value in data.items():
            _learn(given[name], value, f"{key}.{name}" if key else str(name))
    elif isinstance(given, list) and isinstance(data, list):
        for n, (one, value) in enumerate(zip(given, data, strict=True)):
            _learn(one, value, f"{key}[{n}]")
    elif isinstance(given, str):
        if "${oc.env:" in given and key != "store" and not key.endswith(".artifact"):
            redact.refer(key, given, data)
        redact.learn_urls(str(data))


def _readable(error: BaseException) -> str:
    """OmegaConf's message with the key in front and without its internals."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]


def _is_choice(override: Override) -> bool:
    """Does the override choose a group's option (`objective@stages.dpo.objective=dpo`, `data=local`)?"""
    key = override.key_or_group
    return override.package is not None or key in GROUPS or key == "recipe" or "/" in key


def _check_choice(override: Override) -> None:
    group, package = override.key_or_group, override.package
    if group not in GROUPS and group != "recipe":
        nearest = _nearest(group, [*GROUPS, "recipe"])
        raise ConfigError(f"{override.input_line}: there is no group {group!r}; did you mean {nearest!r}?")
    if package is not None and package not in _slots(group):
        raise ConfigError(
            f"{override.input_line}: no stage has {package!r}; did you mean {_nearest(package, _slots(group))!r}?"
        )
    if override.is_delete():
        raise ConfigError(
            f"{override.input_line}: a group cannot be removed; choose another option of {group}: "
            f"{', '.join(options(group))}"
        )
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: sweeps are not run; give one value of {', '.join(options(group))}")
    value = override.value()
    if package is None and override.is_add():
        raise ConfigError(f"{override.input_line}: {group} stands already; leave out the +: {group}={value}")
    if value in options(group):
        return
    nearest = _nearest(str(value), options(group))
    raise ConfigError(
        f"{override.input_line}: {group} has no option {value!r}; did you mean {nearest!r}? "
        f"It has {', '.join(options(group))}."
    )


def _slots(group: str) -> list[str]:
    """The packages at which a group's option may stand: `stages.dpo.objective`."""
    base = GROUPS.get(group)
    found = []
    for stage, hint in _hints(schema_root.Stages).items():
        fields = _hints(_class(hint))
        found += [f"stages.{stage}.{name}" for name, inner in fields.items() if _class(inner) is base]
    return found


def known_keys(data: Any, cls: type = Root, prefix: str = "") -> list[str]:
    """Every key of the schema under the options that `data` has chosen, dotted, groups and leaves."""
    if isinstance(data, dict) and cls in KINDS:
        cls = KINDS[cls].get(data.get("name", ""), cls)
    found = []
    for name, hint in _hints(cls).items():
        key = f"{prefix}{name}"
        found.append(key)
        inner = _class(hint)
        value = data.get(name) if isinstance(data, dict) else None
        if dataclasses.is_dataclass(inner) and value is not None:
            found += known_keys(value, typing.cast(type, inner), f"{key}.")
    return found


_hints = functools.cache(typing.get_type_hints)


def _class(hint: Any) -> Any:
    """The class behind `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _node(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _nearest(word: str, candidates: list[str]) -> str:
    return _most_like(word, tuple(candidates))


@functools.lru_cache(maxsize=256)
def _most_like(word: str, candidates: tuple[str, ...]) -> str:
    """The candidate most like `word`; among equals the one whose last part is most like the last part of `word`."""
    best, found = (-1.0, -1.0), ""
    whole = difflib.SequenceMatcher(None, "", word, autojunk=False)  # what it knows of `word` serves for all
    last = difflib.SequenceMatcher(None, "", word.rpartition(".")[2])
    for candidate in candidates:
        whole.set_seq1(candidate)
        if whole.real_quick_ratio() < best[0] or whole.quick_ratio() < best[0]:
            continue  # upper bounds, far cheaper than the ratio
        if (ratio := whole.ratio()) < best[0]:
            continue
        last.set_seq1(candidate.rpartition(".")[2])
        likeness = (ratio, last.ratio())
        if likeness > best:
            best, found = likeness, candidate
    return found
