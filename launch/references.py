"""What a configuration names beside its data: models and lists of rules, evaluation sets, a tokenizer's folder.

Their content belongs to the identity of the stage that uses them, their paths do not. Paths are made absolute, since a
worker may stand elsewhere; a data set on the hub is pinned to the commit that its name stands for now.
"""

import copy
import dataclasses
import os
from typing import Any, TypeVar

from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.sources import BESIDE, HUB, identify, identify_folder
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import settled
from fmtrain.errors import InputError
from fmtrain.schema import evaluation_sets
from fmtrain.schema.fields import referenced
from launch import paths
from launch.sources import resolve

T = TypeVar("T")


def referenced_files(job: Any, at: str) -> list[Source]:
    """The files behind the `file` and `files` fields of a job, whose stage stands at `at`."""
    found = []
    for key, config in _groups(job, at):
        for one in referenced(config):
            identified = _identify_set if one.is_data_set else _identify
            source = identified(one.value, f"{key}.{one.key}")
            found.append(dataclasses.replace(source, name=source.name.replace(f"{BESIDE}{at}.", BESIDE)))  # no identity
    return found


def _groups(job: Any, at: str) -> list[tuple[str, Any]]:
    """The groups of settings in a job, each with the key that it has in the configuration."""
    values = [(f.name, getattr(job, f.name)) for f in dataclasses.fields(job)]
    keys = {"stage": at, **getattr(job, "keys", {})}
    return [(keys.get(name, name), value) for name, value in values if dataclasses.is_dataclass(value)]


def _identify_set(entry: str, key: str) -> Source:
    """A data set that `absolute` has resolved."""
    found = evaluation_sets.parse(entry, key)
    name = f"{BESIDE}{key}:{found.label}"
    if not found.is_folder:
        return Source(f"{HUB}{found.path}@{found.revision}", name, 0, str(found.revision), "")
    if not os.path.isdir(found.path):
        raise InputError(f"{key}: {found.path} is no folder on this machine; expected one with a Hugging Face data set")
    return identify_folder(found.path, name)


def _identify(path: str, key: str) -> Source:
    name = f"{BESIDE}{key}:{os.path.basename(path.rstrip('/'))}"
    if not os.path.exists(path):
        raise InputError(f"{key}: {path} does not exist; give the path of a file on this machine")
    return (identify_folder if os.path.isdir(path) else identify)(path, name, full=True)  # a copy of it is the same


def absolute(job: T, at: str) -> T:
    """A copy of a job with absolute paths in its `file` and `files` fields, globs and data sets resolved.

    InputError where nothing matches. `at` is where its stage stands (stages.tokens), for messages.
    """
    made = copy.deepcopy(job)
    for key, config in _groups(made, at):
        _resolve(config, f"{key}.")
    return made


def _resolve(config: Any, prefix: str) -> None:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("file") and value:
            if f.metadata.get("data_sets"):
                setattr(config, f.name, [_data_set(entry, f"{prefix}{f.name}") for entry in value])
            elif isinstance(value, str):
                setattr(config, f.name, _path(value, f"{prefix}{f.name}"))
            else:
                setattr(config, f.name, [p for pattern in value for p in _paths(pattern, f"{prefix}{f.name}")])
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            _resolve(value, f"{prefix}{f.name}.")


def _data_set(entry: str, key: str) -> str:
    found = evaluation_sets.parse(entry, key)
    if found.is_folder:
        if ":" in (path := _path(found.path, key)):
            raise InputError(f"{key}: {path} has a colon in it, which parts a folder from its split; give another path")
        return str(dataclasses.replace(found, path=path))
    if os.path.isdir(found.path):
        raise InputError(f"{key}: {entry} means a data set on the hub; for the folder write ./{entry}")
    mend = str(dataclasses.replace(found, revision="SHA"))
    return str(dataclasses.replace(found, revision=resolve(found.path, found.revision, f"{key}: {entry}", mend)))


def _path(path: str, key: str) -> str:
    if not path.strip():
        raise InputError(f"{key}: an empty path; give that of a file on this machine")
    if is_url(path):
        raise InputError(f"{key}: {path} is a URL; expected a path on this machine, so copy the file here")
    return settled(path)


def _paths(pattern: str, key: str) -> list[str]:
    full = _path(pattern, key)
    if os.path.exists(full):
        return [full]
    return paths.files(pattern, key)
