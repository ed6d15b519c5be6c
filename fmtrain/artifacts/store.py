"""The store: `artifacts/<kind>/<name>/v0001/`, `work/<kind>/<fingerprint>.<lease>/`, `runs/<id>/`, `leases/`.

An artifact is a folder that appears under its version by one rename, its manifest already in it: there is no moment at
which half of one can be seen. Who may write what is decided by leases, not here.
"""

import dataclasses
import errno
import functools
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtrain.artifacts.manifest import FILE, Artifact, Manifest, note_seen, read_manifest, verify, write_manifest
from fmtrain.artifacts.storage import (
    fsync_dir,
    is_ours,
    list_files,
    owner_of,
    private_dir,
    share,
    shared_dir,
    unwatched,
    write_text,
)
from fmtrain.errors import ConfigError, StoreError

GIVEN = ".given"  # beside the versions: a file for each number that was ever given, whatever became of its folder
_REF = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(@v?(?P<version>\d+))?")
_told = set[Path]()  # damaged artifacts that this process has spoken of


@dataclass(frozen=True)
class Unreadable:
    """A version's folder whose manifest is damaged, another's, or not this user's to read."""

    path: Path
    why: str


@dataclass(frozen=True)
class Store:
    """A store at `root`; nothing is created before something is written."""

    root: Path

    def prepare(self) -> None:
        """Create the store's folders and prove that it can be written; StoreError says why not."""
        try:
            str(self.root).encode()
        except UnicodeEncodeError:
            raise StoreError(f"the store {str(self.root)!r}: its path is not UTF-8; give another: store=PATH") from None
        try:
            for name in ("artifacts", "work", "runs", "leases"):
                shared_dir(self.root / name)
            probe = self.root / ".probe"
            write_text(probe, "x" * 4096)
            probe.unlink(missing_ok=True)  # another run may have been as far
        except OSError as e:
            raise StoreError(
                f"the store {self.root} cannot be written: {e.strerror}. Give a folder that can be: store=PATH, "
                "or FMTRAIN_STORE in the environment."
            ) from e

    def artifacts(self, kind: str | None = None, name: str | None = None) -> Iterator[Artifact]:
        """Every committed artifact, oldest version first; folders without a manifest are not artifacts.

        What cannot be read is passed over, with a word on stderr: the others are no worse for it.
        """
        for entry in self.entries(kind, name):
            if isinstance(entry, Artifact):
                yield entry
            elif entry.path not in _told:
                _told.add(entry.path)
                mend = "Bring the file back, or delete the folder; its version is not given again"
                print(f"warning: {entry.why}; it is passed over. {mend}", file=sys.stderr, flush=True)

    def entries(self, kind: str | None = None, name: str | None = None) -> Iterator[Artifact | Unreadable]:
        """Every version's folder that has a manifest, or may have one, oldest first."""
        for folder in sorted((self.root / "artifacts").glob(f"{kind or '*'}/{name or '*'}/v*")):
            try:
                if not os.access(folder, os.R_OK | os.X_OK):
                    raise StoreError(f"{folder} may not be read by this user; it is {owner_of(folder)}'s")
                if not (folder / FILE).exists():
                    continue
                status = (folder / FILE).stat()
                manifest = _read(folder, status.st_mtime_ns, status.st_size)
                where = (manifest.kind, manifest.name, f"v{manifest.version:04d}")
                if where != folder.parts[-3:]:
                    raise StoreError(f"{folder / FILE} is that of {manifest.kind} {manifest.ref}")
                yield Artifact(folder, manifest)
            except StoreError as e:
                yield Unreadable(folder, str(e))

    def find(self, kind: str, fingerprint: str, name: str | None = None) -> Artifact | None:
        """The newest artifact of this identity, of that name where there is one."""
        found = [a for a in reversed(list(self.artifacts(kind))) if a.manifest.fingerprint == fingerprint]
        return next((a for a in found if a.manifest.name == name), found[0] if found else None)

    def latest(self, kind: str, name: str) -> Artifact | None:
        return max(self.artifacts(kind, name), key=lambda a: a.manifest.version, default=None)

    def get(self, ref: str, *kinds: str) -> Artifact:
        """The artifact `NAME@vN` or, for `NAME`, its newest version, looked for in `kinds` in their order."""
        match = _REF.fullmatch(ref)
        if match is None:
            raise ConfigError(f"{ref!r} is not an artifact's name; expected NAME or NAME@vN, e.g. quickstart@v1")
        for kind in kinds:
            found = {a.manifest.version: a for a in self.artifacts(kind, match["name"])}
            if found:
                version = int(match["version"]) if match["version"] else max(found)
                if version in found:
                    return found[version]
                have = ", ".join(f"v{v}" for v in sorted(found))
                raise ConfigError(f"{ref}: there is no version {version} of {kind} {match['name']}; it has {have}")
        names = sorted({a.manifest.name for kind in kinds for a in self.artifacts(kind)})
        raise ConfigError(
            f"{ref}: nothing of that name and of kind {' or '.join(kinds)} in {self.root}; it has "
            f"{', '.join(names) or 'none yet'}"
        )

    def has(self, ref: str) -> bool:
        """Whether a folder of that name and version is still there, of whatever kind."""
        name, _, version = ref.rpartition("@v")
        return version.isdecimal() and any((self.root / "artifacts").glob(f"*/{name}/v{int(version):04d}"))

    def gone(self, artifact: Artifact) -> dict[str, str]:
        """Role -> name of what the artifact was made of and the store no longer has."""
        named = {r: p for r, p in artifact.manifest.parents.items() if re.search(r"@v\d+$", p["ref"])}
        if not named:
            return {}
        have = {a.manifest.fingerprint for a in self.artifacts()}
        return {
            role: p["ref"]
            for role, p in sorted(named.items())
            if p["fingerprint"] not in have and not self.has(p["ref"])
        }

    def work(self, kind: str, fingerprint: str) -> Path | None:
        """This user's unfinished work of this identity, whatever run it belongs to.

        Other users' is passed over: they alone may write it, and what they have put there is not to be trusted.
        """
        found = [p for p in (self.root / "work" / kind).glob(f"{fingerprint}*") if is_ours(p)]
        return max(found, key=lambda p: p.stat().st_mtime_ns, default=None)

    def foreign_work(self, kind: str, fingerprint: str) -> list[Path]:
        return [p for p in (self.root / "work" / kind).glob(f"{fingerprint}*") if not is_ours(p)]

    def adopt(self, kind: str, fingerprint: str, token: str) -> Path:
        """The work folder of this identity for the holder of the lease `token`: what there is, under a new name.

        The rename fences: a process that slept while its lease was taken over finds none of its paths again.
        """
        target = self.root / "work" / kind / f"{fingerprint}.{token}"
        old = self.work(kind, fingerprint)
        if old is not None:
            os.rename(old, target)
        return private_dir(target)

    def lease(self, kind: str, fingerprint: str) -> Path:
        return self.root / "leases" / f"{kind}-{fingerprint}"

    def run_dir(self, run: str) -> Path:
        return self.root / "runs" / run

    def under(self, artifact: Artifact, check: Callable[[], None] = unwatched, **other: Any) -> Artifact:
        """The same artifact as a version under another name, with the same files on the disk; `other` are fields of its
        manifest, its name among them."""
        verify(artifact, check)
        work = private_dir(self.root / "work" / "named" / secrets.token_hex(8))
        for name in artifact.manifest.files:
            target = work / "out" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(artifact.path / name, target)
            except OSError:  # a file system without links
                shutil.copy2(artifact.path / name, target)
        return self.commit(work / "out", dataclasses.replace(artifact.manifest, version=0, **other), check)

    def commit(self, out: Path, manifest: Manifest, check: Callable[[], None] = unwatched) -> Artifact:
        """Make the finished folder `out` the next version of (kind, name); `manifest.version` is set here.

        `manifest.files` is what `out` must hold, where the worker has said so; StoreError where it has changed since.
        `check` is called while they are hashed, and may raise.
        """
        home = shared_dir(self.root / "artifacts" / manifest.kind / manifest.name)
        (out / FILE).unlink(missing_ok=True)
        found = list_files(out, check)
        if manifest.files and found != manifest.files:
            odd = sorted(n for n in found.keys() | manifest.files.keys() if found.get(n) != manifest.files.get(n))[0]
            raise StoreError(
                f"{out / odd} is not as its stage left it: the disk is failing, or somebody has changed it. Delete "
                f"{out.parent} and run again: the stage is then made anew"
            )
        manifest.files = found
        while True:
            manifest.version = _claim(home, manifest)
            write_manifest(out, manifest)
            share(out)
            target = home / f"v{manifest.version:04d}"
            try:
                os.rename(out, target)
                break
            except OSError as e:
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        fsync_dir(home)
        artifact = Artifact(target, manifest)
        note_seen(artifact)
        shutil.rmtree(out.parent, ignore_errors=True)
        return artifact


@functools.lru_cache(maxsize=4096)
def _read(folder: Path, changed: int, size: int) -> Manifest:
    """The manifest, read once while its file looks the same: a plan asks for each many times."""
    return read_manifest(folder)


def _claim(home: Path, manifest: Manifest) -> int:
    """A number that no version of `home` ever had: its file is created by one process alone, and stays for good."""
    given = shared_dir(home / GIVEN)
    said = json.dumps({"fingerprint": manifest.fingerprint, "run": manifest.run, "created": manifest.created})
    while True:
        names = [p.name for folder in (home, given) for p in folder.iterdir()]
        version = 1 + max((int(n[1:]) for n in names if re.fullmatch(r"v\d+", n)), default=0)
        path = given / f"v{version:04d}"
        try:
            with open(path, "x", encoding="utf-8") as f:
                f.write(said + "\n")
                f.flush()
                os.fsync(f.fileno())
        except FileExistsError:
            continue
        fsync_dir(given)
        share(path)
        return version
