"""A package outside this one brings a rule and a reader: installed for real, used from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from tests.conftest import fmtrain

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "toy-rules"
version = "1.2"
[project.entry-points."fmtrain.plugins"]
toy = "toy_rules"
[tool.setuptools]
packages = ["toy_rules"]
"""
PACKAGE = '''
"""Drops documents with few vowels; reads .upper files, a document a line."""
from dataclasses import dataclass

@dataclass
class Vowels:
    min_share: float = 0.2

def make(settings):
    from data_pipelines.filters.base import Drop
    def rule(doc):
        share = sum(c in "aeiouAEIOU" for c in doc.text) / len(doc.text)
        return None if share >= settings.min_share else Drop("vowels.too_few", share, settings.min_share)
    return rule

def read(data, unit, on_hash):
    from data_pipelines.document import Document
    for number, line in enumerate(open(unit.source.path)):
        if number % unit.stride == unit.offset:
            yield Document(f"{unit.source.name}:{number}", line.upper().strip(), file=unit.source.name, line=number)

def register(registry):
    registry.rule("vowels", Vowels, make)
    registry.reader(".upper", read)
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy package installed in it."""
    source, target = tmp_path_factory.mktemp("toy"), tmp_path_factory.mktemp("site")
    (source / "toy_rules").mkdir()
    (source / "toy_rules" / "__init__.py").write_text(PACKAGE)
    (source / "pyproject.toml").write_text(PROJECT)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=120)
    return target


def run(toy: Path, store: Path, *overrides: str, verb: str = "run") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(toy), os.environ.get("PYTHONPATH", "")]))
    return fmtrain(
        verb, "recipe=corpus_web", "launch=inline", "dedup=exact", f"store={store}", *overrides, PYTHONPATH=path
    )


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "a.b.upper"
    file.write_text("".join(f"{'banana' if n % 2 else 'rhythm'} {n}\n" for n in range(20)))
    return file


def test_a_plugin_brings_a_rule_and_a_reader(toy: Path, words: Path, tmp_path: Path) -> None:
    done = run(toy, tmp_path, f"data.files={words}", "filter.rules=[vowels]")
    assert done.returncode == 0, done.stdout + done.stderr
    corpus = tmp_path / "artifacts/corpus/corpus_web/v0001"
    with zstandard.open(next(corpus.glob("train/*")), "rt") as lines:
        kept = [json.loads(line)["text"] for line in lines]
    assert len(kept) == 10 and all(text.startswith("BANANA") for text in kept)
    ledger = pq.read_table(corpus / "ledger.parquet").to_pylist()
    assert {row["rule"] for row in ledger} == {"vowels.too_few"} and ledger[0]["threshold"] == 0.2
    (plugin,) = json.loads((corpus / "manifest.json").read_text())["payload"]["job"]["plugins"]
    assert plugin["package"] == "toy-rules" and plugin["version"] == "1.2" and len(plugin["source"]) == 64

    settings = run(
        toy, tmp_path, f"data.files={words}", "filter.rules=[vowels]", "filter.vowels.min_share=0.9", verb="plan"
    )
    assert settings.returncode == 0 and "min_share: 0.2 -> 0.9" in settings.stdout
    unused = run(toy, tmp_path, f"data.files={words}", "filter=gopher", "filter.vowels.min_share=0.9", verb="plan")
    assert unused.returncode == 2 and "filter.vowels.min_share is given, and vowels does not stand" in unused.stderr
    typo = run(toy, tmp_path, f"data.files={words}", "filter.vowels.min_shar=0.9", verb="plan")
    assert typo.returncode == 2 and "'filter.vowels.min_share'" in typo.stderr

    package = toy / "toy_rules" / "__init__.py"
    package.write_text(PACKAGE + "\n# another version\n")
    changed = run(toy, tmp_path, f"data.files={words}", "filter.rules=[vowels]", verb="plan")
    package.write_text(PACKAGE)
    assert "plugins" in changed.stdout and "reuse" not in changed.stdout


def test_the_plugin_behind_a_reader_is_part_of_the_corpus(toy: Path, words: Path, tmp_path: Path) -> None:
    done = run(toy, tmp_path, f"data.files={words}", "filter=none")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "artifacts/corpus/corpus_web/v0001/manifest.json").read_text())
    assert [plugin["package"] for plugin in manifest["payload"]["job"]["plugins"]] == ["toy-rules"]


def test_a_plugin_that_is_not_used_changes_nothing(toy: Path, words: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": f"document {n}"}) + "\n" for n in range(9)))
    done = run(toy, tmp_path, f"data.files={file}", "filter=none")
    assert done.returncode == 0, done.stdout + done.stderr
    without = fmtrain(
        "plan", "recipe=corpus_web", "dedup=exact", f"store={tmp_path}", f"data.files={file}", "filter=none"
    )
    assert "reuse" in without.stdout, without.stdout


def test_without_the_package_its_rule_is_unknown(words: Path, tmp_path: Path) -> None:
    done = fmtrain("plan", "recipe=corpus_web", f"data.files={words}", "filter.rules=[vowels]", f"store={tmp_path}")
    assert done.returncode == 2 and "vowels" in done.stderr and "gopher_quality" in done.stderr
    named = fmtrain("plan", "recipe=corpus_web", f"data.files={words}", "plugins=[nowhere]", f"store={tmp_path}")
    assert named.returncode == 2 and "'nowhere' cannot be imported" in named.stderr
