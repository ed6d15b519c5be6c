"""`base.json` beside a trained model: the folder of somebody else's that its weights were first taken from.

Training keeps weights in fp32 from stage to stage; what is published at the end has the base's type and shard size
again, and names it: by its own card and by its files, never by where it lay. Imports no torch.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.artifacts import hub, manifest
from fmtrain.artifacts.inside import read_object
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import read_json, write_json
from fmtrain.artifacts.weights import float_type, tensors, weight_files
from fmtrain.errors import InputError
from fmtrain.schema.load import load

FILE = "base.json"
_LINEAGE = 1 << 28  # bytes that are read of a lineage
_OURS = "lineage.json"  # of a folder that we have published


@dataclass(frozen=True)
class Base:
    """A folder that a model comes of."""

    name: str  # OWNER/NAME on the hub, what its card calls it, or the folder's own name
    dtype: str | None  # of its weights, as torch calls it
    shard_bytes: int | None  # of its largest file of weights, where there are several
    license: str | None  # as its card says it
    identity: str | None  # the fingerprint, where we made it
    commit: str | None = None  # on the hub
    files: dict[str, str] = field(default_factory=dict)  # name -> SHA-256, of what the model is known by


def of_input(stage: Stage, role: str = "model") -> Base | None:
    """What the model that a stage takes first came of; None where its weights were drawn at random."""
    if role not in stage.inputs:
        return None
    folder = stage.input(role)
    if (folder / manifest.FILE).is_file():
        return load(Base, read_json(folder / FILE)) if (folder / FILE).is_file() else None
    return of_folder(folder, stage.bases.get(role, {}))


def of_folder(folder: Path, told: dict[str, Any]) -> Base:
    """What a folder of somebody else's is; `told` is what was planned with: its files, its name on the hub."""
    card = hub.card(folder)
    weights = weight_files(folder)
    largest = max((folder / name).stat().st_size for name in weights) if len(weights) > 1 else None
    ours = _lineage(folder)
    name = told.get("repo") or ours.get("name") or card.get("model_name") or folder.name
    licence, identity = told.get("licence") or hub.licence_in(card), ours.get("fingerprint")
    return Base(
        name=str(name)[:200],
        dtype=float_type(tensors(folder)) or _said_type(folder),
        shard_bytes=largest,
        license=str(licence)[:100] or None,
        identity=identity[:64] if isinstance(identity, str) else None,
        commit=told.get("commit"),
        files={name: file["sha256"] for name, file in sorted(told.get("files", {}).items())},
    )


def write(folder: Path, base: Base | None) -> None:
    if base is not None:
        write_json(folder / FILE, asdict(base))


def _said_type(folder: Path) -> str | None:
    """What config.json calls the type of weights whose headers are not read: pickled ones."""
    config = read_object(folder, "config.json")
    said = str(config.get("dtype") or config.get("torch_dtype"))
    return said if said in ("float32", "bfloat16", "float16") and not weight_files(folder) else None


def _lineage(folder: Path) -> dict[str, Any]:
    """What we wrote there when we published it; empty where it is not ours."""
    try:
        return read_object(folder, _OURS, _LINEAGE) if (folder / _OURS).is_file() else {}
    except InputError:
        return {}
