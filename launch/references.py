"""Files that a configuration names beside its data: models and lists of rules, a tokenizer's folder.

Their content belongs to the identity of the stage that uses them, their paths do not. Paths are made absolute, since a
worker may stand elsewhere.
"""

import copy
import dataclasses
import glob
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from fmtrain.errors import InputError
from fmtrain.run.remote import is_url
from fmtrain.run.sources import BESIDE, identify, identify_folder
from fmtrain.run.stage import Source
from fmtrain.schema.fields import referenced

T = TypeVar("T")


def referenced_files(group: str, config: Any, used: Sequence[str] | None = None) -> list[Source]:
    """The files behind the `file` and `files` fields of `config`, of the parts `used` alone where these are given."""
    found = []
    for key, paths in referenced(config).items():
        if used is not None and key.partition(".")[0] not in used:
            continue
        for path in paths:
            found.append(_identify(path, f"{group}.{key}"))
    return found


def _identify(path: str, key: str) -> Source:
    name = f"{BESIDE}{key}:{os.path.basename(path.rstrip('/'))}"
    if is_url(path):
        return identify(path, name)
    if not os.path.exists(path):
        raise InputError(f"{key}: {path} does not exist; give the path of a file on this machine")
    return identify_folder(path, name) if os.path.isdir(path) else identify(path, name)


def absolute(config: T, key: str) -> T:
    """A copy with absolute paths in its `file` and `files` fields, globs resolved; InputError where none matches.

    `key` is where the configuration stands, e.g. filter: for messages.
    """
    made = copy.deepcopy(config)
    _resolve(made, f"{key}.")
    return made


def _resolve(config: Any, prefix: str) -> None:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("file") and value:
            if isinstance(value, str):
                setattr(config, f.name, _path(value))
            else:
                setattr(config, f.name, [p for pattern in value for p in _paths(pattern, f"{prefix}{f.name}")])
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            _resolve(value, f"{prefix}{f.name}.")


def _path(path: str) -> str:
    return path if is_url(path) else os.path.abspath(os.path.expanduser(path))


def _paths(pattern: str, key: str) -> list[str]:
    full = _path(pattern)
    if is_url(full) or os.path.exists(full):
        return [full]
    found = sorted(glob.glob(full, recursive=True))
    if not found:
        raise InputError(f"{key}: no file matches {pattern!r} (looked for {full})")
    return found
