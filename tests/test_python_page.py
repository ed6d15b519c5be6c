"""docs/python.md from top to bottom in one process, each block as a notebook runs it: its last expression is shown."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
NOTEBOOK = """
import ast, sys

space = {}
for number, block in enumerate(sys.stdin.read().split("\\0"), 1):
    print(f"[{number}]")
    *body, last = ast.parse(block).body
    if not isinstance(last, ast.Expr):
        body.append(last)
    exec(compile(ast.Module(body, []), f"block {number}", "exec"), space)
    if isinstance(last, ast.Expr):
        print(repr(eval(compile(ast.Expression(last.value), f"block {number}", "eval"), space)))
"""


def test_the_page_does_what_it_says(tiny_store: Path, tmp_path: Path) -> None:
    """In a store where its first run is made already, which leaves a DPO, an evaluation and a publication to make."""
    shutil.copytree(tiny_store, tmp_path / "store")
    env = {name: value for name, value in os.environ.items() if name != "FMTRAIN_STORE"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", NOTEBOOK], input="\0".join(BLOCKS), cwd=tmp_path, capture_output=True, text=True,
        env=env, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    shown = dict(zip(range(len(BLOCKS) + 1), re.split(r"^\[\d+\]\n", done.stdout, flags=re.M), strict=True))
    of = {n: next(i for i, block in enumerate(BLOCKS, 1) if n in block) for n in ("plan\n", "print(e)", "before.diff")}
    assert shown[of["plan\n"]].startswith("stage      action") and "nothing to run" in shown[of["plan\n"]]
    assert "stages.sft.optim.lr" in shown[of["print(e)"]]
    assert "job.stage.objective.beta: 0.1 -> 0.5" in shown[of["before.diff"]] and "dpo@v2" in shown[of["before.diff"]]
    assert len(BLOCKS) > 12 and all(text.strip() for text in shown.values() if text is not shown[0])
