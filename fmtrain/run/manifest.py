"""The manifest of a committed artifact: what it is, what it was made of, and the hash of every file in it."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.errors import StoreError
from fmtrain.run.storage import read_json, sha256_file

FILE = "manifest.json"


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

    @property
    def ref(self) -> str:
        return f"{self.name}@v{self.version}"


@dataclass(frozen=True)
class Artifact:
    """A committed artifact and the folder it lies in."""

    path: Path
    manifest: Manifest

    @property
    def ref(self) -> str:
        return self.manifest.ref


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`; StoreError when it is missing or damaged."""
    data = read_json(folder / FILE)
    known = {f.name for f in dataclasses.fields(Manifest)}
    try:
        return Manifest(**{k: v for k, v in data.items() if k in known})
    except (TypeError, AttributeError) as e:
        raise StoreError(f"{folder / FILE} is not a manifest of ours: {e}") from e


def verify(artifact: Artifact, *, hashes: bool = True) -> None:
    """Compare the files with the manifest, by size and by SHA-256; StoreError names the first that differs."""
    for name, entry in artifact.manifest.files.items():
        path = artifact.path / name
        mend = f"delete {artifact.path} and run again: the stage is then made anew"
        if not path.is_file():
            raise StoreError(f"{artifact.ref}: {path} is missing; {mend}")
        if path.stat().st_size != entry["bytes"] or (hashes and sha256_file(path) != entry["sha256"]):
            raise StoreError(f"{artifact.ref}: {path} is damaged (not the bytes its manifest records); {mend}")
