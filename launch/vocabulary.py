"""Whether a model is trained with the tokenizer that it was made with: with another its tokens would mean other words.

A tokenizer is known by its table (the SHA-256 of tokenizer.json) and by the identity of the artifact that it is; of a
stage that is not made yet by what it will be made of.
"""

from pathlib import Path

from fmtrain.artifacts.manifest import Artifact
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import MODELS
from launch.graph import Folder
from launch.plan import Step

_TABLE = "tokenizer.json"
_ROLES = ("model", "tokenizer")


def check_vocabulary(steps: list[Step]) -> None:
    """ConfigError for the first stage whose model and tokenizer are known not to belong together."""
    for step in steps:
        model, tokenizer = (step.parents.get(role) for role in _ROLES)
        if model is None or tokenizer is None or not step.node.kind.ranks:
            continue
        theirs, given = _known(model), _known(tokenizer)
        if theirs and given and not theirs & given:
            key = f"stages.{step.node.stage}"
            raise ConfigError(
                f"{key} goes on with {_named(model)}, and {_named(tokenizer)} is not its tokenizer: tokens would mean "
                "other words. Give the model by model=hf model.path=.., which brings its tokenizer (tokenizer=model), "
                "or start from random weights"
            )


def _known(parent: "Step | Artifact | Folder") -> set[str]:
    """What a tokenizer, or that of a model, is known by; empty where nobody can tell."""
    if isinstance(parent, Folder):
        return {file.sha256 for file in parent.files if file.name == _TABLE and file.sha256}
    if isinstance(parent, Artifact) or parent.artifact is not None:
        made = parent if isinstance(parent, Artifact) else parent.artifact
        assert made is not None
        manifest = made.manifest
        found = {str(manifest.files[_TABLE]["sha256"])} if _TABLE in manifest.files else set()
        if manifest.kind == "tokenizer":
            return found | {manifest.fingerprint}
        behind = manifest.parents.get("tokenizer")
        return found | ({behind["fingerprint"]} if behind else set())
    for role in reversed(_ROLES) if parent.node.kind.makes in MODELS else ():
        if role in parent.parents:
            return _known(parent.parents[role])
    return _of_maker(parent) if parent.node.kind.makes == "tokenizer" else set()


def _of_maker(step: Step) -> set[str]:
    """Of a tokenizer that is not made yet."""
    found, path = {step.fingerprint}, getattr(step.node.job.tokenizer, "path", None)
    if path and (Path(path) / _TABLE).is_file():
        found.add(sha256_file(Path(path) / _TABLE))
    if "model" in step.parents:
        found |= _known(step.parents["model"])
    return found


def _named(parent: "Step | Artifact | Folder") -> str:
    if isinstance(parent, Folder):
        return parent.ref
    return parent.ref if isinstance(parent, Artifact) else f"stages.{parent.node.stage}"
