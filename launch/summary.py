"""The lines a finished run ends with, and the table of a plan."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fmtrain.artifacts.manifest import Artifact
from fmtrain.kinds.base import MODELS
from fmtrain.kinds.objectives import Objective
from launch.figures import described, unknown_for
from launch.plan import KEPT, Step
from launch.record import Run
from launch.status import DEFAULT_STORE, store_at
from launch.terminal import columns, duration, table


def plan_table(steps: list[Step]) -> str:
    """A row a stage: what will be done, an estimate of the time, why, and of a training how much it is."""
    rows = [("stage", "action", "time", "why and how much")]
    todo = [step for step in steps if step.action not in KEPT]
    for step in steps:
        estimate = "?" if step.seconds is None else f"~{duration(step.seconds)}"
        last = "; ".join(filter(None, (step.reason, described(step))))
        rows.append((step.node.stage, step.action, "" if step.action in KEPT else estimate, last))
    total = sum(step.seconds or 0.0 for step in todo)
    unknown: dict[str, list[str]] = {}
    for step in todo:
        if step.seconds is None:
            unknown.setdefault(unknown_for(step), []).append(step.node.stage)
    beside = "".join(f"; no estimate for {', '.join(names)}: {why}" for why, names in unknown.items())
    return table(rows, columns()) + (f"\nin all ~{duration(total)}{beside}" if todo else "\nnothing to run")


def plan_text(steps: list[Step], left_out: Sequence[str]) -> str:
    """All that `fmtrain plan` says: the table, and what has no stage here and why."""
    return "\n".join([plan_table(steps), *left_out])


def summary(run: Run, steps: list[Step], made: dict[str, Artifact], seconds: dict[str, float], total: float) -> str:
    """Seconds a stage, the model's version, the report, and three commands to try next, which can be pasted."""
    rows = [("stage", "artifact", "seconds", "folder")]
    for step in (step for step in steps if step.node.stage in made):
        artifact = made[step.node.stage]
        spent = f"{seconds[step.node.stage]:.1f}" if step.node.stage in seconds else "reused"
        rows.append((step.node.stage, artifact.ref, spent, str(artifact.path)))
    lines = ["", table(rows), f"in all {total:.1f} s", ""]
    ordered = [made[step.node.stage] for step in steps if step.node.stage in made]
    models = [artifact for kind in MODELS for artifact in ordered if artifact.manifest.kind == kind]
    model = models[-1] if models else None
    if model is not None:
        lines.append(f"model   {model.ref}  {model.path}")
    cards = [artifact.path / "card.html" for artifact in ordered]
    lines += [f"card    {card}" for card in cards if card.is_file()]
    if (run.folder / "report.html").is_file():
        lines.append(f"report  {run.folder / 'report.html'}")
    lines.append(f"run     {run.folder}")
    if model is not None:
        lines += ["", "try next:", *(f"  {line}" for line in _next(run, steps, model))]
    return "\n".join(lines)


def _next(run: Run, steps: list[Step], model: Artifact) -> list[str]:
    recipe, overrides = run.root.recipe, run.state["overrides"]
    trained = [(s.node.stage, s.node.job.stage.objective) for s in steps if hasattr(s.node.job.stage, "objective")]
    prompt = trained[-1][1].prompt if trained else Objective.prompt
    if recipe.startswith("quickstart") and prompt == Objective.prompt:
        prompt = ("def add(a, b):",)
    key, *values = ("seed", "2", "3")
    for name, objective in trained:
        if objective.tries:
            key, values = f"stages.{name}.objective.{objective.tries[0]}", [*objective.tries[1:]]
    given = {name.lstrip("+"): value for name, _, value in (o.partition("=") for o in overrides)}
    change = f"{key}={values[0] if given.get(key) != values[0] else values[1]}"
    kept = [o for o in overrides if o.partition("=")[0].lstrip("+") != key]
    if "recipe" not in given:
        kept.insert(0, f"recipe={recipe}")
    usual = store_at(os.environ.get("FMTRAIN_STORE", DEFAULT_STORE)).root
    at = [] if run.store.root == usual else ["--store", str(run.store.root)]
    own = [f"--config-dir={run.config_dir}"] if run.config_dir else []
    commands = (["generate", model.ref, *prompt, *at], ["plan", *kept, change, *own], ["models", *at])
    return [shlex.join([*_program(), *words]) for words in commands]


def _program() -> list[str]:
    """The words that start this fmtrain from the shell of whoever reads them."""
    own = Path(sys.executable).with_name("fmtrain")  # where pip puts a console script: beside its interpreter
    if not os.access(own, os.X_OK):
        return [sys.executable, "-m", "launch.cli"]
    found = shutil.which("fmtrain")
    return ["fmtrain"] if found and os.path.samefile(found, own) else [str(own)]
