"""One maker at a time, whoever dies, sleeps or writes nonsense; no clock of another machine is asked."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts import lease
from fmtrain.artifacts.manifest import Manifest
from fmtrain.artifacts.storage import list_files
from fmtrain.artifacts.store import Store
from fmtrain.errors import HeldError, StoreError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "STALE", 1.0)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases" / "model-f1"


def leave(path: Path, number: int = 1, **changes: Any) -> Path:
    """A lease of another process, as it lies on the disk."""
    folder = path.with_name(f"{path.name}.{number}")
    folder.mkdir(parents=True)
    (folder / "owner.json").write_text(json.dumps(asdict(replace(lease.owner("old"), **changes))))
    return folder


def left(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def test_a_living_run_is_named(path: Path) -> None:
    with lease.held(path, "run1", "pretrain"):  # noqa: SIM117
        with pytest.raises(HeldError, match=f"pretrain.*run1.*pid {os.getpid()}"), lease.held(path, "run2", "pretrain"):
            pass
    with lease.held(path, "run2", "pretrain") as mine:
        mine.check()
    assert left(path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1, "started": "1"},  # ended
        {"started": "1"},  # its number is another process's now
        {"boot": "another", "pid": 1},  # before the machine's last start
        {"host": "elsewhere", "job": "7", "turn": 1},  # this job's turn before
    ],
    ids=["ended", "reused", "rebooted", "requeued"],
)
def test_what_is_known_to_be_gone_is_taken_at_once(
    changes: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    if "boot" in changes and not lease.owner("").machine:
        pytest.skip("this machine has no /etc/machine-id to be told by from its namesakes")
    leave(path, **changes)
    begun = time.monotonic()
    with lease.held(path, "new", "pretrain") as mine:
        mine.check()
    assert time.monotonic() - begun < lease.STALE / 2


@pytest.mark.parametrize("skew", [-3600, 0, 3600 * 24 * 365])
def test_another_machine_is_judged_by_its_signs_of_life_not_by_its_clock(path: Path, skew: int) -> None:
    owner = leave(path, host="elsewhere") / "owner.json"  # the folder's own time a client of NFS may not ask for
    stop = threading.Event()

    def live() -> None:
        for beat in range(1000):
            if stop.wait(0.1):
                return
            os.utime(owner, (time.time() + skew, time.time() + skew + beat / 10))

    beating = threading.Thread(target=live)
    beating.start()
    with pytest.raises(HeldError, match="elsewhere"), lease.held(path, "new", "x"):
        pass
    stop.set()
    beating.join()
    begun = time.monotonic()
    with lease.held(path, "new", "x"):
        assert lease.STALE <= time.monotonic() - begun < 10 * lease.STALE


@pytest.mark.parametrize(
    "text", ["[]", "null", "", '{"run": "x"}', '"x"', "[" * 100_000, "wrong type", "file", "folder"]
)
def test_an_odd_lease_is_nobodys(text: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = leave(path)
    owner = folder / "owner.json"
    if text == "wrong type":
        owner.write_text(json.dumps({**json.loads(owner.read_text()), "pid": "../../etc/passwd", "turn": None}))
    elif text == "folder":
        owner.unlink()
        owner.mkdir()
    elif text == "file":
        shutil.rmtree(folder)
        folder.write_text("x")
    else:
        owner.write_text(text)
    with lease.held(path, "new", "x"):
        assert "is no lease of ours" in capsys.readouterr().err
    assert left(path) == []


def test_a_link_in_a_shared_store_empties_nothing(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    (tmp_path / "precious").write_text("x")
    for name in (".lock", path.name, f"{path.name}.1", f"{path.name}.json"):
        (path.parent / name).symlink_to(tmp_path / "precious")
    with lease.held(path, "new", "x"):
        pass
    assert (tmp_path / "precious").read_text() == "x"


def test_one_of_many_takes_a_lease_that_is_free(path: Path) -> None:
    leave(path, pid=2**22 + 1, started="1")
    won, lost = [], []
    barrier = threading.Barrier(8)

    def take(i: int) -> None:
        barrier.wait()
        try:
            with lease.held(path, f"r{i}", "x"):
                won.append(i)
                deadline = time.monotonic() + 30
                while len(lost) < 7 and time.monotonic() < deadline:
                    time.sleep(0.01)
        except HeldError:
            lost.append(i)

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1 and len(lost) == 7


def test_a_lease_that_goes_as_it_is_looked_at_hides_no_newer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run takes over from a dead one, between this one's list of the leases and its look at the first."""
    numbers, older = lease._numbers, leave(path, pid=2**22 + 1, started="1")

    def stale(asked: Path) -> list[int]:
        found = numbers(asked)
        if found == [1] and not path.with_name(f"{path.name}.2").exists():
            leave(path, 2, run="first", started=lease.process_start(os.getpid()))
            shutil.rmtree(older)
        return found

    monkeypatch.setattr(lease, "_numbers", stale)
    with pytest.raises(HeldError, match="first"), lease.held(path, "second", "x"):
        pass
    assert left(path) == [f"{path.name}.2"]


