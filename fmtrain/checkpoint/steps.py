"""A folder of step checkpoints, each whole or absent: a temporary name, the manifest last, fsync, rename.

Only the first rank calls this; the other ranks write their files into the folder that `begin` made. What is in the
files is the engine's matter. A library's own mark of the newest checkpoint is never read: the manifest decides.
"""

import dataclasses
import os
import re
import shutil
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.artifacts.storage import fsync_dir, read_sealed, sha256_file, write_sealed
from fmtrain.errors import StoreError

MANIFEST = "manifest.json"
Files = dict[str, dict[str, Any]]  # relative name -> {"bytes", "sha256"}
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds and what must be the same to go on from it."""

    step: int  # optimizer steps done; the next one to do, counted from 0
    fingerprint: str
    world_size: int
    zero_stage: int
    precision: str
    versions: dict[str, str]  # torch, deepspeed
    files: Files
    earlier: list[dict[str, str]] = field(default_factory=list)  # versions that steps before this ran under


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    manifest: Manifest


class StepCheckpoints:
    """The checkpoints of one piece of unfinished work, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` into; it counts for nothing until `commit`."""
        path = self.folder / f"tmp-{step:08d}-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir(exist_ok=True)  # never its parent: without the work folder the work is another's
        path.mkdir()
        return path

    def commit(self, path: Path, manifest: Manifest) -> Path:
        """Make what was written into `path` the checkpoint of its step. Files are on the disk before the name is."""
        found = {p.relative_to(path).as_posix(): p.stat().st_size for p in path.rglob("*") if p.is_file()}
        listed = {name: entry["bytes"] for name, entry in manifest.files.items()}
        if found != listed:
            odd = sorted(set(found.items()) ^ set(listed.items()))[0][0]
            raise StoreError(f"{path}: {odd} is not as its rank wrote it; does every rank see the same file system?")
        write_sealed(path / MANIFEST, dataclasses.asdict(manifest))
        for folder in (p for p in path.rglob("*") if p.is_dir()):
            fsync_dir(folder)
        fsync_dir(path)
        target = self.folder / f"step-{manifest.step:08d}"
        if target.exists():  # damaged, or the work would have gone on from it
            self._remove(target)
        os.rename(path, target)
        fsync_dir(self.folder)
        return target

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are as its manifest says; a damaged one is named on stderr and skipped."""
        for path in reversed(self._steps()):
            try:
                return Checkpoint(path, verify(path))
            except StoreError as e:
                print(f"warning: {e}; going on from an older checkpoint", file=sys.stderr, flush=True)
        return None

    def clean(self) -> None:
        """Remove what interrupted saves and removals left."""
        for path in self.folder.glob("tmp-*"):
            shutil.rmtree(path)

    def prune(self, keep: int, newest: Path) -> None:
        """After the commit of `newest`: keep it and the `keep` - 1 before it. Any later one is damaged or stale."""
        older = [p for p in self._steps() if _step(p) < _step(newest)]
        kept = {newest, *older[max(0, len(older) - (keep - 1)) :]}
        for path in self._steps():
            if path not in kept:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """In one rename, so that a kill in the middle leaves no half checkpoint under a committed name."""
        doomed = self.folder / f"tmp-{path.name}-{uuid.uuid4().hex[:8]}"
        os.rename(path, doomed)
        shutil.rmtree(doomed)

    def _steps(self) -> list[Path]:
        """Every committed name, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if _STEP.fullmatch(p.name)), key=_step)


def verify(path: Path) -> Manifest:
    """Read a checkpoint's manifest and every file it lists; StoreError names the first that is missing or changed."""
    try:
        manifest = Manifest(**read_sealed(path / MANIFEST))
        listed = [(name, int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest.files.items()]
    except (TypeError, KeyError, ValueError, AttributeError) as e:
        raise StoreError(f"{path / MANIFEST} is damaged: {e}") from None
    if manifest.step != _step(path):
        raise StoreError(f"{path / MANIFEST} is damaged: it says step {manifest.step}")
    for name, size, digest in listed:
        file = path / name
        if not file.is_file():
            raise StoreError(f"{file} is missing")
        if file.stat().st_size != size:
            raise StoreError(f"{file} has {file.stat().st_size} bytes and its manifest says {size}")
        if sha256_file(file) != digest:
            raise StoreError(f"{file} is damaged: its SHA-256 is not the manifest's")
    return manifest


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
