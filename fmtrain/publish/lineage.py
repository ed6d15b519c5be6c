"""Where a model came from: its parents' names, versions and fingerprints, as far back as the store tells.

A folder that is no artifact of ours is named by its files' hashes.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmtrain.artifacts.lineage import Ancestor, climb, manifests
from fmtrain.artifacts.manifest import FILE, Manifest, read_manifest
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import list_files
from fmtrain.artifacts.store import Store


@dataclass
class Lineage:
    """What `lineage.json` holds: the direct inputs by role, and every ancestor the store still has, oldest last."""

    name: str
    fingerprint: str
    inputs: dict[str, dict[str, Any]]
    ancestors: list[Ancestor]


def trace(stage: Stage) -> dict[str, Any]:
    """The lineage of what `stage` publishes, as JSON data."""
    inputs: dict[str, dict[str, Any]] = {}
    ancestors: dict[str, Ancestor] = {}
    for role in sorted(stage.inputs):
        folder = stage.input(role)
        if not (folder / FILE).is_file():
            inputs[role] = {"ref": stage.refs.get(role), "files": list_files(folder)}
            continue
        found = read_manifest(folder)
        inputs[role] = {"ref": found.ref, "fingerprint": found.fingerprint}
        climb(found, _known(folder), ancestors)
    return asdict(Lineage(stage.name, stage.fingerprint, inputs, list(ancestors.values())))


def _known(folder: Path) -> dict[str, Manifest]:
    """Every artifact of the store that `folder` lies in, by fingerprint: artifacts/<kind>/<name>/<version>."""
    if len(folder.parents) < 4 or folder.parents[2].name != "artifacts":
        return {}
    return manifests(Store(folder.parents[3]))
