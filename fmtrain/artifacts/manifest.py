"""The manifest of a committed artifact: what it is, what it was made of, and the hash of every file in it.

The manifest is sealed with the hash of its own content, and its files are known by their SHA-256. `seen` beside it says
how the files looked on the disk (size, times) when they were hashed last: while they look so, they are not read again.
It is never the only proof: what a stage reads, what is published and what `generate` loads is hashed before.
"""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fmtrain.artifacts.storage import (
    read_json,
    read_sealed,
    regular_files,
    sha256_file,
    unwatched,
    write_json,
    write_sealed,
)
from fmtrain.errors import StoreError

FILE = "manifest.json"
_SEEN = ".seen.json"


@dataclass
class Manifest:
    """One artifact's record; `files`: relative name -> {bytes, sha256}, `parents`: role -> {ref, fingerprint}."""

    kind: str
    name: str
    version: int
    fingerprint: str
    payload: dict[str, Any]
    parents: dict[str, dict[str, str]]
    stage: str
    revision: int
    code: str  # hash of the source that the stage imports from our packages
    run: str
    created: str  # UTC, ISO 8601
    seconds: float  # of the worker, wall clock
    git: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    numerics: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    # role -> a model that is no artifact of ours, "data" -> rows of a hub: path as given, files with bytes and sha256;
    # of what a hub has its repo, the revision that was asked for, the commit, and the licence that its card names
    bases: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"{self.name}@v{self.version}"


_TYPES = {name: typing.get_origin(hint) or hint for name, hint in typing.get_type_hints(Manifest).items()}


@dataclass(frozen=True)
class Artifact:
    """A committed artifact and the folder it lies in."""

    path: Path
    manifest: Manifest

    @property
    def ref(self) -> str:
        return self.manifest.ref


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_sealed(folder / FILE, dataclasses.asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`; StoreError when it is missing or damaged."""
    path = folder / FILE
    data = read_sealed(path)
    try:
        return _checked({k: v for k, v in data.items() if k in _TYPES})
    except (TypeError, AttributeError, ValueError, KeyError) as e:
        raise StoreError(f"{path} is not a manifest of ours: {e}") from e


def _checked(data: dict[str, Any]) -> Manifest:
    found = Manifest(**data)
    for name, kind in _TYPES.items():
        value = getattr(found, name)
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}")
    if not all(isinstance(p["ref"], str) and isinstance(p["fingerprint"], str) for p in found.parents.values()):
        raise ValueError(f"parents are {found.parents!r}")
    for name, entry in found.files.items():
        int(entry["bytes"]), str(entry["sha256"])
        if name != PurePosixPath(name).as_posix() or PurePosixPath(name).is_absolute() or ".." in name.split("/"):
            raise ValueError(f"the file {name!r} does not lie in the artifact")
    return found


def verify(artifact: Artifact, check: Callable[[], None] = unwatched) -> None:
    """Read every file and compare it with the manifest; StoreError names the first that differs or cannot be read.

    `check` is called once a block, and may raise.
    """
    try:
        seen = _look(artifact)
        for name, entry in artifact.manifest.files.items():
            if sha256_file(artifact.path / name, check) != entry["sha256"]:
                raise _damaged(artifact, name, "is damaged (not the bytes its manifest records)")
    except OSError as e:
        mend = "mend its permissions, or ask whoever made it" if isinstance(e, PermissionError) else "look at the disk"
        raise StoreError(f"{artifact.ref}: {e.filename or artifact.path} cannot be read: {e.strerror}; {mend}") from e
    note_seen(artifact, seen)


def verify_looks(artifact: Artifact) -> None:
    """Compare the files with what they looked like when they were hashed; hash them where they look otherwise.

    So a change is found at the cost of a look at each file, and a copied store, whose files have other times, works.
    """
    seen = _look(artifact)
    try:
        before = read_json(artifact.path / _SEEN)
    except StoreError:
        before = None
    if before != seen:
        verify(artifact)


def note_seen(artifact: Artifact, seen: dict[str, list[int]] | None = None) -> None:
    """Remember how the files look now that they are as the manifest says; where nothing can be written, nothing is."""
    try:
        seen = _look(artifact) if seen is None else seen
        write_json(artifact.path / _SEEN, seen)
        (artifact.path / _SEEN).chmod((artifact.path / FILE).stat().st_mode & 0o777)
    except OSError:
        pass


def _look(artifact: Artifact) -> dict[str, list[int]]:
    """Size and times of every file; StoreError where one is missing, a link, of another size, or not of the artifact.

    What lies in the folder may be read by a library that looks for files: it must all be in the manifest.
    """
    listed, found = artifact.manifest.files, {}
    for name in sorted(regular_files(artifact.path)):
        if name not in listed and name != FILE and not any(part.startswith(".") for part in name.split("/")):
            raise StoreError(
                f"{artifact.ref}: {artifact.path / name} is not of the artifact; somebody has put it there. Move it out"
            )
        if name in listed:
            status = (artifact.path / name).stat()
            if status.st_size != listed[name]["bytes"]:
                raise _damaged(artifact, name, "is damaged (not the size its manifest records)")
            found[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    if missing := sorted(listed.keys() - found.keys()):
        raise _damaged(artifact, missing[0], "is missing")
    return found


def _damaged(artifact: Artifact, name: str, how: str) -> StoreError:
    mend = f"delete {artifact.path} and run again: the stage is then made anew"
    return StoreError(f"{artifact.ref}: {artifact.path / name} {how}; {mend}")
