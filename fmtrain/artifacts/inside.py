"""Files of a folder that somebody else filled: only what really lies in it is read, hashed or handed on.

A link or a `..` in a downloaded folder may lead to any file of its user, who would then publish it. Refused by name is
what leaves the folder, and what is no regular file (opening a pipe waits for ever). A snapshot in a cache of the hub is
made of links into the blobs of its own repository, which may be links into the blobs that the cache's repositories
share: those count as its files.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from fmtrain.errors import InputError

_SHARED = ".huggingface-shared-blobs"  # the client's mark
_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")


def inside(folder: Path, name: str) -> Path:
    """Where the file `name` of `folder` really lies; InputError where that is elsewhere, or where it is no file."""
    room = folder.resolve()
    real = Path(os.path.realpath(room / name))
    if ".." in Path(name).parts or not any(real.is_relative_to(r) for r in (room, *_blobs(room))):
        raise InputError(
            f"{folder}/{name} leads out of its folder, to {real}: only what lies in the folder itself is read. Copy "
            "that file into the folder under this name, or take the link or the entry away"
        )
    try:
        mode = os.stat(real).st_mode
    except OSError as e:
        raise InputError(f"{folder}/{name} cannot be read: {e.strerror}. Is the folder whole?") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{folder}/{name} is no regular file; take it out of the folder, or put the file in its place")
    return real


def files_inside(folder: Path, *below: str) -> list[str]:
    """The names of the files in `folder` and in its subfolders `below`, sorted; hidden ones are passed over.

    InputError for the first that leads out of the folder.
    """
    names = [p.name for p in folder.iterdir()] + [f"{sub}/{p.name}" for sub in below for p in (folder / sub).glob("*")]
    found = [n for n in names if not n.rpartition("/")[2].startswith(".") and not (folder / n).is_dir()]
    for name in found:
        inside(folder, name)
    return sorted(found)


def read_object(folder: Path, name: str, most: int = 16 << 20) -> dict[str, Any]:
    """The JSON object in the file `name` of `folder`; InputError where it is another thing, or over `most` bytes."""
    with open(inside(folder, name), "rb") as f:
        text = f.read(most + 1)
    if len(text) > most:
        raise InputError(f"{folder}/{name} has more than {most >> 20} MiB: no such file is so long. Get it again")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{folder}/{name} is no JSON ({e}); get the file again") from None
    if not isinstance(found, dict):
        raise InputError(f"{folder}/{name} is a JSON {type(found).__name__}, and an object is expected; get it again")
    return found


def _blobs(room: Path) -> list[Path]:
    """The other folders that a snapshot's links may lead to: hub/models--OWNER--NAME/{snapshots/COMMIT,blobs}, and
    hub/blobs where the hub's client (2.0 on) has marked it as its own."""
    repository = room.parent.parent
    if room.parent.name != "snapshots" or not _REPOSITORY.fullmatch(repository.name):
        return []
    shared = repository.parent / "blobs"
    return [repository / "blobs", *([shared] if (shared / _SHARED).is_file() else [])]
