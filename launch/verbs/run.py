"""`fmtrain run` and `fmtrain plan`: make every stage that is not made yet, or show what would be done."""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fmtrain.artifacts.storage import read_json
from fmtrain.errors import ConfigError, ExitCode
from launch.verbs.parser import Verbs, add_overrides, add_verb

if TYPE_CHECKING:
    from fmtrain.schema.root import Root
    from launch.reproduce import Published


def add(verbs: Verbs) -> None:
    run = add_verb(verbs, "run", _run, "make every stage that is not made yet", only_reads=False)
    add_overrides(run)
    run.add_argument("--given", type=Path, help=argparse.SUPPRESS)  # what a Slurm job's overrides are read from
    run.add_argument("--wait", action="store_true", help="launch=slurm: follow the job and return its exit code")
    recipes = add_verb(verbs, "recipes", _recipes, "the recipes that there are", only_reads=True)
    recipes.add_argument("--config-dir", type=Path, metavar="DIR", help="recipes of your own too: DIR/recipe/X.yaml")
    text = "show what run would do: reuse, run, resume or skip, why, and how long"
    add_overrides(add_verb(verbs, "plan", _plan, text, only_reads=True))


def _run(args: argparse.Namespace) -> int:
    from launch import start
    from launch.compose import compose

    if args.given is not None:
        if not args.given.exists():
            raise ConfigError(
                f"{args.given} is gone, as when its job has ended: a secret stands in what it was given. Submit the "
                "run anew: fmtrain run .. launch=slurm"
            )
        args.overrides = read_json(args.given)
    source = _source(args)
    root = compose(args.overrides, args.config_dir)
    if args.cfg:
        return _show(root)
    begun = start.begin(root, args.overrides, args.config_dir, source)
    if begun.ended is None:
        return begun.job.wait() if begun.job is not None and args.wait else int(ExitCode.DONE)
    if begun.ended.message:
        with contextlib.suppress(OSError):
            print(begun.ended.message, file=sys.stderr, flush=True)
    return begun.ended.code


def _show(root: "Root") -> int:
    """The composed configuration; what is secret in it as it was given."""
    import yaml

    from fmtrain import redact
    from fmtrain.schema.load import dump

    print(yaml.safe_dump(redact.as_given(dump(root)), sort_keys=False, allow_unicode=True), end="")
    return 0


def _recipes(args: argparse.Namespace) -> int:
    from launch import recipes
    from launch.terminal import columns, table

    recipes.check_folder(args.config_dir)
    names = recipes.options("recipe", args.config_dir)
    rows = [(name, recipes.comment(recipes.option("recipe", name, args.config_dir))) for name in names]
    print(table([("recipe", "what"), *rows], columns()))
    return 0


def _plan(args: argparse.Namespace) -> int:
    from launch.compose import compose
    from launch.figures import measure
    from launch.start import planned
    from launch.summary import plan_text

    source = _source(args)
    root = compose(args.overrides, args.config_dir)
    if args.cfg:
        return _show(root)
    found = planned(root, source)
    measure(found.steps, root.launch, found.store)
    print(plan_text(found.steps, found.graph.said))
    if source is not None:
        print("\n".join(source.said(found.steps)))
    return 0


def _source(args: argparse.Namespace) -> "Published | None":
    """The folder that --from names; its recipe is then the run's."""
    if args.source is None:
        return None
    from launch.reproduce import published

    source = published(args.source)
    if "FMTRAIN_JOB" not in os.environ:  # a job of a queue is given a copy of it
        if given := next((o for o in args.overrides if o.startswith("recipe=")), None):
            raise ConfigError(f"--from={args.source} has a recipe of its own; take {given} away")
        source.check_recipe(args.overrides)
        args.overrides = [source.recipe, *args.overrides]
    return source
