"""`fmtrain run` and `fmtrain plan`: make every stage that is not made yet, or show what would be done."""

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fmtrain.artifacts.storage import disk_errors, private_files, read_json
from fmtrain.errors import ConfigError, FmtrainError, StoreError
from launch.backends.environment import misleading
from launch.status import store_at
from launch.verbs.parser import Verbs, add_overrides, add_verb

if TYPE_CHECKING:
    from fmtrain.schema.root import Root


def add(verbs: Verbs) -> None:
    run = add_verb(verbs, "run", _run, "make every stage that is not made yet", only_reads=False)
    add_overrides(run)
    run.add_argument("--given", type=Path, help=argparse.SUPPRESS)  # what a Slurm job's overrides are read from
    run.add_argument("--wait", action="store_true", help="launch=slurm: follow the job and return its exit code")
    recipes = add_verb(verbs, "recipes", _recipes, "the recipes that there are", only_reads=True)
    recipes.add_argument("--config-dir", type=Path, metavar="DIR", help="recipes of your own too: DIR/recipe/X.yaml")
    text = "show what run would do: reuse, run or resume, why, and how long"
    add_overrides(add_verb(verbs, "plan", _plan, text, only_reads=True))


def _run(args: argparse.Namespace) -> int:
    with private_files():
        return _make(args)


def _make(args: argparse.Namespace) -> int:
    from fmtrain.schema.launch import Slurm
    from launch import driver
    from launch.compose import compose
    from launch.graph import build, pinned
    from launch.plan import plan
    from launch.verbs import slurm

    if args.given is not None:
        if not args.given.exists():
            raise ConfigError(
                f"{args.given} is gone, as when its job has ended: a secret stands in what it was given. Submit the "
                "run anew: fmtrain run .. launch=slurm"
            )
        args.overrides = read_json(args.given)
    root = compose(args.overrides, args.config_dir)
    if args.cfg:
        return _show(root)
    store = store_at(root.store)
    inside_job = "FMTRAIN_JOB" in os.environ
    if isinstance(root.launch, Slurm) and root.launch.dry_run and not inside_job:
        return slurm.submit(root, root.launch, store, args)
    run_id = os.environ.get("FMTRAIN_RUN") if inside_job else None
    try:
        with disk_errors(store.root):
            store.prepare()
            graph = build(root)
            steps = plan(graph, store)
    except FmtrainError as e:
        if run_id:  # what follows on this turn of the job hangs on it
            with contextlib.suppress(OSError, StoreError):
                record = driver.Run(store, run_id, root, args.overrides)
                record.update(state="failed", exit_code=int(e.exit_code), error=type(e).__name__, message=str(e))
        raise
    if isinstance(root.launch, Slurm) and not inside_job:
        args.overrides += pinned(graph)
        return slurm.submit(root, root.launch, store, args)
    run_id = run_id or driver.new_run_id()
    print(f"run {run_id}  recipe={root.recipe} launch={root.launch.name}  store {store.root}")
    for line in [*graph.left_out, *graph.notes]:
        print(f"  {line}")
    if others := misleading():
        print(
            f"  {', '.join(others)}: set by another launcher; this run starts ranks of its own and heeds none of them"
        )
    return driver.run(root, steps, store, run_id, args.overrides)


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
    from launch.graph import build
    from launch.plan import plan
    from launch.summary import plan_table

    root = compose(args.overrides, args.config_dir)
    if args.cfg:
        return _show(root)
    graph = build(root)
    print(plan_table(plan(graph, store_at(root.store))))
    for line in [*graph.left_out, *graph.notes]:
        print(line)
    return 0
