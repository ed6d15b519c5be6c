"""Writes that are whole or absent, folders that are private, records that show their damage. Knows no artifacts.

A write is a temporary name, fsync, rename. Within `private_files` everything that a process and its children create is
for its user alone; what others may read (artifacts, leases) is opened to them by `share`, as far as the umask says.
"""

import contextlib
import errno
import hashlib
import json
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fmtrain.artifacts.fingerprint import fingerprint
from fmtrain.errors import ConfigError, FmtrainError, StoreError

_ROOM = "Make room or give another store with store=PATH; the same command then goes on from what is saved."
_RIGHTS = "Give a store that may be written with store=PATH, or mend the permissions."
_FAILS = (
    "The disk or its server fails (`dmesg` may tell); once it is back, the same command goes on from what is saved."
)
_LACKS = "That file system cannot do what a store needs; give a store on another one with store=PATH."
_MENDS = {  # what a disk may answer, and what helps
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: _FAILS,
    errno.ESTALE: _FAILS,
    errno.ENODEV: _FAILS,
    errno.ENXIO: _FAILS,
    errno.ENOTCONN: _FAILS,  # a FUSE file system whose server is gone
    errno.ENOLCK: _LACKS,
    errno.EOPNOTSUPP: _LACKS,
    errno.ENOSYS: _LACKS,
    errno.ENAMETOOLONG: "Give a store with a shorter path with store=PATH.",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 65536.",
    errno.ENFILE: "Too many files are open on this machine; end other programs.",
}
_NEVER_ELSE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # of these, what only a disk says
_NEARLY_FULL = 1 << 20  # bytes; libraries wrap ENOSPC in errors of their own, so we look at the disk as well
_SEAL = "seal"
T = TypeVar("T")
_umask: int | None = None  # the user's, while `private_files` holds another


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text`, durably: a reader sees the old content or the new, never a part."""
    tmp = path.with_name(f".{secrets.token_hex(8)}.tmp")  # no other process's, here or on another node
    try:
        with open(tmp, "x", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def settled(path: str) -> str:
    """The absolute path with the links in its folders resolved; where the file itself is one, it stays."""
    folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
    return os.path.join(os.path.realpath(folder), name)


def expanded(path: str | Path, given: str) -> Path:
    """`path` with the home folder in the place of `~`; `given`, for the message, is what names it."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:  # of `~name` where there is no such user
        raise ConfigError(f"{given}: it cannot be found ({e}); give its whole path") from None


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_private(path: Path, data: Any) -> None:
    """JSON that nobody but this user may read, from its first moment on; what stands at `path` is replaced."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False)


def read_json(path: Path) -> Any:
    """Decoded JSON; StoreError names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as e:
        raise StoreError(f"{path} cannot be read: {e}") from e


def read_left(path: Path, kind: type[T]) -> T:
    """The JSON of this kind that a process has left, which may have been killed as it wrote; empty where it has not."""
    try:
        left = read_json(path)
    except StoreError:
        return kind()
    return left if isinstance(left, kind) else kind()


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line of JSON; behind one that was cut off, whose writer was killed, on a line of its own."""
    with open(path, "a+b") as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - 1))
        cut = f.read() not in (b"", b"\n")
        f.write(b"\n" * cut + json.dumps(row).encode() + b"\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, none where it is missing; what was cut off or damaged is left out."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError, RecursionError):
                found.append(json.loads(line))
    return [row for row in found if isinstance(row, dict)]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one of our own JSON-lines files; StoreError names the line that is damaged."""
    try:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                try:
                    yield json.loads(line)
                except ValueError as e:
                    raise StoreError(
                        f"{path}:{number} is damaged: {e}; remove this version and make it again"
                    ) from None
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; remove this version, and the same command makes it again") from None


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """A JSON object with the hash of its own content, so that a letter changed in it is noticed."""
    write_json(path, {**data, _SEAL: _seal_of(data)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The object without its seal; StoreError where the file is missing or not as `write_sealed` left it.

    One without a seal is an earlier version's, or its seal is all that is damaged in it.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise StoreError(f"{path} is damaged: it holds no object")
    if _SEAL in data and data.pop(_SEAL) != _seal_of(data):
        raise StoreError(f"{path} is damaged: its content does not fit its seal")
    return data


def _seal_of(data: dict[str, Any]) -> str:
    return fingerprint(json.loads(json.dumps(data)))  # as it will be read: tuples are lists, keys are strings


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Whatever is created within, by this process or its children, is for its user alone: 0700 and 0600."""
    global _umask
    before, given = _umask, os.umask(0o077)
    _umask = given if before is None else before
    try:
        yield
    finally:
        _umask = before
        os.umask(given)


@contextlib.contextmanager
def users_files() -> Iterator[None]:
    """Within `private_files`: what is created is as open to others as the user's umask says, in places that are not
    ours, as the hub's cache."""
    before = os.umask(user_umask())
    try:
        yield
    finally:
        os.umask(before)


def user_umask() -> int:
    """The umask that the user set, within `private_files` too."""
    if _umask is not None:
        return _umask
    os.umask(mask := os.umask(0o077))
    return mask


def share(path: Path) -> None:
    """Open a file, or a folder and all in it, to others, as far as the user's umask says; links are left alone."""
    mask = user_umask()
    _open_to_others(str(path), (0o777 if path.is_dir() else 0o666) & ~mask)
    for root, folders, names in os.walk(path):
        for name in folders:
            _open_to_others(os.path.join(root, name), 0o777 & ~mask)
        for name in names:
            _open_to_others(os.path.join(root, name), 0o666 & ~mask)


def shared_dir(path: Path) -> Path:
    """The folder `path`, made with those above it where they are missing, each open to others as the umask says."""
    if not path.is_dir():
        shared_dir(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            _open_to_others(str(path), 0o777 & ~user_umask())
    return path


def _open_to_others(path: str, mode: int) -> None:
    status = os.lstat(path)
    kept = stat.S_IMODE(status.st_mode) & 0o7000  # setgid: the group of a shared folder
    if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(status.st_mode) != mode | kept:
        os.chmod(path, mode | kept)


def private_dir(path: Path) -> Path:
    """The folder `path`, of this user alone; StoreError where a link stands there, or another user's folder."""
    shared_dir(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    if not is_ours(path):
        raise StoreError(f"{path} is no folder of this user's; remove it, or give another store with store=PATH")
    path.chmod(0o700)
    return path


def is_ours(folder: Path) -> bool:
    """Whether it is a folder, no link, that belongs to this user: nobody else can have put into it what we read."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def owner_of(path: Path) -> str:
    """The name of the user whom a path belongs to, for messages."""
    uid = path.lstat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def fsync_dir(path: Path) -> None:
    """Flush a folder's names; some file systems (FUSE, old NFS) have no such call, and nothing can be done about it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder under `folder` to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            fd = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync_dir(Path(root))


def unwatched() -> None:
    """The sign of life of what nobody watches."""


def sha256_file(path: Path, check: Callable[[], None] = unwatched) -> str:
    """`check` is called once a block, and may raise: a large file takes minutes."""
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as f:
        while size := f.readinto(block):
            digest.update(block[:size])
            check()
    return digest.hexdigest()


def list_files(folder: Path, check: Callable[[], None] = unwatched) -> dict[str, dict[str, Any]]:
    """Every file under `folder`: relative name -> {bytes, sha256}, sorted by name. StoreError where one is a link."""
    names = sorted(regular_files(folder))
    return {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256_file(folder / n, check)} for n in names}


def regular_files(folder: Path) -> Iterator[str]:
    """The relative names of all files under `folder`; StoreError where one is a link, whose content may be anyone's."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            if path.is_symlink():
                raise StoreError(f"{path} is a link to {os.readlink(path)}; put the file itself there")
        yield from (Path(root, name).relative_to(folder).as_posix() for name in names)


def fresh_dir(path: Path) -> Path:
    """An empty folder at `path`, whose parent is there; what stood there is removed."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    return path


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn an error that the disk under `where` caused (full, forbidden, failing, too simple) into StoreError."""
    try:
        yield
    except FmtrainError:
        raise
    except OSError as e:
        if e.errno not in _MENDS:
            raise
        raise StoreError(_disk_message(where, e.strerror or str(e), e.filename, _MENDS[e.errno])) from e
    except Exception as e:
        number = _of_disk(e)
        if number is None and _free(where) > _NEARLY_FULL:
            raise
        mend = _MENDS[number or errno.ENOSPC]
        raise StoreError(_disk_message(where, f"{type(e).__name__}: {e}".splitlines()[0], None, mend)) from e


def _of_disk(error: BaseException) -> int | None:
    """The disk's error that a library's own hides: named in its words, or met while that was handled, as where torch's
    writer, cut off in the middle, complains of its own position."""
    for number in _NEVER_ELSE:
        if os.strerror(number) in str(error):
            return number
    hidden = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None if hidden is None else _of_disk(hidden)


def check_room(where: Path) -> None:
    """StoreError when the disk under `where` is full."""
    if _free(where) < _NEARLY_FULL:
        raise StoreError(_disk_message(where, "No space left on device", None))


def _disk_message(where: Path, what: str, filename: Any, mend: str = _ROOM) -> str:
    if mend == _RIGHTS and os.path.isabs(filename or "") and not Path(filename).is_relative_to(where):
        return f"{filename} cannot be used: {what}. Mend its permissions, or give another"
    at = f" at {filename}" if filename else ""
    return f"cannot write under {where}: {what}{at} ({_free(where) / 1e6:.0f} MB free). {mend}"


def _free(where: Path) -> int:
    while not where.exists() and where != where.parent:
        where = where.parent
    return shutil.disk_usage(where).free
