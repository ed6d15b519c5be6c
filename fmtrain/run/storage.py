"""Writes that are whole or absent: temporary name, fsync, rename. Knows files; knows nothing of artifacts."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmtrain.errors import FmtrainError, StoreError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_NEARLY_FULL = 1 << 20  # bytes; libraries wrap ENOSPC in errors of their own, so we look at the disk as well


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text`, durably: a reader sees the old content or the new, never a part."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(tmp, "w", encoding="utf-8") as f:
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


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Decoded JSON; StoreError names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is missing") from None
    except (OSError, ValueError) as e:
        raise StoreError(f"{path} cannot be read: {e}") from e


def fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
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


def sha256_file(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file under `folder`: relative name -> {bytes, sha256}, sorted by name."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256_file(folder / n)} for n in names}


def fresh_dir(path: Path) -> Path:
    """An empty folder at `path`; what stood there is removed."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn an error that the disk caused into StoreError: a full, read-only or forbidden disk under `where`."""
    try:
        yield
    except FmtrainError:
        raise
    except OSError as e:
        if e.errno not in _DISK:
            raise
        raise StoreError(_disk_message(where, e.strerror or str(e), e.filename)) from e
    except Exception as e:
        if "No space left" not in str(e) and _free(where) > _NEARLY_FULL:
            raise
        raise StoreError(_disk_message(where, f"{type(e).__name__}: {e}".splitlines()[0], None)) from e


def check_room(where: Path) -> None:
    """StoreError when the disk under `where` is full."""
    if _free(where) < _NEARLY_FULL:
        raise StoreError(_disk_message(where, "No space left on device", None))


def _disk_message(where: Path, what: str, filename: Any) -> str:
    at = f" at {filename}" if filename else ""
    return (
        f"cannot write under {where}: {what}{at} ({_free(where) / 1e6:.0f} MB free). "
        "Make room or give another store with store=PATH; the same command then goes on from what is saved."
    )


def _free(where: Path) -> int:
    while not where.exists() and where != where.parent:
        where = where.parent
    return shutil.disk_usage(where).free
