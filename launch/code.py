"""The hash of the source that a stage imports from our packages, read from the files without importing them.

Comments, docstrings and layout do not count: a hash of the syntax tree is taken.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

OURS = ("fmtrain", "data_pipelines", "launch")
_TEXT = (".jinja", ".html")  # files beside the modules that change what a stage writes


@functools.cache
def code_hash(entry: str) -> str:
    """Hex SHA-256, 16 digits, over every module of ours that `entry` reaches by import statements."""
    digest = hashlib.sha256()
    for module in sorted(closure(entry)):
        path = _path(module)
        assert path is not None
        digest.update(module.encode())
        digest.update(_normal(path))
        for extra in sorted(p for p in path.parent.iterdir() if p.suffix in _TEXT and path.name == "__init__.py"):
            digest.update(extra.read_bytes())
    return digest.hexdigest()[:16]


def closure(entry: str) -> set[str]:
    """`entry` and every module of ours that it imports, directly or through others."""
    seen: set[str] = set()
    todo = [entry]
    while todo:
        module = todo.pop()
        path = _path(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        todo += _imports(path)
        todo += [module.rpartition(".")[0]] if "." in module else []
    return seen


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] in OURS]


@functools.cache
def _path(module: str) -> Path | None:
    """The file of a module of ours; None where the name is no module (an imported function, say)."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    for path in (base.with_suffix(".py") if rest else base / "__init__.py", base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _normal(path: Path) -> bytes:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return repr(_plain(tree)).encode()


def _plain(node: object) -> object:
    """The syntax tree as nested tuples without empty fields: what every Python version reads alike."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *fields)
    return [_plain(item) for item in node] if isinstance(node, list) else node
