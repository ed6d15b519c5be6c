"""Nothing but recipes knows a stage by its name, and few rooms ask what class a setting has."""

import ast
import re
from collections.abc import Iterator

import pytest

from fmtrain.kinds.objectives import Objective
from fmtrain.kinds.table import KINDS
from fmtrain.schema.options import OPTIONS
from launch.compose import compose
from launch.recipes import options
from tests.test_layers import modules

FOLDER = {"finetune": ["model.path=/x"]}
NAMES = {name for r in options("recipe") for name in compose([f"recipe={r}", *FOLDER.get(r, [])]).stages}
# Examples of what to type: in help, and in the answer to a word that is no override.
SHOWN = {("launch.verbs.parser", "stages.dpo"), ("launch.compose", "stages.dpo")}
CHOOSING = (  # kinds, and the tables that choose by the class of an option
    "fmtrain.kinds.", "launch.sources", "launch.start", "launch.backends.", "fmtrain.train.optim",
    "fmtrain.train.schedule", "fmtrain.models.build", "data_pipelines.vocabulary", "data_pipelines.stages.",
)  # fmt: skip


def strings(tree: ast.Module) -> Iterator[str]:
    """Every string but docstrings, those within f-strings too."""
    rooms = (n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)) and n.body)
    documents = {id(n.body[0].value) for n in rooms if isinstance(n.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_stage_is_known_by_its_name(module: str) -> None:
    named = re.compile(rf"stages\.({'|'.join(NAMES)})\b")
    tree = ast.parse(modules()[module].read_text())
    found = {match[0] for text in strings(tree) for match in named.finditer(text) if "data_pipelines" not in text}
    assert {(module, name) for name in found} <= SHOWN
    kinds = {kind.name for kind in KINDS.values()} | {kind.makes for kind in KINDS.values()} | set(OPTIONS[Objective])
    assert not (NAMES - kinds) & set(strings(tree))  # a name that means nothing else


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_class_of_a_setting_is_asked_for(module: str) -> None:
    if module.startswith(CHOOSING):
        return
    classes = {cls.__name__ for base, chosen in OPTIONS.items() for cls in (base, *chosen.values())}
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            assert not {name for name in asked & classes if not _asserted(node, module)}, ast.unparse(node)


def _asserted(call: ast.Call, module: str) -> bool:
    """An assertion tells a type checker what a table has chosen already."""
    tree = ast.parse(modules()[module].read_text())
    return any(ast.unparse(call) in ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert))
