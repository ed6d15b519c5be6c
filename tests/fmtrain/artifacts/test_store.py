"""Artifacts appear whole or not at all; versions never collide; damage is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from fmtrain.artifacts.fingerprint import canonical, differences, fingerprint
from fmtrain.artifacts.manifest import Manifest, verify, verify_looks
from fmtrain.artifacts.storage import disk_errors, list_files, sha256_file
from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError, StoreError


def manifest(name: str = "m", fp: str = "f1") -> Manifest:
    return Manifest("model", name, 0, fp, {"a": 1}, {}, "pretrain", 1, "c", "run", "2026-01-01", 1.0)


def output(store: Store, fp: str, content: str) -> Path:
    out = store.adopt("model", fp, "lease") / "out"
    out.mkdir()
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
    assert store.work("model", "f1") is None
    verify(second)
    with pytest.raises(ConfigError, match="v1, v2"):
        store.get("m@v7", "model")
    with pytest.raises(ConfigError, match="it has m"):
        store.get("other", "model")


def test_one_artifact_under_two_names(store: Store) -> None:
    first = store.commit(output(store, "f1", "one"), manifest(fp="f1"))
    other = store.under(first, name="n", stage="s2", run="r2")
    assert (other.ref, other.manifest.stage, other.manifest.files) == ("n@v1", "s2", first.manifest.files)
    assert os.path.samefile(first.path / "weights", other.path / "weights")
    verify(other)
    assert store.find("model", "f1", "n") == other and store.find("model", "f1", "m") == first
    assert store.find("model", "f1", "neither") is not None and not list((store.root / "work" / "named").iterdir())
    (first.path / "weights").write_text("two")  # changed in place: the other name is not made of it
    with pytest.raises(StoreError, match="m@v1"):
        store.under(first, name="o")
    assert not list((store.root / "work" / "named").iterdir())


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


def test_a_folder_without_manifest_is_no_artifact(store: Store) -> None:
    (store.root / "artifacts" / "model" / "m" / "v0001").mkdir(parents=True)
    assert store.find("model", "f1") is None and list(store.artifacts()) == []
    assert store.commit(output(store, "f1", "one"), manifest()).ref == "m@v2"


def test_a_version_is_never_given_twice(store: Store) -> None:
    for number in (1, 2, 3):
        made = store.commit(output(store, f"f{number}", "x"), manifest(fp=f"f{number}"))
    shutil.rmtree(made.path)
    assert store.commit(output(store, "f4", "x"), manifest(fp="f4")).ref == "m@v4"
    said = json.loads((store.root / "artifacts/model/m/.given/v0003").read_text())
    assert said["fingerprint"] == "f3" and said["run"] == "run"  # what is gone can still be named


def test_what_was_made_of_something_gone_says_so(store: Store) -> None:
    parent = store.commit(output(store, "f1", "x"), manifest(fp="f1"))
    made = manifest("n", "f2")
    made.parents = {"model": {"ref": parent.ref, "fingerprint": "f1"}, "data": {"ref": "./rows", "fingerprint": "f9"}}
    child = store.commit(output(store, "f2", "x"), made)
    assert store.gone(child) == {}
    shutil.rmtree(parent.path)
    assert store.gone(child) == {"model": "m@v1"}


def test_kill_during_commits_leaves_whole_artifacts_only(store: Store) -> None:
    """A process that commits without end is killed at any moment; what can be seen verifies."""
    code = """
import sys
from pathlib import Path
from fmtrain.artifacts.store import Store
sys.path.insert(0, sys.argv[2])
from test_store import manifest, output
store = Store(Path(sys.argv[1]))
for i in range(10_000):
    store.commit(output(store, f'k{i}-{sys.argv[3]}', 'x' * 200_000), manifest(fp=f'k{i}-{sys.argv[3]}'))