def test_who_comes_first_when_a_lease_is_given_up_has_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up while this run waits for it, and another one takes it before this one has looked again."""
    waited, newest, first = leave(path, host="elsewhere"), lease._newest, list[Path]()
    monkeypatch.setattr(lease, "STALE", 20.0)

    def given_up(asked: Path) -> object:
        if first or sys._getframe(1).f_code.co_name != "_ended":
            return newest(asked)
        shutil.rmtree(waited)
        first.append(leave(path, run="first", started=lease.process_start(os.getpid())))
        return None

    monkeypatch.setattr(lease, "_newest", given_up)
    with pytest.raises(HeldError, match="first"), lease.held(path, "second", "x"):
        pass


@pytest.mark.parametrize("taken", [True, False])
def test_a_commit_fails_for_what_it_fails_of(taken: bool, path: Path, tmp_path: Path) -> None:
    """Files that are gone with the lease are no failing disk; those that have changed under it are."""
    store = Store(tmp_path)
    manifest = Manifest("model", "m", 0, "f1", {}, {}, "pretrain", 1, "c", "run", "2026-01-01", 1.0)
    kind, said = (HeldError, "taken over by run other .* writes nothing more") if taken else (StoreError, "is failing")
    with pytest.raises(kind, match=said), lease.held(path, "run", "pretrain") as mine:
        out = store.adopt("model", "f1", mine.me.token) / "out"
        out.mkdir()
        (out / "weights").write_text("x")
        manifest.files = list_files(out)
        if taken:
            leave(path, 2, run="other")
            store.adopt("model", "f1", "other")
        else:
            (out / "weights").write_text("y")
        store.commit(out, manifest)
    assert list(store.artifacts()) == []


SLEEPER = """
import socket, sys, time
from pathlib import Path
from fmtrain.artifacts import lease
from fmtrain.artifacts.store import Store
socket.gethostname = lambda: "elsewhere"
lease.BEAT = 0.1
store = Store(Path(sys.argv[1]))
with lease.held(store.lease("model", "f1"), "sleeper", "pretrain") as mine:
    work = store.adopt("model", "f1", mine.me.token)
    log = open(work / "rows", "a")
    print("ready", flush=True)
    sys.stdin.readline()
    for write in (lambda: mine.check(), lambda: (work / "more").write_text("x"), lambda: (work / "out").mkdir()):
        try:
            write()
            print("written", flush=True)
        except Exception as e:
            print(type(e).__name__, flush=True)
"""


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    argv = [sys.executable, "-c", SLEEPER, str(tmp_path / "store")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("released", [False, True], ids=["while the other works", "when the other has ended"])
def test_who_wakes_after_its_lease_was_taken_writes_nothing_more(
    released: bool, sleeper: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    assert sleeper.stdout is not None and sleeper.stdin is not None and sleeper.stdout.readline() == "ready\n"
    with pytest.raises(HeldError, match="sleeper"), lease.held(store.lease("model", "f1"), "new", "pretrain"):
        pass
    sleeper.send_signal(signal.SIGSTOP)
    with lease.held(store.lease("model", "f1"), "new", "pretrain") as mine:
        work = store.adopt("model", "f1", mine.me.token)
        if not released:
            sleeper.stdin.write("\n")
            sleeper.send_signal(signal.SIGCONT)
            assert sleeper.communicate()[0].split() == ["HeldError", "FileNotFoundError", "FileNotFoundError"]
        mine.check()
    if released:
        sleeper.send_signal(signal.SIGCONT)
        assert sleeper.communicate("\n")[0].split() == ["HeldError", "FileNotFoundError", "FileNotFoundError"]
    assert [p.name for p in work.iterdir()] == ["rows"] and list(work.parent.iterdir()) == [work]
    assert left(store.lease("model", "f1")) == []
