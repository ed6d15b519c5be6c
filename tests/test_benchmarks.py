"""No benchmark dies half-way for want of a peer: each asks for what it imports, at its start, and says the remedy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"
SCRIPTS = {path.stem: ast.parse(path.read_text()) for path in sorted(FOLDER.glob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def asked_for(tree: ast.AST) -> set[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == "need"]
    return {str(word.value) for args in named for word in args if isinstance(word, ast.Constant)}


def peers() -> tuple[str, ...]:
    (found,) = [node.value for node in SCRIPTS["peers"].body if isinstance(node, ast.Assign)]
    return tuple(ast.literal_eval(found))


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - {"peers", "dedup_common"}))
def test_it_asks_for_every_peer_that_it_imports(name: str) -> None:
    used = {module.split(".")[0] for module in imported(SCRIPTS[name])} & set(peers())
    assert used <= asked_for(SCRIPTS[name])
    at_once = [node for node in SCRIPTS[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not set(imported(ast.Module(list(at_once), []))) & set(peers()), "imported before it is asked for"


def test_what_is_missing_is_said_with_the_remedy(tmp_path: Path) -> None:
    def said(call: str) -> str:
        code = f"from pathlib import Path; from peers import need, need_elsewhere; {call}"
        done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        return done.stderr

    assert "no_such_peer: not installed" in (text := said("need('json', 'no_such_peer')")) and "'.[bench]'" in text
    assert f"no data at {tmp_path}/a" in said(f"need(data=Path({str(tmp_path / 'a')!r}))")
    assert "no_such_peer: not installed for" in said(f"need_elsewhere({sys.executable!r}, 'no_such_peer')")
    assert "/nowhere cannot be run" in said("need_elsewhere('/nowhere', 'json')")
