"""The store: `artifacts/<kind>/<name>/v0001/`, `work/<kind>/<fingerprint>/`, `runs/<id>/`, `leases/`.

An artifact is a folder that appears under its version by one rename, its manifest already in it: there is no moment at
which half of one can be seen. Who may write what is decided by leases, not here.
"""

import dataclasses
import errno
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fmtrain.errors import ConfigError, StoreError
from fmtrain.run.manifest import FILE, Artifact, Manifest, read_manifest
from fmtrain.run.storage import fsync_dir, list_files, write_json

_REF = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(@v?(?P<version>\d+))?")


@dataclass(frozen=True)
class Store:
    """A store at `root`; nothing is created before something is written."""

    root: Path

    def prepare(self) -> None:
        """Create the store's folders and prove that it can be written; StoreError says why not."""
        probe = self.root / f".probe.{os.getpid()}"
        try:
            for name in ("artifacts", "work", "runs", "leases"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x" * 4096)
        except OSError as e:
            raise StoreError(
                f"the store {self.root} cannot be written: {e.strerror}. Give a folder that can be: store=PATH, "
                "or FMTRAIN_STORE in the environment."
            ) from e
        finally:
            if self.root.is_dir() and os.access(self.root, os.W_OK):
                probe.unlink(missing_ok=True)

    def artifacts(self, kind: str | None = None, name: str | None = None) -> Iterator[Artifact]:
        """Every committed artifact, oldest version first; folders without a manifest are not artifacts."""
        for folder in sorted((self.root / "artifacts").glob(f"{kind or '*'}/{name or '*'}/v*")):
            if (folder / FILE).is_file():
                yield Artifact(folder, read_manifest(folder))

    def find(self, kind: str, fingerprint: str) -> Artifact | None:
        """The newest artifact of this identity."""
        return next((a for a in reversed(list(self.artifacts(kind))) if a.manifest.fingerprint == fingerprint), None)

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
            f"{ref}: no such {' or '.join(kinds)} in {self.root}; there is {', '.join(names) or 'none yet'}"
        )

    def work(self, kind: str, fingerprint: str) -> Path:
        """Where unfinished work of this identity lies, whatever run it belongs to."""
        return self.root / "work" / kind / fingerprint

    def lease(self, kind: str, fingerprint: str) -> Path:
        return self.root / "leases" / f"{kind}-{fingerprint}.json"

    def run_dir(self, run: str) -> Path:
        return self.root / "runs" / run

    def commit(self, out: Path, manifest: Manifest) -> Artifact:
        """Make the finished folder `out` the next version of (kind, name); `manifest.version` is set here.

        A rename onto a folder that holds something fails, so that two runs that commit at once get two versions.
        """
        home = self.root / "artifacts" / manifest.kind / manifest.name
        home.mkdir(parents=True, exist_ok=True)
        (out / FILE).unlink(missing_ok=True)
        manifest.files = list_files(out)
        manifest.version = max(
            (int(p.name[1:]) for p in home.glob("v*") if p.name[1:].isdigit() and (p / FILE).is_file()), default=0
        )
        while True:
            manifest.version += 1
            write_json(out / FILE, dataclasses.asdict(manifest))
            target = home / f"v{manifest.version:04d}"
            try:
                os.rename(out, target)
                break
            except OSError as e:
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        fsync_dir(home)
        (out.parent / "result.json").unlink(missing_ok=True)
        shutil.rmtree(out.parent, ignore_errors=True)
        return Artifact(target, manifest)
