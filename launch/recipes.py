"""Where options come from, and what Hydra makes of those that are chosen.

They stand in conf/, in a folder of one's own (--config-dir), and a recipe also in any file (recipe=./mine.yaml).
"""

import contextlib
import dataclasses
import functools
import itertools
import re
import typing
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fmtrain.errors import ConfigError
from fmtrain.kinds.base import Stage
from fmtrain.schema.load import bare, hints_of
from fmtrain.schema.options import OPTIONS, chooser, chosen
from fmtrain.schema.sources import Data
from fmtrain.schema.training import Model
from launch.keys import GROUPS, nearest

CONFIG_MODULE = "fmtrain.conf"
AUTO = "auto"  # the option of `filter` that stands for another
_GLOBAL = "# @package _global_"  # Hydra's word for a file whose keys stand at the root
_GIVEN = "the recipe"  # what a recipe that is a file is called among Hydra's: as no file is


def check_folder(folder: Path | None) -> None:
    """ConfigError where --config-dir names none."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--config-dir={folder}: no such folder; give one with recipe/NAME.yaml or stage/NAME.yaml")


def options(group: str, folder: Path | None = None) -> list[str]:
    """The options of a Hydra group, from the files in conf/ and those in `folder`."""
    return sorted({file.name.removesuffix(".yaml") for file in _files(group, folder)})


def option(group: str, name: str, folder: Path | None = None) -> str:
    """The text of an option's file; one's own counts before ours."""
    file = next(file for file in _files(group, folder) if file.name == f"{name}.yaml")
    return _text(file, f"{group}={name}")


def _files(group: str, folder: Path | None) -> Iterator[Traversable]:
    for place in ([folder / group] if folder else []) + [resources.files(CONFIG_MODULE).joinpath(group)]:
        if place.is_dir():
            yield from (file for file in place.iterdir() if file.name.endswith(".yaml"))


def _text(file: Traversable, given: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is no UTF-8"
        raise ConfigError(
            f"{given}: {why}; give the path of a YAML file, or one of {', '.join(options(given.partition('=')[0]))}"
        ) from None


def comment(text: str) -> str:
    """The first comment of an option's file, up to an example: what it is for."""
    lines = [line for line in text.splitlines() if not line.startswith(_GLOBAL)]
    words = itertools.takewhile(lambda line: line.startswith("# ") and not line.startswith("#  "), lines)
    return " ".join(line[2:] for line in words).rstrip(":")


def is_file(recipe: str) -> bool:
    """Whether a recipe is given as a file rather than by name."""
    return "/" in recipe or recipe.endswith((".yaml", ".yml"))


def files(recipe: str, folder: Path | None = None) -> list[Path]:
    """The file of a recipe, and those beside it that its defaults name, each before what it extends."""
    try:
        found = [Path(recipe).expanduser()]
    except RuntimeError as e:
        raise ConfigError(f"recipe={recipe}: {e}; give its whole path") from None
    for path in found:
        own = _read(_text(path, f"recipe={recipe}"), f"recipe={recipe}").get("defaults")
        names = [name for name in own if isinstance(name, str) and "/" not in name] if isinstance(own, list) else []
        names = [name.removesuffix(".yaml") for name in names]
        beside = [path.with_name(f"{name}.yaml") for name in names if name not in options("recipe", folder)]
        found += [other for other in beside if other.is_file() and other not in found]
    return found


def merged(lines: list[str], recipe: str, folder: Path | None) -> dict[str, Any]:
    """The configuration that a recipe makes with the options chosen for the whole run, each given as GROUP=OPTION.

    The command line counts before the recipe, the recipe before the options that it names, these before the defaults.
    """
    others = [line for line in lines if not line.startswith("recipe=")]
    chosen_here = {group: name.strip("'\"") for group, _, name in (line.partition("=") for line in others)}
    if is_file(recipe):
        texts = [(path.stem, _text(path, f"recipe={recipe}")) for path in files(recipe, folder)]
        given = tuple((name if n else _GIVEN, text) for n, (name, text) in enumerate(texts))
        try:
            data = _read(_hydra(tuple(others), given, folder), f"recipe={recipe}")
        except ConfigError as e:
            raise ConfigError(f"recipe={recipe}: {e}") from None
    else:
        data = _read(_hydra(tuple(lines), (), folder), f"recipe={recipe}")
        texts = [(recipe, option("recipe", recipe, folder))] if recipe else []
    said = [_read(text, f"recipe={recipe}") for _, text in texts]
    if isinstance(data.get("recipe"), dict):  # Hydra's word for it
        raise ConfigError(f"recipe={recipe}: in a folder of options its first line is to be `{_GLOBAL}`")
    data |= _said_whole(reversed(said))
    if is_file(recipe) and "recipe" not in said[0]:
        data["recipe"] = Path(recipe).stem
    for group, name in chosen_here.items():
        if group in GROUPS and name in options(group, folder):
            data[group] = place(group, name, data.get(group), folder)
    return data


