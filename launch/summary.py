"""The lines a finished run ends with, and the table of a plan."""

from pathlib import Path

from fmtrain.run.manifest import Artifact
from launch.plan import Step
from launch.terminal import duration, table


def plan_table(steps: list[Step]) -> str:
    """A row a stage: what will be done, why, and an estimate of the time."""
    rows = [("stage", "action", "time", "why")]
    for step in steps:
        estimate = "" if step.action == "reuse" else "~" + duration(step.seconds)
        rows.append((step.node.stage, step.action, estimate, step.reason))
    total = sum(s.seconds for s in steps if s.action != "reuse")
    return table(rows) + (f"\nin all ~{duration(total)}" if total else "\nnothing to run")


def summary(steps: list[Step], made: dict[str, Artifact], seconds: dict[str, float], total: float, run: Path) -> str:
    """Seconds a stage, the model's version, the report, and three commands to try next."""
    rows = [("stage", "artifact", "seconds", "folder")]
    for step in steps:
        artifact = made[step.node.stage]
        spent = f"{seconds[step.node.stage]:.1f}" if step.node.stage in seconds else "reused"
        rows.append((step.node.stage, artifact.ref, spent, str(artifact.path)))
    lines = ["", table(rows), f"in all {total:.1f} s", ""]
    model = made.get("publish") or next((made[s] for s in ("dpo", "sft", "pretrain") if s in made), None)
    if model is not None:
        lines.append(f"model   {model.ref}  {model.path}")
    if (run / "report.html").is_file():
        lines.append(f"report  {run / 'report.html'}")
    lines.append(f"run     {run}")
    if model is not None:
        lines += ["", "try next:", *(f"  {line}" for line in _next(steps, model))]
    return "\n".join(lines)


def _next(steps: list[Step], model: Artifact) -> list[str]:
    stages = {s.node.stage for s in steps}
    recipe = next((s.node.name for s in steps if s.node.stage == "publish"), "quickstart")
    prompt = "def add(a, b):" if "dpo" in stages else "import " if "sft" not in stages else "Say hello."
    change = "stages.dpo.objective.beta=0.2" if "dpo" in stages else "seed=2"
    recipe = recipe if recipe.startswith("quickstart") else "quickstart"
    return [f"fmtrain generate {model.ref} {prompt!r}", f"fmtrain plan recipe={recipe} {change}", "fmtrain models"]
