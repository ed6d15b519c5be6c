"""What a command line may say: overrides parsed by Hydra's grammar, and each checked before anything is merged.

Hydra accepts `+`, `++` and `~` on keys that do not exist: here every key is looked up in the configuration that the
chosen options make, and answered with the nearest.
"""

import dataclasses
import difflib
import re
import shlex
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fmtrain.errors import ConfigError
from fmtrain.kinds.base import Stage
from fmtrain.schema import training
from fmtrain.schema.common import Common
from fmtrain.schema.load import hints_of
from fmtrain.schema.options import OPTIONS, chooser
from fmtrain.schema.root import Root
from launch.keys import GROUPS, class_at, elsewhere, is_open, known_keys, meant, nearest, node
from launch.recipes import is_file, options


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
    group = next((g for g in ("recipe", *GROUPS) if text in options(g) or (g == "recipe" and is_file(text))), None)
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
    if key in known or is_open(key, base):
        return
    check_stage(key, base)
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
    raise ConfigError(f"{line}: {unknown(key, known)}")


def unknown(key: str, known: list[str]) -> str:
    """What to say of a setting that there is not."""
    if (ours := elsewhere(key, known)) is not None:
        return f"there is no setting {key!r}; here it is {ours}"
    near = meant(key, [*known, *GROUPS, "recipe"]) or "; `fmtrain options` and docs/settings.md say what there is"
    return f"there is no setting {key!r}{near}"


def check_stage(key: str, base: dict[str, Any]) -> None:
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
    cls = class_at(group, base) if group in known else Stage
    kinds = OPTIONS.get(cls, {}) if cls is not Stage else {}  # a stage is of its kind
    if having := [f"{group}={option}" for option, cls in kinds.items() if field in hints_of(cls)]:
        has = next(iter(node(base, group).values()))
        given = f"{override.input_line}: {group}={has} has no setting {field!r}"
        raise ConfigError(f"{given}; leave it out, or choose what has it: {' or '.join(having)}")


def check_value(override: Override, base: dict[str, Any]) -> None:
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


def check_left_out(values: list[Override]) -> None:
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
    example = f"{head}={nearest(option, options(group))}"
    return f"an option of the group {group!r} is chosen with {example} (it has {have})"


def _first_key(cls: Any) -> str:
    return dataclasses.fields(cls)[0].name


def is_stage(override: Override) -> bool:
    """Whether it adds or changes a whole stage, `+stages.more={kind: train, ..}`, or what its rules follow from."""
    whole = re.fullmatch(r"stages\.[^.]+(\.(data|filter))?", override.key_or_group)
    return whole is not None and isinstance(override.value(), dict)


def is_choice(override: Override) -> bool:
    """Does the override choose a group's option (`objective@stages.dpo.objective=dpo`, `data=local`)?"""
    key = override.key_or_group
    return override.package is not None or key in GROUPS or key == "recipe" or "/" in key


def check_choice(override: Override, folder: Path | None) -> None:
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
