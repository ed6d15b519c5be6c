"""Where a model came from: its parents' names, versions and fingerprints, as far back as the store tells.

Knows manifests; a folder that is no artifact of ours is named by its files' hashes.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.artifacts.manifest import FILE, Manifest, read_manifest
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import list_files
from fmtrain.artifacts.store import Store


@dataclass
class Ancestor:
    """An artifact that went into a model; `parents` maps a role to {ref, fingerprint}."""

    kind: str
    ref: str
    fingerprint: str
    stage: str
    parents: dict[str, dict[str, str]] = field(default_factory=dict)
    data: str | None = None  # the kind of data source, for a stage that reads one


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
        _climb(found, _known(folder), ancestors)
    return asdict(Lineage(stage.name, stage.fingerprint, inputs, list(ancestors.values())))


def _climb(found: Manifest, known: dict[str, Manifest], ancestors: dict[str, Ancestor]) -> None:
    """Add `found` and what it was made of, breadth first."""
    waiting = [found]
    while waiting:
        one = waiting.pop(0)
        if one.fingerprint in ancestors:
            continue
        ancestors[one.fingerprint] = Ancestor(
            one.kind, one.ref, one.fingerprint, one.stage, dict(sorted(one.parents.items())), _data(one)
        )
        waiting += [known[p["fingerprint"]] for _, p in sorted(one.parents.items()) if p.get("fingerprint") in known]


def _known(folder: Path) -> dict[str, Manifest]:
    """Every artifact of the store that `folder` lies in, by fingerprint: artifacts/<kind>/<name>/<version>."""
    if len(folder.parents) < 4 or folder.parents[2].name != "artifacts":
        return {}
    return {a.manifest.fingerprint: a.manifest for a in Store(folder.parents[3]).artifacts()}


def _data(found: Manifest) -> str | None:
    """The name of the data source in the frozen configuration of a stage that reads one."""
    job = found.payload.get("job")
    data = job.get("data") if isinstance(job, dict) else None
    return str(data["name"]) if isinstance(data, dict) and "name" in data else None
