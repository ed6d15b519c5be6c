"""Where a model came from, as `lineage.json` tells it: its parents as far back as the store has them, of which files
each was made, and by which versions of code and libraries.

A folder that is no artifact of ours is named by its files' hashes; where anything lay is not told.
"""

import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fmtrain.artifacts import lineage
from fmtrain.artifacts.lineage import Ancestor
from fmtrain.artifacts.manifest import FILE, Artifact, Manifest, read_manifest
from fmtrain.artifacts.stage import INPUTS, Stage
from fmtrain.artifacts.storage import list_files, read_json, sha256_file
from fmtrain.artifacts.store import Store
from fmtrain.errors import StoreError
from fmtrain.models.base import Base

_CARD = "card.json"  # of a corpus: what it holds, by licence too
_VERSION = re.compile(r"[^/@]+@v[0-9]+")


def trace(stage: Stage, base: Base | None) -> dict[str, Any]:
    """What `lineage.json` holds, as JSON data; ancestors breadth first, the oldest last."""
    inputs: dict[str, dict[str, Any]] = {}
    found: dict[str, Ancestor] = {}
    known = dict[str, Artifact]()
    for role in sorted(stage.inputs):
        folder = stage.input(role)
        if not (folder / FILE).is_file():
            inputs[role] = {"ref": named(stage.refs.get(role, "")), "files": list_files(folder)}
            continue
        parent = read_manifest(folder)
        inputs[role] = {"ref": parent.ref, "fingerprint": parent.fingerprint}
        known |= _known(folder)
        lineage.climb(parent, {print_: one.manifest for print_, one in known.items()}, found)
    return {
        "name": stage.name,
        "fingerprint": stage.fingerprint,
        "inputs": inputs,
        "base": asdict(base) if base else None,
        "ancestors": [_told(ancestor, known.get(ancestor.fingerprint)) for ancestor in found.values()],
        "made_with": {name: stage.asked.get(name) for name in ("git", "packages") if stage.asked.get(name)},
    }


def named(ref: str) -> str:
    """NAME@vN as it is, of a folder its name alone."""
    return ref if _VERSION.fullmatch(ref) else os.path.basename(ref.rstrip("/"))


def _told(ancestor: Ancestor, artifact: Artifact | None) -> dict[str, Any]:
    """An ancestor with the payload of its fingerprint, its input files and its licences, where it is still there."""
    told = asdict(ancestor)
    told["parents"] = {role: {**parent, "ref": named(parent["ref"])} for role, parent in ancestor.parents.items()}
    if artifact is None:
        return told
    manifest: Manifest = artifact.manifest
    told |= {"payload": manifest.payload, "git": manifest.git, "packages": manifest.packages}
    if (files := _read(artifact, INPUTS)) is not None:
        told["files"] = files
    if (card := _read(artifact, _CARD)) is not None:
        told["licences"] = _licences(card)
    return told


def _licences(card: Any) -> dict[str, dict[str, int]]:
    """Licence -> documents and bytes that were kept under it, the largest first."""
    total: dict[str, dict[str, int]] = {}
    for source in card.get("sources", {}).values():
        for key, name in (("licenses", "documents"), ("license_bytes", "bytes")):
            for licence, number in source.get(key, {}).items():
                total.setdefault(licence, {"documents": 0, "bytes": 0})[name] += number
    return dict(sorted(total.items(), key=lambda item: (-item[1]["bytes"], item[0])))


def _read(artifact: Artifact, name: str) -> Any:
    """The JSON in a file of an artifact, as its manifest records it; None where it has no such file."""
    recorded = artifact.manifest.files.get(name)
    if recorded is None:
        return None
    if sha256_file(artifact.path / name) != recorded["sha256"]:
        raise StoreError(f"{artifact.path / name} is not as its manifest records it: `fmtrain verify` tells more")
    return read_json(artifact.path / name)


def _known(folder: Path) -> dict[str, Artifact]:
    """Every artifact of the store that `folder` lies in, by fingerprint: artifacts/<kind>/<name>/<version>."""
    if len(folder.parents) < 4 or folder.parents[2].name != "artifacts":
        return {}
    return {a.manifest.fingerprint: a for a in Store(folder.parents[3]).artifacts()}
