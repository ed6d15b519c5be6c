"""The publish stage: a model's Hugging Face files under a name of their own, with a card and the lineage.

Files are copied, never linked: what becomes of one of the two folders leaves the other as it is. Of a committed
artifact the bytes that are copied must be those that its manifest records.
"""

import hashlib
from pathlib import Path

from fmtrain.artifacts import manifest
from fmtrain.artifacts.inside import files_inside
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import read_json, write_json, write_text
from fmtrain.artifacts.worker import Progress, Result
from fmtrain.errors import InputError, StoreError
from fmtrain.evaluate import records
from fmtrain.publish import card, lineage

OURS = {"metrics.jsonl", "training.json", "README.md", "lineage.json", manifest.FILE}  # no part of the model
WEIGHTS = (".safetensors", ".bin")


def run(stage: Stage) -> Result:
    """Write the folder; what it holds does not depend on when or where it was published."""
    source = stage.input("model")
    names = model_files(source)
    progress = Progress(stage, "files", len(names))
    recorded = manifest.read_manifest(source).files if (source / manifest.FILE).is_file() else None
    for done, name in enumerate(names, 1):
        digest = copy(source / name, stage.out / name)
        if recorded is not None and recorded.get(name, {}).get("sha256") != digest:
            raise StoreError(f"{source / name} is not as its manifest records it: `fmtrain verify` tells more")
        progress.update(done, force=done == len(names))
    evaluation = records.read(stage.input("evaluation")) if "evaluation" in stage.inputs else None
    config = read_json(source / "config.json")
    history = lineage.trace(stage)
    write_json(stage.out / "lineage.json", history)
    write_text(stage.out / "README.md", card.render(stage.name, config, history, evaluation))
    size = sum((stage.out / name).stat().st_size for name in names)
    return Result(counts={"files": len(names), "bytes": size})


def model_files(folder: Path) -> list[str]:
    """The Hugging Face files of a model folder, sorted; InputError where it has no config or no weights."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder")
    names = [name for name in files_inside(folder) if name not in OURS]
    if not any(name.endswith(WEIGHTS) for name in names):
        raise InputError(f"{folder} has no weights (*.safetensors): the model was saved in part")
    return names


def copy(source: Path, target: Path) -> str:
    """Copy a file; the SHA-256 of the bytes that were copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
    return digest.hexdigest()
