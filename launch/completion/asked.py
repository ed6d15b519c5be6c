"""A word that is being typed with what stands before it, and what a store and the disk offer for it."""

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path

from launch.status import DEFAULT_STORE, store_at


@dataclass(frozen=True)
class Asked:
    """A word that is being typed: the verb and what stands behind it."""

    verb: str
    current: str
    before: list[str]  # positional words of the verb
    options: dict[str, str] = field(default_factory=dict)  # by their name in the parser

    @property
    def store(self) -> Path:
        """The store that the line means, as far as it says."""
        given = [os.environ.get("FMTRAIN_STORE", DEFAULT_STORE)]
        given += [word.partition("=")[2] for word in self.before if word.startswith("store=")]
        return store_at(self.options.get("store", given[-1])).root

    @property
    def config_dir(self) -> Path | None:
        folder = Path(os.path.expanduser(self.options.get("config_dir", "")))
        return folder if "config_dir" in self.options and folder.is_dir() else None


def refs(store: Path, *kinds: str) -> list[str]:
    """Names of artifacts and their versions, read off the folders."""
    found = [path for kind in kinds or ("*",) for path in (store / "artifacts").glob(f"{kind}/*/v[0-9]*")]
    named = {path.parent.name for path in found}
    return [*named, *(f"{path.parent.name}@v{int(path.name[1:])}" for path in found if path.name[1:].isdecimal())]


def files(current: str, ending: str = "", *, folders_only: bool = False) -> list[str]:
    """Files and folders whose path begins so, as it was typed; a folder ends in a slash."""
    head, _, _ = current.rpartition("/")
    prefix = current[: len(head) + 1] if "/" in current else ""
    where = os.path.expanduser(glob.escape(current))
    found = [prefix + os.path.basename(path) + "/" * os.path.isdir(path) for path in glob.glob(where + "*")]
    return [path for path in found if path.endswith("/") or (not folders_only and path.endswith(ending))]
