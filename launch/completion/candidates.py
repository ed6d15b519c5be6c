"""What may stand where the cursor is: verbs, their options and arguments, names in a store, files.

The parsers say which words there are; only what a word means beyond `choices` is told here, by verb and argument.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping

from fmtrain.kinds.base import MODELS
from launch.completion.asked import Asked, files, refs
from launch.completion.line import Typed

Parsers = Mapping[str, argparse.ArgumentParser]


def candidates(typed: Typed, verbs: Parsers) -> list[str]:
    """Whole words that begin with the one that is typed."""
    words = typed.words[1:]
    if not words:
        found: Iterable[str] = verbs
    elif words[0] not in verbs:
        found = []
    else:
        found = _of_verb(words[0], verbs[words[0]], words[1:], typed.current)
    return sorted({word for word in found if word.startswith(typed.current)})


def is_final(word: str) -> bool:
    """Whether nothing is to follow in the same word."""
    return not word.endswith(("=", ".", "/", "@", "["))


def _of_verb(verb: str, parser: argparse.ArgumentParser, words: list[str], current: str) -> Iterable[str]:
    """The candidates behind a verb: walks over its words as argparse would."""
    named = {name: action for action in parser._actions for name in action.option_strings}
    places = [action for action in parser._actions if not action.option_strings]
    before: list[str] = []
    options: dict[str, str] = {}
    left = iter(words)
    for word in left:
        name, said, value = word.partition("=") if word.startswith("--") else (word, "", "")
        action = named.get(name)
        if action is None and places and isinstance(places[0], argparse._SubParsersAction):
            inner: Parsers = places[0].choices or {}
            return _of_verb(f"{verb} {word}", inner[word], list(left), current) if word in inner else []
        if action is None:
            before.append(word)
        elif action.nargs != 0:
            given = value if said else next(left, None)
            if given is None:
                return _of_argument(Asked(verb, current, before, options), action)
            options[action.dest] = given
    if current.startswith("-"):
        return [name for name, action in named.items() if action.help != argparse.SUPPRESS and name.startswith("--")]
    asked = Asked(verb, current, before, options)
    at = next((a for n, a in enumerate(places) if a.nargs == "*" or n == len(before)), None)
    return _of_argument(asked, at) if at is not None else []


def _of_argument(asked: Asked, action: argparse.Action) -> Iterable[str]:
    if action.choices is not None:
        return map(str, action.choices)
    verb = asked.verb.partition(" ")[0]
    find = _ARGUMENTS.get(f"{verb}.{action.dest}") or _ARGUMENTS.get(action.dest)
    return find(asked) if find else []


def _models(asked: Asked) -> list[str]:
    return files(asked.current, folders_only=True) if "/" in asked.current else refs(asked.store, *MODELS)


def _runs(asked: Asked) -> list[str]:
    return [path.name for path in (asked.store / "runs").glob("*")]


def _stages(asked: Asked) -> list[str]:
    return [path.name for path in (asked.store / "runs").glob(f"{(asked.before or [''])[0]}*/logs/*")]


def _options(asked: Asked) -> list[str]:
    from fmtrain.kinds.table import KINDS
    from launch.keys import GROUPS
    from launch.recipes import options

    return [*GROUPS, *KINDS, "recipe", *(name for group in GROUPS for name in options(group, asked.config_dir))]


def _overrides(asked: Asked) -> list[str]:
    from launch.completion.overrides import overrides

    return overrides(asked)


_ARGUMENTS: dict[str, Callable[[Asked], list[str]]] = {  # VERB.ARGUMENT, or the ARGUMENT of any
    "overrides": _overrides,
    "store": lambda asked: files(asked.current, folders_only=True),
    "config_dir": lambda asked: files(asked.current, folders_only=True),
    "corpus": lambda asked: refs(asked.store, "corpus"),
    "generate.model": _models,
    "verify.name": lambda asked: refs(asked.store),
    "options.name": _options,
    "status.run": _runs,
    "logs.run": _runs,
    "logs.stage": _stages,
}
