"""Files by path or pattern on this machine, as a user writes them; what cannot be one is refused with the mend.

`**` goes through links to folders, but into each folder once: a link that leads back costs nothing.
"""

import glob
import os
from collections.abc import Iterator

from fmtrain.errors import ConfigError, InputError

MOST_FILES = 1 << 20  # of one run: their numbers stand in 20 bits (data_pipelines/lines.py)


def files(pattern: str, key: str) -> list[str]:
    """The absolute paths of the files that a path or pattern names; InputError where there is none.

    `key` is the setting, for messages. A path that exists is itself, brackets and all.
    """
    if not pattern.strip():
        raise ConfigError(f"{key}: an empty name; give a path or a pattern, e.g. {key}=corpus.jsonl")
    if "\0" in pattern:
        raise ConfigError(f"{key}: {pattern!r} has a NUL in it; give a path or a pattern, e.g. {key}=corpus.jsonl")
    where = os.path.abspath(os.path.expanduser(pattern))
    found = [where] if os.path.lexists(where) else [p for p in match(where) if os.path.isfile(p)]
    if not found:
        said = f"{key}: no file matches {pattern!r} (looked for {where})"
        raise InputError(said + (_closed(where) or _brackets(where)))
    if os.path.isdir(where):
        example = os.path.join(pattern, "**", "*.jsonl")
        raise InputError(f"{key}: {pattern} is a folder; name its files, e.g. {key}='{example}'")
    return found


def match(pattern: str) -> list[str]:
    """What an absolute pattern matches, sorted; hidden files and folders only where it names their dot."""
    head, stars, rest = pattern.partition("/**/")
    if not stars and pattern.endswith("/**"):
        head, stars, rest = pattern[:-3], "/**/", "*"
    if not stars:
        return sorted(glob.glob(pattern))
    bases = glob.glob(head or "/") if glob.has_magic(head) else [head or "/"]
    seen: set[tuple[int, int]] = set()
    return sorted(
        {p for base in bases for folder in _folders(base, seen) for p in match(glob.escape(folder) + "/" + rest)}
    )


def _folders(base: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """A folder and those under it, each once, whatever links lead to it."""
    for folder, names, _ in os.walk(base, followlinks=True):
        try:
            status = os.stat(folder)
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names[:] = sorted(n for n in names if not n.startswith("."))
        yield folder


def _closed(where: str) -> str:
    """A word on the folder that keeps this user from seeing whether a file is there."""
    folder = os.path.dirname(where)
    while not os.path.isdir(folder) or glob.has_magic(folder):
        folder = os.path.dirname(folder)
    if os.access(folder, os.X_OK | (os.R_OK if glob.has_magic(where) else 0)):
        return ""
    return f". Its folder {folder} does not let you look: ask its owner for it, or give files that you may read"


def _brackets(where: str) -> str:
    """A word on brackets, where the pattern has some and its letters alone would match."""
    if "[" not in where:
        return ""
    escaped = where.replace("[", "[[]")
    mend = f"; for the bracket itself write [[]: '{escaped}'" if match(escaped) else ""
    return f". [..] in a pattern stands for one of the letters within{mend}"
