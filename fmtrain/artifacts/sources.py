"""What an input file is known by before it is read, and opening it: shared by the planner and the workers.

A file is its name, its size and its stamp. Up to 2 MiB the stamp says the content alone. Of a larger file it says the
first and the last MiB and what changes when somebody writes it (the store's etag; on this machine the modification
time), so that planning 10 TB does not read 10 TB; its full SHA-256 is taken while it is read.
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

from fmtrain.artifacts import hub
from fmtrain.artifacts.remote import RemoteFile, describe, is_url, plain
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import InputError

BESIDE = "//"  # begins the name of a file that settings name, not the data; no relative path begins so
HUB = "hf://datasets/"  # a Hugging Face data set by name, as NAME@REVISION behind it
_MIB = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def identify(path: str, name: str, full: bool = False) -> Source:
    """The file as it is now; its SHA-256 where it is small, or where `full` asks for it."""
    _check_name(path, name)
    try:
        size, mark = describe(path) if is_url(path) else _local(path)
        with open_input(path) as f:
            first = _exactly(f, min(size, _MIB))
            f.seek(max(_MIB, size - _MIB))
            last = _exactly(f, max(0, min(size - _MIB, _MIB)))
    except OSError as e:
        mend = f"Check {_setting(name)} and the permissions"
        if hub.at(path):
            mend = "It is in the hub's cache (HF_HOME), which is to lie where every node sees it"
        raise InputError(f"{plain(path)} cannot be read: {e.strerror}. {mend}") from None
    small = size <= 2 * _MIB
    stamp = hashlib.sha256(f"{size}\n".encode() + first + last + (b"" if small else f"\n{mark}".encode())).hexdigest()
    if small:
        return Source(path, name, size, stamp, hashlib.sha256(first + last).hexdigest())
    return Source(path, name, size, stamp, sha256_file(Path(path)) if full else "")


def identify_folder(path: str, name: str, full: bool = False) -> Source:
    """A folder by the names and identities of its files; hidden ones do not count. `full` as in `identify`."""
    root = Path(path)
    files = sorted(
        p for p in root.rglob("*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(root).parts)
    )
    found = [identify(str(p), p.relative_to(root).as_posix(), full) for p in files]
    stamp = _digest([s.name, s.size, s.stamp] for s in found)
    return Source(path, name, sum(s.size for s in found), stamp, _digest(s.identity for s in found) if full else "")


def _digest(files: Iterable[list[str | int]]) -> str:
    return hashlib.sha256("\n".join("\0".join(map(str, file)) for file in files).encode()).hexdigest()


def check_unchanged(source: Source) -> None:
    """InputError where the file is no longer the one that the run was planned with."""
    look = identify_folder if os.path.isdir(source.path) else identify
    now = look(source.path, source.name)
    if (now.size, now.stamp) == (source.size, source.stamp):
        return
    # of another time, on another machine's disk maybe: where all its bytes are known, they decide
    if not source.sha256 or now.size != source.size or look(source.path, source.name, True).sha256 != source.sha256:
        raise changed(source, f"{now.size} bytes, stamp {now.stamp[:12]}.., planned with {source.size} bytes, stamp "
                              f"{source.stamp[:12]}..")  # fmt: skip


def check_named(sources: Iterable[Source]) -> None:
    """The same for every file that settings name: those of a model's folder, of lists, of a tokenizer."""
    for source in sources:
        if source.name.startswith(BESIDE) and not source.path.startswith(HUB):
            check_unchanged(source)


def changed(source: Source, how: str) -> InputError:
    if hub.at(source.path) and not is_url(source.path):
        return InputError(hub.damaged(source.path, how))
    return InputError(
        f"{plain(source.path)} has changed since this run was planned ({how}). Run the same command again: it plans "
        "with the file as it is now"
    )


def open_input(path: str) -> BinaryIO:
    """The file at a path or URL, for reading from any position."""
    return cast(BinaryIO, io.BufferedReader(RemoteFile(path), _MIB)) if is_url(path) else open(path, "rb")


def _setting(name: str) -> str:
    """The setting that named an input."""
    return name.removeprefix(BESIDE).partition(":")[0] if name.startswith(BESIDE) else "data.files"


def _check_name(path: str, name: str) -> None:
    try:
        f"{path}{name}".encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: the name is no UTF-8, and records that are shall hold it; rename the file, or give it by a link "
            f"with another name in {_setting(name)}"
        ) from None


def _local(path: str) -> tuple[int, str]:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise InputError(f"{path} is {kind}; expected a file, which can be read twice: write its content to one")
    return status.st_size, str(status.st_mtime_ns)


def _exactly(f: BinaryIO, size: int) -> bytes:
    data = f.read(size)
    if len(data) != size:
        raise InputError(f"{getattr(f, 'name', 'an input')} is changing while it is read; wait until it is whole")
    return data
