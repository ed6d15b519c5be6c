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
from launch.plan import Step
from launch.status import DEFAULT_STORE, store_at
from launch.terminal import duration, table


def plan_table(steps: list[Step]) -> str:
    """A row a stage: what will be done, why, and an estimate of the time."""
    rows = [("stage", "action", "time", "why")]
    for step in steps:
        estimate = "" if step.action == "reuse" else "~" + duration(step.seconds)
        rows.append((step.node.stage, step.action, estimate, step.reason))
    total = sum(s.seconds for s in steps if s.action != "reuse")
    return table(rows) + (f"\nin all ~{duration(total)}" if total else "\nnothing to run")


def plan_text(steps: list[Step], left_out: Sequence[str]) -> str:
    """All that `fmtrain plan` says: the table, and what has no stage here and why."""
    return "\n".join([plan_table(steps), *left_out])


def summary(
    steps: list[Step],
    made: dict[str, Artifact],
    seconds: dict[str, float],
    total: float,
    run: Path,
    recipe: str = "quickstart",
    overrides: Sequence[str] = (),
    store: Path | None = None,
) -> str:
    """Seconds a stage, the model's version, the report, and three commands to try next, which can be pasted.

    `recipe` and `overrides` are the run's; `store` is its store, None for the one a command takes by itself.
    """
    rows = [("stage", "artifact", "seconds", "folder")]
    for step in steps:
        artifact = made[step.node.stage]
        spent = f"{seconds[step.node.stage]:.1f}" if step.node.stage in seconds else "reused"
        rows.append((step.node.stage, artifact.ref, spent, str(artifact.path)))
    lines = ["", table(rows), f"in all {total:.1f} s", ""]
    ordered = [made[step.node.stage] for step in steps]
    models = [artifact for kind in MODELS for artifact in ordered if artifact.manifest.kind == kind]
    model = models[-1] if models else None
    if model is not None:
        lines.append(f"model   {model.ref}  {model.path}")
    cards = [artifact.path / "card.html" for artifact in ordered]
    lines += [f"card    {card}" for card in cards if card.is_file()]
    if (run / "report.html").is_file():
        lines.append(f"report  {run / 'report.html'}")
    lines.append(f"run     {run}")
    if model is not None:
        lines += ["", "try next:", *(f"  {line}" for line in _next(steps, model, recipe, overrides, store))]
    return "\n".join(lines)


def _next(steps: list[Step], model: Artifact, recipe: str, overrides: Sequence[str], store: Path | None) -> list[str]:
    trained = [(s.node.stage, s.node.job.stage.objective) for s in steps if hasattr(s.node.job.stage, "objective")]
    prompt = trained[-1][1].prompt if trained else Objective.prompt
    if recipe.startswith("quickstart") and prompt == Objective.prompt:
        prompt = ("def add(a, b):",)
    key, values = "seed", ("2", "3")
    if betas := [name for name, objective in trained if hasattr(objective, "beta")]:
        key, values = f"stages.{betas[-1]}.objective.beta", ("0.2", "0.3")
    given = {name.lstrip("+"): value for name, _, value in (o.partition("=") for o in overrides)}
    change = f"{key}={values[0] if given.get(key) != values[0] else values[1]}"
    kept = [o for o in overrides if o.partition("=")[0].lstrip("+") != key]
    if "recipe" not in given:
        kept.insert(0, f"recipe={recipe}")
    usual = store_at(os.environ.get("FMTRAIN_STORE", DEFAULT_STORE)).root
    at = [] if store is None or store == usual else ["--store", str(store)]
    commands = (["generate", model.ref, *prompt, *at], ["plan", *kept, change], ["models", *at])
    return [shlex.join([*_program(), *words]) for words in commands]


def _program() -> list[str]:
    """The words that start this fmtrain from the shell of whoever reads them."""
    own = Path(sys.executable).with_name("fmtrain")  # where pip puts a console script: beside its interpreter
    if not os.access(own, os.X_OK):
        return [sys.executable, "-m", "launch.cli"]
    found = shutil.which("fmtrain")
    return ["fmtrain"] if found and os.path.samefile(found, own) else [str(own)]
