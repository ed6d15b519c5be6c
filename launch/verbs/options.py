"""`fmtrain options`, `fmtrain schema`: what can be set, from the same dataclasses that check it."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from launch.terminal import columns, table
from launch.verbs.parser import Verbs, add_verb

_WIDEST = 32  # characters of a default


def add(verbs: Verbs) -> None:
    options = add_verb(
        verbs, "options", _options, "what can be set: groups, kinds of stages, settings", only_reads=True
    )
    options.add_argument(
        "name", nargs="?", help="a group, one of its options, or a kind of stage; all where it is left out"
    )
    options.add_argument("--config-dir", type=Path, metavar="DIR", help="groups of your own beside ours")
    options.add_argument("--markdown", action="store_true", help="the page of every setting")
    add_verb(verbs, "schema", _schema, "the JSON Schema of a configuration, for editors", only_reads=True)


def _schema(args: argparse.Namespace) -> int:
    from fmtrain.schema.describe import json_schema
    from fmtrain.schema.root import Root

    print(json.dumps(json_schema(Root), indent=1))
    return 0


def _options(args: argparse.Namespace) -> int:
    from fmtrain.errors import ConfigError
    from fmtrain.kinds.table import KINDS
    from fmtrain.schema.describe import settings
    from launch import recipes
    from launch.keys import GROUPS, nearest

    recipes.check_folder(args.config_dir)
    if args.markdown:
        print("\n".join(page()))
        return 0
    if args.name is None:
        rows = [(group, ", ".join(recipes.options(group, args.config_dir))) for group in sorted([*GROUPS, "recipe"])]
        print(table([("group", "options"), *rows], columns()))
        print(f"kinds of stages: {', '.join(KINDS)}")
        return 0
    having = [g for g in (*GROUPS, "recipe") if args.name in recipes.options(g, args.config_dir)]
    if having and args.name not in (*GROUPS, *KINDS, "recipe"):
        for group in having:
            print(f"# {group}={args.name}\n{recipes.option(group, args.name, args.config_dir)}")
        return 0
    if args.name not in (*GROUPS, *KINDS, "recipe"):
        near = nearest(args.name, [*GROUPS, *KINDS])
        raise ConfigError(f"options {args.name}: neither a group nor a kind of stage; did you mean {near!r}?")
    if args.name in (*GROUPS, "recipe"):
        names = recipes.options(args.name, args.config_dir)
        rows = [(name, _what(args.name, recipes.option(args.name, name, args.config_dir))) for name in names]
        print(table([(args.name, "what"), *rows], columns()))
    for cls in classes(args.name):
        rows4 = [(s.key, _brief(s.default) or "(required)", s.kind, s.what) for s in settings(cls)]
        print()
        print(table([(cls.__name__, "default", "value", "what"), *rows4], columns()))
    return 0


def _brief(default: str) -> str:
    """A default within its column; docs/settings.md has the whole."""
    return default if len(default) <= _WIDEST else f"{default[: _WIDEST - 2]}.."


def _what(group: str, text: str) -> str:
    """What an option is for: the comment of its file, else what its class says of itself."""
    from fmtrain.schema.describe import about
    from fmtrain.schema.options import chosen
    from launch.keys import GROUPS
    from launch.recipes import comment

    named = re.search(r"^name: (\S+)", text, re.M)
    return comment(text) or (about(chosen(GROUPS[group], {"name": named[1]})) if named and group in GROUPS else "")


def classes(name: str) -> list[type]:
    """The classes whose settings a group has, each once, and those of the kind of stage of that name."""
    from fmtrain.kinds.table import KINDS
    from fmtrain.schema.options import OPTIONS
    from launch.keys import GROUPS

    base = GROUPS.get(name)
    found = OPTIONS.get(base, {"": base}).values() if base is not None and name != "stage" else []
    return list(dict.fromkeys([*found, *([KINDS[name].config] if name in KINDS else [])]))


def page() -> Iterator[str]:
    """docs/settings.md."""
    from fmtrain.kinds.base import Stage
    from fmtrain.kinds.table import KINDS
    from fmtrain.schema.common import Common
    from launch import recipes
    from launch.keys import GROUPS

    yield "# Every setting\n\nMade by `fmtrain options --markdown` from the dataclasses that check them.\n"
    yield "## The run\n"
    yield from _rows(Common)
    for name, kind in KINDS.items():
        yield f"## Stages of kind `{name}`: `stages.NAME.*`\n"
        yield from _rows(kind.config)
    for group in sorted(GROUPS):
        if group != "stage":
            yield f"## Group `{group}`\n\nOptions: {', '.join(f'`{name}`' for name in recipes.options(group))}.\n"
            for cls in [one for one in classes(group) if not issubclass(one, Stage)]:
                yield from _rows(cls)


def _rows(cls: type) -> Iterator[str]:
    from fmtrain.schema.describe import about, settings

    yield f"**{cls.__name__}** {about(cls)}".rstrip() + "\n"
    yield "| setting | default | value | what |\n|---|---|---|---|"
    for s in settings(cls):
        cells = (f"`{s.key}`", f"`{s.default}`" if s.default else "", s.kind, s.what)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
