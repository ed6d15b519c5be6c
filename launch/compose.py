"""From overrides to one checked, frozen configuration: Hydra composes here, once, and nowhere else.

Knows Hydra and the schemas; what the stages do with the values is theirs. `compose` first checks every overridden key
against the schema, `+`, `++` and `~` too, and answers with the nearest key; only then does Hydra see the overrides.
"""

import dataclasses
import difflib
import functools
import types
import typing
from importlib import resources
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmtrain.errors import ConfigError
from fmtrain.schema import root as schema_root
from fmtrain.schema import training
from fmtrain.schema.load import load
from fmtrain.schema.root import KINDS, Root
from launch.checks import check

# Hydra group -> base class; groups whose options all have one class have no entry in KINDS
GROUPS: dict[str, type] = {
    **{base.__name__.lower(): base for base in KINDS},
    "zero": training.Zero,
    "checkpoint": training.Checkpoint,
}
CONFIG_MODULE = "fmtrain.conf"


def register() -> None:
    """Put every schema where the YAML files' `NAME_schema` defaults find it."""
    store = ConfigStore.instance()
    store.store(name="root_schema", node=Root)
    for group, base in GROUPS.items():
        for name, cls in KINDS.get(base, {group: base}).items():
            store.store(group=group, name=f"{name}_schema", node=cls)


def compose(overrides: list[str]) -> Root:
    """The configuration that `overrides` ask for; ConfigError names the key and the mend."""
    parsed = parse(overrides)
    choices = tuple(o.input_line or "" for o in parsed if _is_choice(o))
    base = _base(choices)
    values = [_as_list(o, base) for o in parsed if not _is_choice(o)]
    for override in parsed:
        if not _is_choice(override):
            check_key(override, base)
    data = _compose([*choices, *values])
    root = load(Root, data)
    check(root)
    return root


def parse(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as e:
        first = str(e).splitlines()[0]
        advice = "An override is KEY=VALUE, e.g. stages.dpo.objective.beta=0.2; quote odd values."
        raise ConfigError(f"{first}\n{advice}") from None


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
            raise ConfigError(f"{key}: {parent} is not part of recipe={base['recipe']}; choose a recipe that has it")
        parent = parent.rpartition(".")[0]
    groups = [g for g in GROUPS if g != "recipe"] + ["recipe"]
    nearest = _nearest(key, [*known, *groups])
    raise ConfigError(f"{override.input_line}: there is no setting {key!r}; did you mean {nearest!r}?")


@functools.lru_cache(maxsize=64)
def _base(choices: tuple[str, ...]) -> dict[str, Any]:
    """The configuration before any value is overridden: the keys that may be overridden."""
    for line in choices:
        _check_choice(parse([line])[0])
    return _compose(list(choices))


def _compose(overrides: list[str]) -> dict[str, Any]:
    register()
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE):
            config = hydra_compose("config", overrides=overrides)
        data = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    except (HydraException, OmegaConfBaseException) as e:
        cause = e.__cause__ if isinstance(e.__cause__, OmegaConfBaseException) else e
        raise ConfigError(_readable(cause)) from None
    return typing.cast(dict[str, Any], data)


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
    value = override.value()
    if override.is_delete() or value in options(group):
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
    for stage, hint in typing.get_type_hints(schema_root.Stages).items():
        fields = typing.get_type_hints(_class(hint))
        found += [f"stages.{stage}.{name}" for name, inner in fields.items() if _class(inner) is base]
    return found


def known_keys(data: Any, cls: type = Root, prefix: str = "") -> list[str]:
    """Every key of the schema under the options that `data` has chosen, dotted, groups and leaves."""
    if isinstance(data, dict) and cls in KINDS:
        cls = KINDS[cls].get(data.get("name", ""), cls)
    found = []
    for name, hint in typing.get_type_hints(cls).items():
        key = f"{prefix}{name}"
        found.append(key)
        inner = _class(hint)
        value = data.get(name) if isinstance(data, dict) else None
        if dataclasses.is_dataclass(inner) and value is not None:
            found += known_keys(value, typing.cast(type, inner), f"{key}.")
    return found


def _class(hint: Any) -> Any:
    """The class behind `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _node(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _as_list(override: Override, base: dict[str, Any]) -> str:
    """`data.files=a.jsonl` where the schema has a list means `data.files=[a.jsonl]`."""
    line = override.input_line or ""
    scalar = isinstance(_node(base, override.key_or_group), list) and not isinstance(override.value(), list)
    if not scalar or override.is_delete() or override.value() is None:
        return line
    head, _, value = line.partition("=")
    quoted = value if value[:1] in "'\"" else "'" + value.replace("'", "\\'") + "'"
    return f"{head}=[{quoted}]"


def _nearest(word: str, candidates: list[str]) -> str:
    """The candidate most like `word`; among equals the one whose last part is most like the last part of `word`."""

    def likeness(candidate: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, word, candidate, autojunk=False).ratio()
        last = difflib.SequenceMatcher(None, word.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return (whole, last)

    return max(candidates, key=likeness)
