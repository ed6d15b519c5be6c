"""A corpus on Ray from an odd place: a blank in the environment's path, modules of others in the working directory."""

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

PLUGIN = """
from dataclasses import dataclass
from data_pipelines.filters.base import Drop

@dataclass
class Short:
    chars: int = 20

def make(settings):
    least = settings.chars
    return lambda document: Drop("short", len(document.text), least) if len(document.text) < least else None

def register(registry):
    registry.rule("short", Short, make)
"""


def test_a_corpus_on_ray_from_an_odd_place(tmp_path: Path) -> None:
    python = tmp_path / "a b" / "bin" / "python"
    venv.create(tmp_path / "a b", with_pip=False)
    (site,) = (tmp_path / "a b").glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    here = tmp_path / "here"
    for name in ("json.py", "random.py", "launch.py", "typing_extensions.py", "fmtrain/__init__.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("raise RuntimeError('imported from the working directory')\n")
    (here / "rows.jsonl").write_text(
        "".join(json.dumps({"id": f"d{n}", "text": f"{n} words and " * (n % 3 * 9 + 1)}) + "\n" for n in range(60))
    )
    (tmp_path / "plugged").mkdir()
    (tmp_path / "plugged" / "short_plugin.py").write_text(PLUGIN)
    words = ["recipe=corpus_web", "data=local", "data.files=rows.jsonl", "filter.rules=[short]", "dedup=none"]
    done = subprocess.run(
        [python, "-P", "-m", "launch.cli", "run", *words, "plugins=[short_plugin]", "launch=local", "store=store"],
        capture_output=True,
        text=True,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "plugged")},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (manifest,) = here.glob("store/artifacts/corpus/*/v0001/manifest.json")
    counts = json.loads(manifest.read_text())["counts"]
    assert counts["dropped"] == {"short": 20}
