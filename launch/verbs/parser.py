"""What the verbs' parsers share: how a verb is added, and the options that several of them take."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeAlias

from launch.status import DEFAULT_STORE

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
OVERRIDES = "Hydra overrides, e.g. recipe=quickstart seed=2 model=llama_tiny"


class Parser(argparse.ArgumentParser):
    """Writes its help out before it leaves, where a closed pipe is noticed."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()
        super().exit(status, message)


def add_verb(
    verbs: Verbs, name: str, function: Callable[[argparse.Namespace], int], text: str, *, only_reads: bool
) -> argparse.ArgumentParser:
    """`only_reads`: nothing is lost where its output is closed half-way."""
    sub = verbs.add_parser(name, help=text, description=text)
    sub.set_defaults(function=function, only_reads=only_reads)
    return sub


def add_overrides(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("overrides", nargs="*", help=OVERRIDES)
    sub.add_argument("--config-dir", type=Path, metavar="DIR", help="groups of your own beside ours: DIR/recipe/X.yaml")
    text = "a folder that was published: make it again, with the data where data.files=.. says that it lies here"
    sub.add_argument("--from", type=Path, metavar="FOLDER", dest="source", help=text)
    sub.add_argument("--cfg", choices=["job"], help="print the composed configuration as YAML, and do nothing")


def add_store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--store", default=os.environ.get("FMTRAIN_STORE", DEFAULT_STORE), help="default FMTRAIN_STORE, or ./store"
    )


def add_json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="machine-readable")
