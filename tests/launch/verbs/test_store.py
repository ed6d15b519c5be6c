"""The verbs that ask a store: what is damaged, gone, or another user's is said; the rest is answered."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmtrain.artifacts.lease import process_start
from fmtrain.artifacts.manifest import Manifest
from fmtrain.artifacts.store import Store
from launch.cli import main


def made(store: Store, kind: str, name: str, fingerprint: str, **parents: dict[str, str]) -> Path:
    out = store.adopt(kind, fingerprint, "lease") / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "model.safetensors").write_text(fingerprint)
    manifest = Manifest(kind, name, 0, fingerprint, {}, parents, name, 1, "c", "run", "2026-01-01", 1.0)
    return store.commit(out, manifest).path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    made(store, "model", "sft", "f1")
    made(store, "model", "sft", "f2")
    made(store, "published", "mine", "f3", model={"ref": "sft@v2", "fingerprint": "f2"})
    return store


def weights(store: Store, where: str) -> Path:
    return store.root / "artifacts" / where / "model.safetensors"


def say(store: Store, *words: str) -> int:
    return main([*words, "--store", str(store.root)])


def test_verify_of_an_empty_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(Store(tmp_path / "none"), "verify") == 0 and "nothing is made in" in capsys.readouterr().out
    assert say(Store(tmp_path / "none"), "verify", "--json") == 0 and json.loads(capsys.readouterr().out) == []


def test_verify_names_what_is_damaged(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(store, "verify") == 0 and "2 of 2" in capsys.readouterr().out
    weights(store, "model/sft/v0001").write_text("F1")
    assert say(store, "verify") == 0  # of each the newest
    assert say(store, "verify", "sft@v1") == 5
    (store.root / "artifacts/published/mine/v0001/manifest.json").write_text("[]")
    capsys.readouterr()
    assert say(store, "verify", "--all", "--json") == 5
    rows = {Path(row["path"]).parts[-2:]: row["message"] for row in json.loads(capsys.readouterr().out)}
    assert "model.safetensors is damaged" in rows["sft", "v0001"] and not rows["sft", "v0002"]
    assert "manifest.json is damaged" in rows["mine", "v0001"]
    assert say(store, "verify", "other") == 2 and say(store, "verify", "sft@x") == 2


def test_verify_goes_on_behind_a_file_that_cannot_be_read(store: Store) -> None:
    """For root too, once it is without its capabilities."""
    weights(store, "model/sft/v0001").chmod(0)
    as_anybody = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*as_anybody, sys.executable, "-m", "launch.cli", "verify", "--all", "--store", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 5 and "2 of 3" in done.stdout, done.stdout + done.stderr
    assert "sft/v0001/model.safetensors cannot be read: Permission denied; mend its permissions" in done.stdout


@pytest.mark.parametrize("given", ["mine", "the folder"])
def test_generate_answers_with_sound_weights_only(given: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = weights(store, "published/mine/v0001")
    path.write_text("F3")
    assert say(store, "generate", given if given == "mine" else str(path.parent), "x") == 5
    assert "model.safetensors is damaged" in capsys.readouterr().err


def test_a_parent_that_is_gone_is_called_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(store, "models") == 0 and "(gone)" not in capsys.readouterr().out
    shutil.rmtree(store.root / "artifacts/model/sft/v0002")
    assert say(store, "models") == 0 and "sft@v2 (gone)" in capsys.readouterr().out
    made(store, "model", "sft", "f9")  # v3: the name stays gone
    assert say(store, "models", "--json") == 0
    rows = {row["ref"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["mine@v1"]["gone"] == {"model": "sft@v2"} and "sft@v3" in rows


def test_the_child_of_a_killed_verb_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new && mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 600\n"
    )
    python.chmod(0o755)
    code = "import sys; sys.executable = sys.argv[1]; from launch.cli import main; main(['generate', sys.argv[2], 'x'])"
    parent = subprocess.Popen([sys.executable, "-c", code, str(python), str(tmp_path)])
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    child = int((tmp_path / "pid").read_text())
    started = process_start(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while started is not None and process_start(child) == started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
