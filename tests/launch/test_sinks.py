"""Whatever stands in a store or on the command line, no verb hands a terminal anything that it would obey."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.ledger import SCHEMA
from fmtrain.artifacts.manifest import Manifest
from launch.cli import main

# a title, red, a cleared screen, C1's CSI, a line drawn over, a reversed text; and a line that seems to be ours
EVIL = "x\x1b]0;owned\x07\x1b[31m\x1b[2J\x9b1m\r\u202egnp.exe\u2066\u200f\x08\x7f"
SPOOF = "\nerror: nothing is wrong"
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff]")


def manifest(kind: str, name: str, **changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "kind": kind, "name": name, "version": 1, "fingerprint": "f" * 64, "payload": {}, "parents": {}, "stage": kind,
        "revision": 1, "code": "c", "run": "r", "created": "2026-01-01T00:00:00", "seconds": 1.0, "git": {},
        "packages": {}, "host": {}, "numerics": {}, "counts": {}, "metrics": {}, **changes,
    }  # fmt: skip
    return Manifest(**given)


def artifact(store: Path, made: Manifest) -> Path:
    folder = store / "artifacts" / made.kind / made.name / "v0001"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(vars(made)))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a corpus and a model in whose every text a terminal finds commands."""
    root = tmp_path_factory.mktemp("hostile")
    run = root / "runs" / f"20260101-000000-{EVIL}"
    (run / "logs" / "corpus").mkdir(parents=True)
    (run / "logs" / "corpus" / "rank0.log").write_bytes(EVIL.encode() + b"\xff\xfe loading\r 10%\r 20%\n")
    state = {
        "run": run.name, "host": EVIL, "pid": 1, "started": "1", "recipe": EVIL + SPOOF, "launch": EVIL + SPOOF,
        "overrides": [EVIL + SPOOF], "state": "running", "stage": "corpus", "begun": EVIL, "message": EVIL,
        "notes": [EVIL + SPOOF],
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(state))
    plan = [{"stage": s, "action": "run", "reason": EVIL + SPOOF, "fingerprint": "f"} for s in ("corpus", EVIL)]
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "events.jsonl").write_text(
        json.dumps({"event": "committed", "stage": EVIL, "artifact": EVIL + SPOOF, "seconds": 1.0}) + "\n"
    )
    (run / "stages" / "corpus").mkdir(parents=True)
    (run / "stages" / "corpus" / "progress.json").write_text(json.dumps({"done": 1, "unit": EVIL + SPOOF}))
    corpus = artifact(root, manifest("corpus", "corpus"))
    row: dict[str, Any] = {name: EVIL + SPOOF for name in ("id", "source", "file", "detail", "text")}
    row |= {"position": 1, "rule": f"rule.{EVIL}", "value": 1.0, "threshold": 2.0, "kept": None, "bytes": 3}
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), corpus / "ledger.parquet")
    artifact(
        root, manifest("published", "model", created=EVIL, parents={"model": {"ref": EVIL + SPOOF, "fingerprint": "f"}})
    )
    return root


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["status"], "unknown"),
        (["status", "2026"], "gnp.exe"),
        (["status", "--json"], "gnp.exe"),
        (["status", EVIL], "gnp.exe"),
        (["logs"], "loading"),
        (["logs", "2026", EVIL], "gnp.exe"),
        (["models"], "gnp.exe"),
        (["models", "--json"], "gnp.exe"),
        (["corpus", "sample"], "gnp.exe"),
        (["corpus", "sample", "--rule", "rule"], "dropped by"),
        (["corpus", "sample", "--rule", EVIL], "gnp.exe"),
        (["corpus", "why", EVIL + SPOOF], "dropped by"),
        (["generate", EVIL, "x"], "gnp.exe"),
        (["plan", f"data.files={EVIL}", "recipe=corpus_web"], "gnp.exe"),
        (["plan", f"{EVIL}=1"], "gnp.exe"),
        ([EVIL], "gnp.exe"),
        (["models", "--store", os.fsdecode(b"caf\xe9/\x1b[31mx")], r"caf\xe9"),
    ],
)
def test_no_verb_passes_commands_to_the_terminal(
    words: list[str], shown: str, store: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FMTRAIN_STORE", str(store))
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):  # argparse
        main(words)
    out, err = capfd.readouterr()
    assert shown in out + err, out + err
    assert not ACTIVE.search(out + err), repr(out + err)
    assert not [line for line in (out + err).splitlines() if line == SPOOF.strip()] or "sample" in words, out + err


@pytest.mark.parametrize("words", [["status"], ["plan", "recipe=corpus_web", b"data.files='caf\xe9-\xc3\xa9.jsonl'"]])
def test_a_terminal_that_knows_ascii_alone_is_told_all(words: list[str | bytes], store: Path, tmp_path: Path) -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "FMTRAIN_STORE": str(store)}
    done = subprocess.run([sys.executable, "-m", "launch.cli", *words], env=env, capture_output=True, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert b"Traceback" not in said and b"UnicodeEncodeError" not in said, said.decode()
    assert said.isascii() and done.returncode == (0 if words == ["status"] else 3), said