"""
    for attempt in range(3):
        argv = [sys.executable, "-c", code, str(store.root), str(Path(__file__).parent), str(attempt)]
        process = subprocess.Popen(argv)
        before = len(list(store.root.glob("artifacts/model/m/v*")))
        while len(list(store.root.glob("artifacts/model/m/v*"))) < before + 2:
            assert process.poll() is None
            time.sleep(0.001 + 0.013 * attempt)
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


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "mod',
        "",
        "[1, 2]",
        "null",
        '"text"',
        "[" * 100_000,
        '{"kind": "model"}',
        "one letter",
        "other version",
        "outside",
        "a folder",
    ],
    ids=lambda t: t[:14],
)
def test_a_damaged_manifest_is_passed_over_with_a_word(
    text: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = store.commit(output(store, "f1", "one"), manifest())
    path = store.commit(output(store, "f2", "two"), manifest(fp="f2")).path / "manifest.json"
    data = json.loads(path.read_text())
    path.unlink()
    if text == "a folder":
        path.mkdir()
    else:
        changed = {
            "one letter": json.dumps(data).replace('"pretrain"', '"pretrein"'),
            "other version": json.dumps({**data, "version": "two"}),
            "outside": json.dumps({k: v for k, v in {**data, "files": {"../../x": {}}}.items() if k != "seal"}),
        }
        path.write_text(changed.get(text, text))
    assert store.find("model", "f2") is None and store.latest("model", "m") == sound == store.get("m", "model")
    said = capsys.readouterr().err
    assert said.count("passed over") == 1 and str(path.parent) in said and "delete the folder" in said
    assert store.commit(output(store, "f3", "x"), manifest(fp="f3")).ref == "m@v3"


def test_a_folder_under_another_number_is_passed_over(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    made = store.commit(output(store, "f1", "one"), manifest())
    made.path.rename(made.path.with_name("v0007"))
    assert list(store.artifacts()) == [] and "is that of model m@v1" in capsys.readouterr().err


def test_what_changed_after_the_worker_left_is_not_committed(store: Store) -> None:
    out = output(store, "f1", "one")
    said = manifest()
    said.files = list_files(out)
    (out / "weights").write_text("onf")
    with pytest.raises(StoreError, match="weights is not as its stage left it.*run again"):
        store.commit(out, said)
    assert list(store.artifacts()) == []


def test_a_signal_is_heard_while_files_are_hashed(store: Store) -> None:
    """A store of 300 GB takes longer to read than a queue gives: what was asked to end ends, and nothing is lost."""
    out = output(store, "f1", "x" * (5 << 20))
    asked = iter([None] * 3)

    def check() -> None:
        if next(asked, "end") == "end":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.commit(out, manifest(), check)
    assert list(store.artifacts()) == [] and (out / "weights").stat().st_size == 5 << 20
    made = store.commit(out, manifest())
    assert made.ref == "m@v1" and made.manifest.files["weights"]["sha256"] == sha256(b"x" * (5 << 20)).hexdigest()
    asked = iter([None] * 3)
    with pytest.raises(KeyboardInterrupt):
        verify(made, check)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def flip_and_hide(path: Path) -> None:
    """Another byte under the same size and time of change."""
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def put_beside(path: Path) -> None:
    (path.parent / "more.safetensors").write_text("x")


def link_out(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (flip, "weights is damaged"),
        (flip_and_hide, "weights is damaged"),
        (lambda p: os.truncate(p, 1), "weights is damaged"),
        (Path.unlink, "weights is missing"),
        (put_beside, "more.safetensors is not of the artifact"),
        (link_out, "weights is a link to"),
    ],
    ids=["flipped", "hidden", "cut", "missing", "beside", "link"],
)
def test_a_look_finds_what_changed(fault: Callable[[Path], None], said: str, store: Store) -> None:
    artifact = store.commit(output(store, "f1", "one"), manifest())
    verify_looks(artifact)
    fault(artifact.path / "weights")
    for check in (verify_looks, verify):
        with pytest.raises(StoreError, match=said):
            check(artifact)


def test_a_copied_store_is_hashed_once_and_works(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(output(store, "f1", "one"), manifest())
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile)
    (artifact,) = Store(tmp_path / "copy").artifacts()
    read = []
    monkeypatch.setattr(
        "fmtrain.artifacts.manifest.sha256_file", lambda p, check: read.append(p.name) or sha256_file(p)
    )
    verify_looks(artifact)
    verify_looks(artifact)
    assert read == ["weights"]
    flip(artifact.path / "weights")
    with pytest.raises(StoreError, match="is damaged"):
        verify_looks(artifact)


def test_fingerprint_is_of_the_content() -> None:
    assert fingerprint({"a": 1, "b": [1.5, None]}) == fingerprint({"b": [1.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    with pytest.raises(ValueError):
        canonical(float("nan"))
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 2}, "c": 2}) == ["a.b: 1 -> 2"]
    assert differences({"a": 1}, {"b": 1}) == ["a: 1 -> not there", "b: not there -> 1"]


def test_full_disk_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left"), disk_errors(tmp_path):
        Path("/dev/full").write_text("x" * 100_000)
    with pytest.raises(StoreError, match="No space left"), disk_errors(tmp_path):
        raise RuntimeError("safetensors: No space left on device (os error 28)")
    with pytest.raises(RuntimeError), disk_errors(tmp_path):
        raise RuntimeError("something else")
