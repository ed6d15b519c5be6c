"""The floors: one foundation, three wings that never import each other, no heavy import where it does not belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOUNDATION = {"fmtrain", *(f"fmtrain.{r}" for r in ("errors", "redact", "show", "schema", "artifacts", "kinds"))}
TRAINING = {
    f"fmtrain.{r}" for r in ("data", "models", "objectives", "checkpoint", "train", "evaluate", "publish", "generate")
}
CORPUS, LAUNCH = {"data_pipelines"}, {"launch"}
FORBIDDEN = {
    "foundation": {"torch", "transformers", "deepspeed", "hydra", "omegaconf", "ray", "datatrove", "wandb"},
    "training": {"hydra", "omegaconf", "ray", "datatrove", "wandb"},
    "corpus": {"torch", "transformers", "deepspeed", "hydra", "omegaconf", "wandb"},
    "launch": {"torch", "transformers", "deepspeed", "datatrove", "wandb"},
}
# The one door: what `import fmtrain` offers stands in a room of launch, which also reads what training has made.
DOOR = "launch.python"
THROUGH_THE_DOOR = {
    ("fmtrain", DOOR): "the names that a notebook uses; fetched when one is used",
    (f"{DOOR}.store", "fmtrain.generate"): "a version as a model of transformers",
    (f"{DOOR}.rows", "fmtrain.data.shards"): "the tokens of a document",
}
# inside the training wing arrows run down this list only
TRAINING_FLOORS = ["data", "models", "objectives", "checkpoint", "train", "evaluate", "publish", "generate"]


def modules() -> dict[str, Path]:
    found = {}
    for top in ("fmtrain", "data_pipelines", "launch"):
        for path in (ROOT / top).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def wing(module: str) -> str:
    room = ".".join(module.split(".")[:2])
    if room in FOUNDATION:
        return "foundation"
    if room in TRAINING:
        return "training"
    top = module.split(".")[0]
    return {"data_pipelines": "corpus", "launch": "launch"}[top]


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_run_down_only(module: str) -> None:
    here = wing(module)
    known = modules()
    for name in imports(known[module]):
        top = name.split(".")[0]
        assert top not in FORBIDDEN[here], f"{module} ({here}) imports {name}"
        if name in known and name not in ("fmtrain",):
            if (module, name) in THROUGH_THE_DOOR:
                continue
            there = wing(name)
            assert there in ("foundation", here), f"{module} ({here}) imports {name} ({there}): sideways or up"
            if here == there == "training":
                floors = [TRAINING_FLOORS.index(m.split(".")[1]) for m in (module, name)]
                assert floors[1] <= floors[0], f"{module} imports {name}: up"


def test_no_circles() -> None:
    known = modules()
    graph = {
        m: {n for n in imports(p) if n in known and n != m and (m, n) not in THROUGH_THE_DOOR} for m, p in known.items()
    }
    # importing `package.module` names the package too; a package that imports nothing of its own is no circle
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module in done:
            return
        for other in graph[module]:
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_every_arrow_through_the_door_is_there() -> None:
    stale = {(module, name) for module, name in THROUGH_THE_DOOR if name not in imports(modules()[module])}
    assert not stale, f"needs no exception any more: {stale}"


def test_schema_is_plain() -> None:
    code = "import sys, fmtrain.schema.load, fmtrain.artifacts.worker, fmtrain.artifacts.store; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & FORBIDDEN["foundation"]
