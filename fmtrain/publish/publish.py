"""The publish stage: a model's Hugging Face files under a name of their own, with a card, the lineage, and the recipe.

Its weights have the type and the shard size of the base that it comes of, unless the stage says others. Files are
copied, never linked: what becomes of one of the two folders leaves the other as it is. Of a committed artifact the
bytes that are copied must be those that its manifest records.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from fmtrain import show
from fmtrain.artifacts import manifest
from fmtrain.artifacts.inside import files_inside
from fmtrain.artifacts.model_folder import TEMPLATES, is_models
from fmtrain.artifacts.stage import RECIPE, Stage
from fmtrain.artifacts.storage import read_json, sha256_file, write_json, write_text
from fmtrain.artifacts.weights import float_type, tensors, weight_files
from fmtrain.artifacts.worker import Progress, Result, announce
from fmtrain.errors import InputError, StoreError
from fmtrain.evaluate import records
from fmtrain.kinds.publish import PublishJob, PublishStage
from fmtrain.models import base as bases
from fmtrain.models.base import Base
from fmtrain.publish import card, lineage, weights

LINEAGE, CARD = "lineage.json", "README.md"
WEIGHTS = (".safetensors", ".bin")


def run(stage: Stage) -> Result:
    """Write the folder; what it holds does not depend on when or where it was published."""
    source, cfg = stage.input("model"), stage.job_as(PublishJob).stage
    names, base = handed_on(source), bases.of_input(stage)
    if cfg.dtype and not weight_files(source):
        raise InputError(
            f"stages.{stage.stage}.dtype={cfg.dtype}: {source} has pickled weights alone, which are handed on as they "
            "are; take dtype away, or save the model with safetensors (save_pretrained does)"
        )
    dtype, shard_bytes = _wanted(cfg, base)
    again = weights.changes(source, dtype, shard_bytes)
    replaced = {name for name in names if again and name.endswith((".safetensors", ".safetensors.index.json"))}
    progress = Progress(stage, "files", len(names))
    recorded = manifest.read_manifest(source).files if (source / manifest.FILE).is_file() else None
    for done, name in enumerate(names, 1):
        digest = sha256_file(source / name) if name in replaced else copy(source / name, stage.out / name)
        if recorded is not None and recorded.get(name, {}).get("sha256") != digest:
            raise StoreError(f"{source / name} is not as its manifest records it: `fmtrain verify` tells more")
        progress.update(done, force=done == len(names))
    written = [name for name in names if name not in replaced]
    if again:
        written += weights.rewrite(source, stage.out, dtype, shard_bytes, lambda: progress.update(len(names)))
        _set_type(stage.out, dtype)
    kept = float_type(tensors(stage.out))
    if base is not None and kept is not None and cfg.dtype is None and base.dtype != kept:
        announce(stage, f"{base.name} has weights of a type that is not written ({base.dtype}); published as {kept}")
    _write_about(stage, base, kept)
    size = sum((stage.out / name).stat().st_size for name in written)
    return Result(counts={"files": len(written), "bytes": size})


def _wanted(cfg: PublishStage, base: Base | None) -> tuple[str | None, int | None]:
    """The type of the weights as torch calls it, and the most bytes of a file; None leaves them as they are."""
    dtype = weights.TYPES[cfg.dtype] if cfg.dtype else base.dtype if base else None
    shard_bytes = int(cfg.shard_gb * 1e9) if cfg.shard_gb else base.shard_bytes if base else None
    return dtype, shard_bytes


def _set_type(out: Path, dtype: str | None) -> None:
    config = read_json(out / "config.json")
    config.pop("torch_dtype", None)
    write_json(out / "config.json", {**config, "dtype": dtype or float_type(tensors(out))})


def _write_about(stage: Stage, base: Base | None, dtype: str | None) -> None:
    """The card, the lineage, and the recipe that made it."""
    evaluation = records.read(stage.input("evaluation")) if "evaluation" in stage.inputs else None
    config: dict[str, Any] = {**read_json(stage.out / "config.json"), "dtype": dtype}
    history = lineage.trace(stage, base)
    write_json(stage.out / LINEAGE, history)
    if recipe := stage.asked.get("recipe"):
        said = f"# The run that made {stage.name}, to be made again by `fmtrain run --from` this folder.\n"
        command = "# It was asked for by: " + show.line(" ".join(stage.asked["command"])) + "\n"
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
        write_text(stage.out / RECIPE, f"# @package _global_\n{said}{command}{text}")
    words = card.render(stage.name, config, history, evaluation, stage.asked.get("command", []))
    write_text(stage.out / CARD, words)


def handed_on(folder: Path) -> list[str]:
    """The Hugging Face files of a model folder, sorted; InputError where it has no config or no weights."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder")
    names = [name for name in files_inside(folder, TEMPLATES) if is_models(name)]
    if any(name.endswith(".safetensors") for name in names):
        names = [name for name in names if not name.startswith("pytorch_model")]
    if not any(name.endswith(WEIGHTS) for name in names):
        raise InputError(f"{folder} has no weights (*.safetensors): the model was saved in part")
    return names


def copy(source: Path, target: Path) -> str:
    """Copy a file; the SHA-256 of the bytes that were copied."""
    digest = hashlib.sha256()
    target.parent.mkdir(exist_ok=True)  # of additional chat templates
    with open(source, "rb") as read, open(target, "wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
    return digest.hexdigest()
