"""Artifacts appear whole or not at all; versions never collide; damage is named."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fmtrain.errors import ConfigError, HeldError, StoreError
from fmtrain.run import lease
from fmtrain.run.fingerprint import canonical, differences, fingerprint
from fmtrain.run.manifest import Manifest, read_manifest, verify
from fmtrain.run.storage import disk_errors, write_json
from fmtrain.run.store import Store


def manifest(name: str = "m", fp: str = "f1") -> Manifest:
    return Manifest("model", name, 0, fp, {"a": 1}, {}, "pretrain", 1, "c", "run", "2026-01-01", 1.0)


def output(store: Store, fp: str, content: str) -> Path:
    out = store.work("model", fp) / "out"
    out.mkdir(parents=True)
    (out / "weights").write_text(content)
    return out


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def test_commit_find_get(store: Store) -> None:
    first = store.commit(output(store, "f1", "one"), manifest(fp="f1"))
    second = store.commit(output(store, "f2", "two"), manifest(fp="f2"))
    assert (first.ref, second.ref) == ("m@v1", "m@v2")
    assert store.find("model", "f1") == first
    assert store.get("m", "model").ref == "m@v2" and store.get("m@v1", "published", "model").ref == "m@v1"
    assert not store.work("model", "f1").exists()
    verify(second)
    with pytest.raises(ConfigError, match="v1, v2"):
        store.get("m@v7", "model")
    with pytest.raises(ConfigError, match="there is m"):
        store.get("other", "model")


def test_versions_of_two_runs_that_commit_at_once(store: Store) -> None:
    outs = [(output(store, f"f{i}", str(i)), manifest(fp=f"f{i}")) for i in range(8)]
    threads = [threading.Thread(target=store.commit, args=pair) for pair in outs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    found = list(store.artifacts("model"))
    assert sorted(a.manifest.version for a in found) == list(range(1, 9))
    for a in found:
        verify(a)
        assert (a.path / "weights").read_text() == a.manifest.fingerprint[1:]


def test_a_flipped_byte_and_a_missing_file_are_named(store: Store) -> None:
    artifact = store.commit(output(store, "f1", "one"), manifest())
    (artifact.path / "weights").write_text("onf")
    with pytest.raises(StoreError, match="weights is damaged"):
        verify(artifact)
    (artifact.path / "weights").unlink()
    with pytest.raises(StoreError, match="weights is missing"):
        verify(artifact)


def test_a_folder_without_manifest_is_no_artifact(store: Store) -> None:
    (store.root / "artifacts" / "model" / "m" / "v0001").mkdir(parents=True)
    assert store.find("model", "f1") is None and list(store.artifacts()) == []
    assert store.commit(output(store, "f1", "one"), manifest()).ref == "m@v1"


def test_kill_during_commits_leaves_whole_artifacts_only(store: Store) -> None:
    """A process that commits without end is killed at any moment; what can be seen verifies."""
    code = """
import sys
from pathlib import Path
from fmtrain.run.store import Store
sys.path.insert(0, sys.argv[2])
from test_store import manifest, output
store = Store(Path(sys.argv[1]))
for i in range(10_000):
    store.commit(output(store, f'k{i}-{sys.argv[3]}', 'x' * 200_000), manifest(fp=f'k{i}-{sys.argv[3]}'))
"""
    for attempt in range(3):
        argv = [sys.executable, "-c", code, str(store.root), str(Path(__file__).parent), str(attempt)]
        process = subprocess.Popen(argv)
        time.sleep(0.7 + 0.13 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = list(store.artifacts("model"))
    assert found
    for a in found:
        verify(a)
    assert len({a.manifest.version for a in found}) == len(found)


def test_unwritable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "store").prepare()


def test_damaged_manifest(store: Store) -> None:
    artifact = store.commit(output(store, "f1", "one"), manifest())
    (artifact.path / "manifest.json").write_text('{"kind": "mod')
    with pytest.raises(StoreError, match="manifest.json cannot be read"):
        read_manifest(artifact.path)


def test_fingerprint_is_of_the_content() -> None:
    assert fingerprint({"a": 1, "b": [1.5, None]}) == fingerprint({"b": [1.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    with pytest.raises(ValueError):
        canonical(float("nan"))
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 2}, "c": 2}) == ["a.b: 1 -> 2"]
    assert differences({"a": 1}, {"b": 1}) == ["a: 1 -> null", "b: null -> 1"]


def test_lease_of_a_living_run_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "x.json"
    with lease.held(path, "run1", "pretrain"):  # noqa: SIM117
        with pytest.raises(HeldError, match=f"pretrain.*run1.*pid {os.getpid()}"), lease.held(path, "run2", "pretrain"):
            pass
    with lease.held(path, "run2", "pretrain"):
        assert json.loads(path.read_text())["run"] == "run2"
    assert not path.exists()


def test_lease_of_a_dead_run_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    write_json(path, {**lease.owner("old"), "pid": dead.pid, "started": "1"})
    with lease.held(path, "new", "pretrain"):
        assert json.loads(path.read_text())["run"] == "new"


def test_lease_of_another_host_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {**lease.owner("old"), "host": "elsewhere"})
    with pytest.raises(HeldError, match="elsewhere"), lease.held(path, "new", "x"):
        pass
    old = time.time() - lease.STALE - 1
    os.utime(path, (old, old))
    with lease.held(path, "new", "x"):
        pass


def test_one_of_many_takes_a_stale_lease(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {**lease.owner("old"), "pid": 2**22 + 1, "started": "1"})
    won, lost = [], []
    barrier = threading.Barrier(8)

    def take(i: int) -> None:
        barrier.wait()
        try:
            with lease.held(path, f"r{i}", "x"):
                won.append(i)
                time.sleep(0.3)
        except HeldError:
            lost.append(i)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1 and len(lost) == 7


def test_full_disk_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left"), disk_errors(tmp_path):
        Path("/dev/full").write_text("x" * 100_000)
    with pytest.raises(StoreError, match="No space left"), disk_errors(tmp_path):
        raise RuntimeError("safetensors: No space left on device (os error 28)")
    with pytest.raises(RuntimeError), disk_errors(tmp_path):
        raise RuntimeError("something else")