def _said_whole(said: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Whoever says which option says all of it, not what it changes of another; who comes later may change that."""
    whole: dict[str, Any] = {}
    for own in said:
        for name, value in own.items():
            base = GROUPS.get(name)
            if base in OPTIONS and (isinstance(value, str) or (isinstance(value, dict) and chooser(base) in value)):
                whole[name] = value
            elif name in whole and isinstance(value, dict):
                before = whole[name]
                whole[name] = _over(before if isinstance(before, dict) else {chooser(GROUPS[name]): before}, value)
    return whole


def followed(data: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """`data` with what the documents call for in the place of `filter=auto`: the run's, or of a stage that has its own;
    and with what the model calls for in the place of `tokenizer=auto`.

    Under an auto of the run's a stage with data of its own has it too. Else the stage takes the run's filter, as ever.
    """
    if _is_auto(data["tokenizer"]):
        data = data | {"tokenizer": _usual("tokenizer", _tokenizer(data), data["tokenizer"], folder)}
    everywhere, stages = _is_auto(data["filter"]), dict(data.get("stages") or {})
    for name, stage in stages.items():
        if isinstance(stage, dict) and "filter" in hints_of(chosen(Stage, stage)):
            source, own = stage.get("data"), stage.get("filter")
            if _is_auto(own) or (everywhere and source and not own):
                stages[name] = {**stage, "filter": _usual("filter", _filter(source or data["data"]), own or {}, folder)}
    return (
        data
        | {"stages": stages}
        | ({"filter": _usual("filter", _filter(data["data"]), data["filter"], folder)} if everywhere else {})
    )


def _is_auto(given: Any) -> bool:
    return isinstance(given, dict) and given.get("name") == AUTO


def _usual(group: str, option: str, given: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The option that `auto` stands for, with what is given beside its name."""
    found = place(group, option, None, folder)
    known = hints_of(chosen(GROUPS[group], found))  # a recipe's vocab_size is for a tokenizer that is trained
    said = {key: value for key, value in given.items() if key in known and key != "name" and value is not None}
    return _over(found, said)


def _filter(source: Any) -> str:
    """The one that a source of documents calls for."""
    return typing.cast(type[Data], chosen(Data, source)).usual_filter


def _tokenizer(data: dict[str, Any]) -> str:
    """The one that the model of the first training calls for: its own, where it is there already."""
    stages = [stage for stage in (data.get("stages") or {}).values() if isinstance(stage, dict)]
    first = next((stage for stage in stages if "model" in hints_of(chosen(Stage, stage))), {})
    return "model" if typing.cast(type[Model], chosen(Model, first.get("model") or data["model"])).given else "bpe"


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two groups of settings as one, all the way down; those above count."""
    both = {key: _over(below[key], value) for key, value in above.items()
            if isinstance(value, dict) and isinstance(below.get(key), dict)}  # fmt: skip
    return below | above | both


_Texts = tuple[tuple[str, str], ...]  # name and text of each recipe that is a file


def _hydra(lines: tuple[str, ...], given: _Texts, folder: Path | None) -> str:
    """As YAML, so that nobody changes what is kept."""
    return _composed(lines, given, folder) if folder else _kept(lines, given)  # one's own files may change meanwhile


@functools.lru_cache(maxsize=64)
def _kept(lines: tuple[str, ...], given: _Texts) -> str:
    return _composed(lines, given, None)


def _composed(lines: tuple[str, ...], given: _Texts, folder: Path | None) -> str:
    theirs = GlobalHydra.instance().hydra  # of a program that calls us, and uses Hydra itself
    GlobalHydra.instance().clear()
    try:
        with (
            _searched(given, folder) as found,
            initialize_config_module(version_base="1.3", config_module=CONFIG_MODULE),
        ):
            return OmegaConf.to_yaml(hydra_compose("config", overrides=[*found, *lines]))
    except (HydraException, OmegaConfBaseException) as e:
        cause = e.__cause__ if isinstance(e.__cause__, OmegaConfBaseException) else e
        raise ConfigError(readable(cause)) from None
    except (YAMLError, RecursionError, ValueError, TypeError, AttributeError) as e:  # of a file's odd shape
        why = " ".join(str(e).split())[:300] or type(e).__name__
        raise ConfigError(f"{why}; expected YAML as docs/recipes.md has it") from None
    finally:
        GlobalHydra.instance().hydra = theirs


@contextlib.contextmanager
def _searched(given: _Texts, folder: Path | None) -> Iterator[list[str]]:
    """Overrides that let Hydra find the options in `folder`, and recipes that are files: these it has in memory."""
    words = [f"recipe={_GIVEN}"] if given else []
    if folder is not None:
        words.append("hydra.searchpath=['file://" + str(folder.absolute()).replace("'", "\\'") + "']")
    store = ConfigStore.instance()
    for name, text in given:
        store.store(name=name, group="recipe", node=OmegaConf.create(text), package="_global_")
    try:
        yield words
    finally:
        for name, _ in given:
            store.repo["recipe"].pop(f"{name}.yaml", None)


def _read(text: str, given: str) -> dict[str, Any]:
    """YAML as a mapping whose keys are texts, all through; ConfigError says what is not."""
    try:
        data = OmegaConf.to_container(OmegaConf.create(text))
        _check_shape(data, given, "")
    except (YAMLError, OmegaConfBaseException, RecursionError, ValueError, AttributeError) as e:
        raise ConfigError(f"{given}: {' '.join(str(e).split())[:300] or type(e).__name__}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{given}: expected settings with values, as docs/recipes.md has them")
    return typing.cast(dict[str, Any], data)


def _check_shape(data: Any, given: str, at: str) -> None:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        where = f"{at}.{key}" if at else str(key)
        if isinstance(data, dict) and not isinstance(key, str):
            raise ConfigError(f"{given}: the key {where} is no name; where it is meant as one, put it in quotes")
        if where == "stages" and not isinstance(value, dict):
            raise ConfigError(f"{given}: stages is no map of names to stages; e.g. stages: {{sft: {{kind: train}}}}")
        _check_shape(value, given, where)


def place(group: str, name: str, before: Any, folder: Path | None) -> dict[str, Any]:
    """An option for the place where `before` stands, of which stays what the option has and says nothing of."""
    given = f"{group}={name}"
    found = _read(option(group, name, folder), given)
    if found.pop("defaults", None):
        raise ConfigError(f"{given}: an option with defaults of its own cannot be placed; write them into it")
    fields = hints_of(chosen(GROUPS[group], found))
    found = {key: expanded(fields.get(key), value, folder) for key, value in found.items()}
    kept = {key: value for key, value in (before if isinstance(before, dict) else {}).items() if key in fields}
    if (rules := found.get("rules")) is not None:  # of a filter: what it does not apply, nobody tunes
        kept = {key: value for key, value in kept.items() if key in rules or not dataclasses.is_dataclass(fields[key])}
    return kept | found


def expanded(hint: Any, data: Any, folder: Path | None) -> Any:
    """`data` with options given by name (`filter: code`, `filter: {name: code}`) as their files have them."""
    hint = bare(hint)
    if typing.get_origin(hint) is dict and isinstance(data, dict):
        return {key: expanded(typing.get_args(hint)[1], value, folder) for key, value in data.items()}
    group = next((name for name, base in GROUPS.items() if base is hint), None)
    if group is not None and isinstance(data, str) and data in options(group, folder):
        return place(group, data, None, folder)
    if not isinstance(data, dict) or not dataclasses.is_dataclass(hint):
        return data
    hint = typing.cast(type, hint)
    if hint in OPTIONS and group is not None:
        name = data.get(chooser(hint))
        if isinstance(name, str) and name in options(group, folder) and len(set(OPTIONS[hint].values())) == 1:
            data = place(group, name, None, folder) | data  # the options differ in their values alone
    hints = hints_of(chosen(hint, data))
    return {key: expanded(hints.get(key), value, folder) for key, value in data.items()}


def readable(error: BaseException) -> str:
    """OmegaConf's or Hydra's message with the key in front and without its internals."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    first = lines[0].replace(f"recipe/{_GIVEN}", "it") if lines else type(error).__name__
    if lost := re.search(r"Could not (?:load|find) '([^/']+)/([^']+)'", first):
        group, name = lost.groups()
        known = options(group)
        mean = f"; did you mean {nearest(name, known)!r}? It has {', '.join(known)}" if known else ""
        return f"its defaults name {group}={name}, and there is no such option{mean}"
    return f"{key}: {first}" if key and key not in first else first
