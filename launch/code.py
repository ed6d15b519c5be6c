"""The hash of the source that a stage imports from our packages, read from the files without importing them.

Comments, docstrings and layout do not count: a hash of the syntax tree is taken.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

OURS = ("fmtrain", "data_pipelines", "launch")
DOOR = "fmtrain"  # the package itself, whose names lead to the launching side: no stage goes through it
_WITH_DOCSTRING = (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
_TEXT = (".jinja", ".html")  # files beside the modules that change what a stage writes


@functools.cache
def code_hash(entry: str) -> str:
    """Hex SHA-256, 16 digits, over every module of ours that `entry` reaches by import statements."""
    digest = hashlib.sha256()
    for module in sorted(closure(entry)):
        path = _path(module)
        assert path is not None
        digest.update(module.encode())
        digest.update(_parsed(path)[1])
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
        todo += _parsed(path)[0] if module != DOOR else []
        todo += [module.rpartition(".")[0]] if "." in module else []
    return seen


@functools.cache
def _parsed(path: Path) -> tuple[list[str], bytes]:
    """The names of ours that a file imports, and its code; stages share most of their files."""
    imports: list[str] = []
    code = repr(_plain(ast.parse(path.read_bytes()), imports)).encode()
    return [name for name in imports if name.split(".")[0] in OURS], code


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


def _plain(node: ast.AST, imports: list[str]) -> tuple[object, ...]:
    """A syntax tree as nested tuples without docstrings and empty fields: what every Python version reads alike.

    Adds what is imported to `imports`.
    """
    if isinstance(node, ast.Import):
        imports += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        imports.append(node.module)
        imports += [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, _WITH_DOCSTRING) and node.body and _is_text(node.body[0]):
        node.body = node.body[1:] or [ast.Pass()]
    found: list[object] = [type(node).__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            found.append((name, _plain(value, imports)))
        elif isinstance(value, list):
            if value:
                found.append((name, [_plain(v, imports) if isinstance(v, ast.AST) else v for v in value]))
        elif value is not None:
            found.append((name, value))
    return tuple(found)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
