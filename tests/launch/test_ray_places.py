"""Ray from odd places: a blank in the environment's path, foreign modules in the working directory, dying workers."""

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

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
    for name in ("json.py", "random.py", "launch.py", "typing_extensions.py"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("raise RuntimeError('imported from the working directory')\n")
    (here / "fmtrain" / "docs").mkdir(parents=True)  # a clone, seen from where it was made: a package without a file
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


UNLUCKY = """#!/bin/bash
case "$*" in *default_worker.py*) [ ! -e "${0%/*}/luck" ] && echo "this worker has no luck" >&2 && exit 9 ;; esac
exec -a "$0" "${0%/*}/python3" "$@"
"""
STARTS = """
import sys
from pathlib import Path
from fmtrain.errors import RankLost
from fmtrain.schema.launch import LocalRay
from launch.backends.command import Command
from launch.backends.ray_cluster.backend import open_ray

folder, luck = Path(sys.argv[1]), Path(sys.executable).with_name("luck")
try:
    with open_ray(LocalRay(num_cpus=4, dashboard=False), folder, "r", lambda: None) as backend:
        print("it is up")
        luck.unlink()
        backend.submit(Command("pretrain", [sys.executable, "-c", ""], folder / "logs", ranks=4)).wait(300)
except RankLost as e:
    print(e)
"""


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_workers_that_cannot_start_are_told_after_a_few_tries(when: str, tmp_path: Path) -> None:
    """Before the first stage, and at one: in less time than a node that is slow may take."""
    venv.create(tmp_path / "e", with_pip=False)
    (site,) = (tmp_path / "e").glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = tmp_path / "e" / "bin" / "python"
    python.unlink()
    python.write_text(UNLUCKY)
    python.chmod(0o755)
    if when == "later":
        python.with_name("luck").touch()
    done = subprocess.run(
        [python, "-P", "-c", STARTS, str(tmp_path)],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert ("it is up" in done.stdout) == (when == "later"), done.stdout + done.stderr
    assert "Ray's workers do not start on this machine, " in done.stdout, done.stdout + done.stderr
    assert "| this worker has no luck" in done.stdout
