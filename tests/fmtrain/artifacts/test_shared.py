"""A store in other hands: several users, several umasks, file systems that lack what others have, disks that fail."""

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.manifest import Manifest, verify
from fmtrain.artifacts.storage import disk_errors, private_dir, private_files, share
from fmtrain.artifacts.store import Store
from fmtrain.errors import StoreError
from launch.cli import main
from launch.status import passed_over, runs
from tests.launch.test_cli import run_json
from tests.needs import need


def manifest(fingerprint: str) -> Manifest:
    return Manifest("model", "m", 0, fingerprint, {}, {}, "pretrain", 1, "c", "run", "2026-01-01", 1.0)


def work(store: Store, fingerprint: str, token: str) -> Path:
    folder = store.adopt("model", fingerprint, token)
    (folder / "out" / "sub").mkdir(parents=True)
    (folder / "out" / "sub" / "weights").write_text("x")
    return folder


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o002, 0o664, 0o775)]
)
def test_work_is_private_and_artifacts_are_as_the_umask_says(mask: int, file: int, folder: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with private_files():
            store = Store(tmp_path / "store")
            store.prepare()
            unfinished = work(store, "f1", "a")
            for path in (unfinished, *unfinished.rglob("*")):
                assert path.stat().st_mode & 0o077 == 0, path
            made = store.commit(unfinished / "out", manifest("f1")).path
    finally:
        os.umask(before)
    for path in (made, *made.rglob("*"), *made.parents[:-1]):
        if path.is_relative_to(store.root):
            assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path
    assert os.umask(before) == before


def test_the_group_of_a_shared_store_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o2700)
    share(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & stat.S_ISGID


@pytest.fixture
def open_store() -> Iterator[Store]:
    """A store that everybody may write."""
    need("users")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    before = os.umask(0)
    store = Store(folder / "store")
    store.prepare()
    os.umask(before)
    yield store
    shutil.rmtree(folder)


def as_nobody(function: Callable[[], Any]) -> Any:
    """What the function returns, as JSON, in a process of user nobody, umask 022."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.umask(0o022)
            os.write(write, json.dumps(function()).encode())
        except BaseException:
            os.write(write, json.dumps(traceback.format_exc()).encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def test_users_of_one_store_pass_over_each_others_work(open_store: Store) -> None:
    before = os.umask(0)  # of whoever shares a store with everybody
    with private_files():
        work(open_store, "f1", "roots")
        made = open_store.commit(work(open_store, "f0", "a") / "out", manifest("f0"))
    os.umask(before)

    def nobody() -> dict[str, Any]:
        found = open_store.work("model", "f1")
        foreign = [p.name for p in open_store.foreign_work("model", "f1")]
        verify(made)
        work(open_store, "f1", "nobodys")
        work(open_store, "f2", "planted")
        return {"found": found, "foreign": foreign}

    assert as_nobody(nobody) == {"found": None, "foreign": ["f1.roots"]}
    mine = open_store.work("model", "f1")
    assert mine is not None and mine.name == "f1.roots"
    assert open_store.work("model", "f2") is None, "what another user has put there is not gone on from"
    with pytest.raises(StoreError, match="is no folder of this user's"):
        private_dir(open_store.root / "work" / "model" / "f2.planted")


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_run_of_another_user_is_passed_over(mode: int, open_store: Store) -> None:
    """Also one that can be read, and was made to be: its log commands the terminal, its Ray is a trap."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        theirs = run_json(open_store.root, "20260102-000000-root", state="running", launch="local")
        config = {"launch": {"address": f"127.0.0.1:{trap.getsockname()[1]}"}}
        (theirs / "config.json").write_text(json.dumps(config))
        (theirs / "logs" / "corpus").mkdir(parents=True)
        (theirs / "logs" / "corpus" / "rank0.log").write_text("theirs")
        theirs.chmod(mode)

        def nobody() -> list[Any]:
            store = str(open_store.root)
            run_json(open_store.root, "20260101-000000-ours")
            found = [(run["id"], run["state"]) for run in runs(open_store)]
            named = runs(open_store, theirs.name)[0]["message"]
            return [
                found,
                named,
                passed_over(open_store),
                *(main([*v, "--store", store]) for v in (["status"], ["logs"])),
            ]

        found, named, word, *codes = as_nobody(nobody)
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert found == [["20260101-000000-ours", "done"]] and codes == [0, 2], "its own run has no logs"
    assert word == "1 run(s) of root are passed over" and "this is a run of root" in named


LACKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
int flock(int fd, int how) { errno = ENOLCK; return -1; }
int fsync(int fd) {
    struct stat s;
    if (fstat(fd, &s) == 0 && S_ISDIR(s.st_mode)) { errno = EINVAL; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int link(const char *a, const char *b) { errno = EPERM; return -1; }
"""
USE = """
import sys
from pathlib import Path
from fmtrain.checkpoint import Manifest, StepCheckpoints
from fmtrain.artifacts import lease
from fmtrain.artifacts.storage import fsync_tree, list_files
from fmtrain.artifacts.store import Store
from tests.fmtrain.artifacts.test_shared import manifest, work
store = Store(Path(sys.argv[1]))
store.prepare()
with lease.held(store.lease("model", "f1"), "run", "pretrain") as held:
    folder = work(store, "f1", held.me.token)
    steps = StepCheckpoints(folder / "checkpoints")
    path = steps.begin(1)
    (path / "x").write_text("x")
    steps.commit(path, Manifest(1, "f1", 1, 0, "fp32", {}, list_files(path)))
    assert steps.latest() is not None
    fsync_tree(folder)
    held.check()
    print(store.commit(folder / "out", manifest("f1")).ref)
"""


MEET = """
import sys
from pathlib import Path
from fmtrain.errors import StoreError
from launch.backends.command import meeting
try:
    with meeting(Path(sys.argv[1])) as file:
        print(file)
except StoreError as e:
    print(e)
print(list(Path(sys.argv[1]).iterdir()))
"""


def without_locks(folder: Path) -> Path:
    """A library for LD_PRELOAD, which stands in for a file system that lacks locks, links and folders' fsync: there is
    none here."""
    need("compiler")
    (folder / "lacks.c").write_text(LACKS)
    built = ["cc", "-shared", "-fPIC", "-o", str(folder / "lacks.so"), str(folder / "lacks.c"), "-ldl"]
    subprocess.run(built, check=True)
    return folder / "lacks.so"


def where_much_is_lacking(folder: Path, code: str) -> str:
    """What a program prints on such a file system."""
    root = Path(__file__).resolve().parents[3]
    env = {**os.environ, "LD_PRELOAD": str(without_locks(folder)), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code, str(folder / "store")], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_system_without_locks_links_and_folder_fsync_holds_a_store(tmp_path: Path) -> None:
    assert where_much_is_lacking(tmp_path, USE) == "m@v1\n"


def test_ranks_of_several_machines_do_not_meet_where_nothing_can_be_locked(tmp_path: Path) -> None:
    """torch's words were of its own insides, once for each rank, after all of them had started."""
    said = where_much_is_lacking(tmp_path, MEET)
    assert "locks none: No locks available" in said and "-o flock" in said and said.endswith("\n[]\n")


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOLCK, "on another one"),
        (errno.EOPNOTSUPP, "on another one"),
        (errno.EIO, "dmesg"),
        (errno.ESTALE, "dmesg"),
        (errno.EDQUOT, "Make room"),
        (errno.EROFS, "may be written"),
        (errno.ENAMETOOLONG, "shorter path"),
        (errno.EMFILE, "ulimit -n"),
    ],
    ids=lambda v: errno.errorcode.get(v) if isinstance(v, int) else None,
)
def test_what_a_disk_answers_is_named_with_its_mend(number: int, mend: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))
    assert mend in str(caught.value) and os.strerror(number) in str(caught.value)


def test_a_name_that_file_systems_cannot_hold_is_refused_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"stages.publish.artifact={'n' * 300}"]) == 2
    assert "stages.publish.artifact" in capsys.readouterr().err
