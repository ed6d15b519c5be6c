"""The file a worker is started with: `stage.json`, a stage's frozen slice, its inputs and where to work.

The launching side writes it, a worker reads it; paths in it are relative to its folder, so that a store can be moved
or carried to another machine as a whole. It shows no secret: where the worker needs one, the whole stands in a private
file beside it for as long as the worker runs.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fmtrain import redact
from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.storage import read_json, settled, write_json, write_private
from fmtrain.schema.load import load

FILE = "stage.json"
INPUTS = "inputs.json"  # of an artifact: the files that it was read from, each with the SHA-256 of its bytes
RECIPE = "recipe.yaml"  # of a published folder: the run that made it
PRIVATE = "stage.private.json"
GIVEN = "given.private.json"  # in the folder of a queue job's run: its overrides, where one of them holds a secret
T = TypeVar("T")


@dataclass
class Source:
    """An input file: where it lies (a path or a URL), and what it is known by (see fmtrain.artifacts.sources)."""

    path: str
    name: str
    size: int  # bytes
    stamp: str  # of its content, or of its ends and its last change
    sha256: str  # of all its bytes; "" where that is not known before it is read
    elsewhere: str = ""  # its stamp on another machine, where its bytes are known to be the same

    @property
    def identity(self) -> list[str | int]:
        """What it contributes to a fingerprint."""
        return [self.name, self.size, self.sha256 or self.elsewhere or self.stamp]


@dataclass
class Stage:
    """What a worker is to make, from what, and where.

    `out` holds the artifact's files while they are written; `result.json` beside it marks it whole.
    """

    stage: str  # the stage's name in the recipe: pretrain
    kind: str  # the artifact's kind: model
    name: str  # the artifact's name: pretrain
    fingerprint: str
    run: str
    job: dict[str, Any]  # the frozen slice; decoded by `job_as`
    inputs: dict[str, str]  # role -> folder of the artifact
    refs: dict[str, str]  # role -> its NAME@vN
    sources: list[Source]
    work: str
    resources: dict[str, Any] = field(default_factory=dict)  # ranks, tasks, executor
    folder: Path = field(default=Path("."), compare=False)
    plugins: list[dict[str, str]] = field(default_factory=list)  # that its settings, or a model's class, come of
    asked: dict[str, Any] = field(default_factory=dict)  # of the run, where it hands that on: launch.reproduce
    bases: dict[str, dict[str, Any]] = field(default_factory=dict)  # as a manifest has them

    def job_as(self, cls: type[T]) -> T:
        """The frozen slice as a schema dataclass."""
        return load(cls, self.job)

    def input(self, role: str) -> Path:
        return Path(self.inputs[role])

    def pickled(self, role: str) -> bool:
        """Whether the weights of a model that is no artifact of ours are to be read from pytorch_model.bin."""
        return bool(self.bases.get(role, {}).get("pickle"))

    def several(self, role: str) -> list[Path]:
        """The folders of a role that may have been given more than one (`role.0`, `role.1`, ..), in order."""
        if role in self.inputs:
            return [self.input(role)]
        return [self.input(f"{role}.{n}") for n in range(len(self.inputs)) if f"{role}.{n}" in self.inputs]

    @property
    def work_dir(self) -> Path:
        return Path(self.work)

    @property
    def out(self) -> Path:
        return Path(self.work) / "out"


def write_stage(folder: Path, stage: Stage) -> None:
    """Freeze `stage` into `folder/stage.json`, and what may not be shown of it into the private file."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    data = asdict(stage)
    del data["folder"]

    def relative(path: str) -> str:
        return path if is_url(path) else os.path.relpath(settled(path), folder)

    data["inputs"] = {role: relative(path) for role, path in stage.inputs.items()}
    data["sources"] = [{**source, "path": relative(source["path"])} for source in data["sources"]]
    data["work"] = relative(stage.work)
    hidden = redact.shown_in(data)
    if hidden != data:
        write_private(folder / PRIVATE, data)
    write_json(folder / FILE, hidden)


def write_inputs(out: Path, sources: Iterable[Source], hashes: Mapping[str, str]) -> None:
    """Note in an artifact which files it was read from; `hashes` are name -> SHA-256 of what was read."""
    known = [
        {"name": s.name, "bytes": s.size, "stamp": s.elsewhere or s.stamp, "sha256": hashes.get(s.name, s.sha256)}
        for s in sources
    ]
    write_json(out / INPUTS, known)


def forget_secrets(folder: Path) -> None:
    """The stage's worker has ended: what it alone had to know goes."""
    (folder / PRIVATE).unlink(missing_ok=True)


def read_stage(folder: Path) -> Stage:
    folder = folder.resolve()
    stage = read_json(folder / FILE)
    if (folder / PRIVATE).is_file():
        hidden, stage = stage, read_json(folder / PRIVATE)
        redact.differences(stage, hidden)

    def absolute(path: str) -> str:
        return path if is_url(path) else os.path.normpath(folder / path)

    stage["inputs"] = {role: absolute(path) for role, path in stage["inputs"].items()}
    stage["sources"] = [Source(**{**source, "path": absolute(source["path"])}) for source in stage["sources"]]
    stage["work"] = absolute(stage["work"])
    return Stage(**stage, folder=folder)
