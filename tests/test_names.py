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
from tests.test_layers import ROOT, modules

FOLDER = {"finetune": ["model.path=/x"]}
NAMES = {name for r in options("recipe") for name in compose([f"recipe={r}", *FOLDER.get(r, [])]).stages}
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
    assert not found
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


# A setting that everybody changes -> the class that has it.
SETTINGS = {"objective.beta": "Dpo", "dedup.threshold": "Dedup", "launch.ranks": "Launch"}
CALLED = {"cfg", "config", "learnt", "scored"}  # what settings are called where they are used, beside their group


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_way_of_a_value_is_short(setting: str) -> None:
    """A file names a setting where it declares the field, reads it of what holds such settings, asks for it by name,
    writes its key (in a message too), or gives it a value (conf/). What is counted is files, outside docs and tests."""
    group, _, field = setting.partition(".")
    files = {name for name, path in modules().items() if _names(ast.parse(path.read_text()), setting)}
    for path in (ROOT / "conf").rglob("*.yaml"):
        held = rf"^{field}:" if path.parent.name == group else rf"\b{group}: *\{{[^}}]*\b{field}:"
        if re.search(held, path.read_text(), re.MULTILINE):
            files.add(str(path.relative_to(ROOT)))
    assert len(files) <= 4, sorted(files)


def _names(tree: ast.Module, setting: str) -> bool:
    group, _, field = setting.partition(".")
    for node in ast.walk(tree):
        fields = node.body if isinstance(node, ast.ClassDef) and node.name == SETTINGS[setting] else []
        if any(isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == field for n in fields):
            return True
        read = isinstance(node, ast.Attribute) and node.attr == field
        if read and ast.unparse(node.value).rpartition(".")[2] in {group, *CALLED}:
            return True
        asked = isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr")
        if asked and ast.unparse(node.args[1]) == repr(field):
            return True
    return any(setting in text for text in strings(tree))
