"""datatrove's own filters and formatters, which `filter.rules=[datatrove:NAME]` names: what there are, what each takes.

Told from the source of the installed package, which is parsed and never imported: a plan answers in half a second, and
knows an argument that is none. What a block needs to be made is found out where it is made, at the start of the stage.
"""

import ast
import difflib
import functools
import importlib.metadata
import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError

PREFIX = "datatrove:"
_FOLDERS = {"filters": "BaseFilter", "formatters": "BaseFormatter"}
_OURS = ("exclusion_writer", "batch_size")  # the ledger is the exclusion writer; documents come one by one
_LISTS = {"list", "tuple", "set", "Iterable", "Sequence", "Collection"}
_NO = {
    "LambdaFilter": "takes a Python function, which no configuration holds; a rule of your own is a plug-in",
    "SamplerFilter": "draws document after document, so that the corpus would hang on the number of tasks; "
    "a mixture of tokens takes a part of a source by hash",
    "PIIFormatter": "takes its replacements in turn, so that the corpus would hang on the number of tasks; the rule "
    "pii finds more",
    "FastTextClassifierFilter": "reads a model by an address, and what lies there would be no part of what the corpus "
    "is known by; the rule classifier reads fastText's models from a file",
    "C4BadWordsFilter": "draws what it keeps, and fetches its lists; the rule bad_words decides alike by lists on disk",
}


@dataclass(frozen=True)
class Argument:
    """`kinds` are the names in its annotation, or the type of its default; empty: anything."""

    kinds: frozenset[str]
    choices: tuple[Any, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Block:
    """A class of datatrove's, in `module`; a filter decides, a formatter changes the text."""

    name: str
    module: str
    is_filter: bool
    arguments: dict[str, Argument]


def chosen(rules: Collection[str]) -> list[str]:
    """The names of blocks among rules."""
    return [rule.removeprefix(PREFIX) for rule in rules if rule.startswith(PREFIX)]


def check(rules: list[str], given: dict[str, dict[str, Any]], key: str) -> None:
    """ConfigError for the first block that there is not, or argument that it does not take; they stand at `key`."""
    for name in given:
        if name not in chosen(rules):
            raise ConfigError(
                f"{key}.datatrove.{name} is given, and {PREFIX}{name} does not stand among "
                f"{key}.rules=[{','.join(rules)}]: it would not be applied. Add it "
                f"({key}.rules=[{','.join([*rules, PREFIX + name])}]), or take the setting away"
            )
    for name in chosen(rules):
        block = find(name, f"{key}.rules")
        arguments, at = given.get(name, {}), f"{key}.datatrove.{name}"
        for argument, value in arguments.items():
            if argument not in block.arguments:
                raise ConfigError(
                    f"{at}.{argument}: datatrove's {name} takes no such argument; {_among(argument, block.arguments)}"
                )
            if why := _unfit(block.arguments[argument], value):
                raise ConfigError(f"{at}.{argument}: {value!r} is not {why}")
        lacking = [one for one, what in block.arguments.items() if what.required and one not in arguments]
        if lacking:
            raise ConfigError(f"{at}.{lacking[0]} is required and was not given; e.g. {at}.{lacking[0]}=VALUE")


def find(name: str, key: str) -> Block:
    """The block of that name; ConfigError where there is none that a corpus can be made with."""
    known = blocks()
    if name in _NO:
        raise ConfigError(f"{key}: datatrove's {name} {_NO[name]}")
    if name not in known:
        version = importlib.metadata.version("datatrove")
        names = [one for one in known if one not in _NO]
        raise ConfigError(f"{key}: datatrove {version} has no filter or formatter {name!r}; {_among(name, names)}")
    return known[name]


def as_arguments(block: Block, given: dict[str, Any]) -> dict[str, Any]:
    """What the block is made with: a list where it takes tuples is one, to its innermost."""
    return {k: _tuples(v) if "tuple" in block.arguments[k].kinds else v for k, v in given.items()}


@functools.cache
def blocks() -> dict[str, Block]:
    """Every filter and formatter of the installed package, by name."""
    spec = importlib.util.find_spec("datatrove")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"filter.rules names a block of datatrove ({PREFIX}NAME), which is not installed here")
    folder = Path(spec.submodule_search_locations[0]) / "pipeline"
    return {
        block.name: block
        for part, base in _FOLDERS.items()
        for path in sorted((folder / part).glob("*.py"))
        for block in _in_file(path, f"datatrove.pipeline.{part}.{path.stem}", base)
    }


def _in_file(path: Path, module: str, base: str) -> Iterator[Block]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and base in {ast.unparse(one) for one in node.bases}:
            made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            yield Block(node.name, module, base == _FOLDERS["filters"], dict(_arguments(made[0])) if made else {})


def _arguments(made: ast.FunctionDef) -> Iterator[tuple[str, Argument]]:
    taken = [*made.args.args[1:], *made.args.kwonlyargs]  # the first is self
    defaults: list[ast.expr | None] = [None] * (len(made.args.args) - 1 - len(made.args.defaults))
    for argument, default in zip(taken, [*defaults, *made.args.defaults, *made.args.kw_defaults], strict=True):
        if argument.arg not in _OURS:
            yield argument.arg, _argument(argument.annotation, default)


def _argument(annotation: ast.expr | None, default: ast.expr | None) -> Argument:
    usual = type(default.value).__name__ if isinstance(default, ast.Constant) else ""
    if annotation is None:
        return Argument(frozenset({usual} - {""}), required=default is None)
    kinds, choices = set[str](), list[Any]()
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            kinds.add(node.id)
        elif isinstance(node, ast.Constant):
            choices.append(node.value)
    literal = "Literal" in kinds
    if None in choices or usual == "NoneType":
        kinds.add("NoneType")
    return Argument(frozenset(kinds), tuple(choices) if literal else (), default is None)


def _unfit(argument: Argument, value: Any) -> str:
    """What is expected instead; "" where the value does."""
    if argument.choices:
        return "" if value in argument.choices else f"one of {', '.join(map(str, argument.choices))}"
    kinds, given = argument.kinds, type(value).__name__
    numbers = isinstance(value, (int, float)) and not isinstance(value, bool) and bool(kinds & {"int", "float"})
    lists = isinstance(value, list) and bool(kinds & _LISTS)
    if not kinds or given in kinds or numbers or lists:
        return ""
    return " or ".join(sorted(kind.replace("NoneType", "null") for kind in kinds)) + ", as its annotation says"


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _among(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"{f'did you mean {near[0]}? There' if near else 'there'} are {', '.join(known) or 'none'}"
