"""Saving the ranks' state as a step checkpoint, and going on from the newest valid one. All ranks call all of it."""

import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fmtrain.artifacts.storage import sha256_file
from fmtrain.checkpoint import Checkpoint, Files, Manifest, StepCheckpoints
from fmtrain.errors import ConfigError
from fmtrain.kinds.train import TrainStage
from fmtrain.schema.training import Checkpoint as CheckpointConfig
from fmtrain.train.distributed import Group
from fmtrain.train.engine import Engine
from fmtrain.train.metrics import MetricsFile

FOLDER = "checkpoints"


@dataclass(frozen=True)
class Saver:
    """The checkpoints of one stage's unfinished work."""

    folder: Path
    cfg: CheckpointConfig
    stage: TrainStage
    name: str  # of the stage, for messages
    fingerprint: str
    group: Group
    earlier: list[dict[str, str]] = field(default_factory=list)  # versions that resumed steps ran under

    def find(self) -> Checkpoint | None:
        """The newest valid checkpoint, on every rank; ConfigError where this run cannot go on from it."""
        here = StepCheckpoints(self.folder)

        def look() -> tuple[str, dict[str, Any]] | None:
            if self.group.rank != 0:
                return None
            here.clean()
            newest = here.latest()
            return None if newest is None else (str(newest.path), asdict(newest.manifest))

        told = self.group.agree(self.folder, look)[0]
        if told is None:
            return None
        found = Checkpoint(Path(told[0]), Manifest(**told[1]))
        self._refuse_other(found.manifest)
        self._note_versions(found.manifest)
        return found

    def save(self, engine: Engine, step: int, metrics: MetricsFile | None = None) -> None:
        """Write, agree, commit, prune: a rank whose disk is full ends all of them with the same message."""
        here = StepCheckpoints(self.folder)
        first = self.group.rank == 0
        path = Path(self.group.agree(self.folder, lambda: str(here.begin(step)) if first else None)[0])
        beside = [metrics.save] if metrics is not None else []
        parts = self.group.agree(
            self.folder, lambda: _described(path, [*engine.save(path), *(save(path) for save in beside)])
        )
        files: Files = {name: entry for part in parts for name, entry in part.items()}
        manifest = Manifest(
            step=step,
            fingerprint=self.fingerprint,
            world_size=self.group.size,
            zero_stage=self.stage.zero.stage,
            precision=self.stage.precision,
            versions=versions(),
            earlier=self.earlier,
            files=dict(sorted(files.items())),
        )
        self.group.agree(self.folder, lambda: self._commit(here, path, manifest) if first else None)

    def _commit(self, here: StepCheckpoints, path: Path, manifest: Manifest) -> None:
        here.prune(self.cfg.keep, here.commit(path, manifest))

    def due(self, step: int) -> bool:
        return self.cfg.every_steps > 0 and step % self.cfg.every_steps == 0

    def _refuse_other(self, saved: Manifest) -> None:
        pairs = [
            ("ranks", "launch.ranks", saved.world_size, self.group.size),
            ("ZeRO stage", f"stages.{self.name}.zero.stage", saved.zero_stage, self.stage.zero.stage),
            ("precision", f"stages.{self.name}.precision", saved.precision, self.stage.precision),
        ]
        for what, key, then, now in pairs:
            if then != now:
                raise ConfigError(
                    f"stage {self.name} was stopped at step {saved.step} with {what} {then}, and this run has {what} "
                    f"{now}; going on from it needs the same: set {key}={then}. To start the stage anew with {now}, "
                    f"delete {self.folder}"
                )
        if saved.fingerprint != self.fingerprint:
            raise ConfigError(
                f"{self.folder} belongs to fingerprint {saved.fingerprint}, and this stage is {self.fingerprint}; "
                "delete that folder to start the stage anew"
            )

    def _note_versions(self, saved: Manifest) -> None:
        """Remember, and say, that earlier steps ran under other libraries: the bits are promised for equal ones."""
        now = versions()
        self.earlier[:] = saved.earlier
        if saved.versions == now:
            return
        if saved.versions not in self.earlier:
            self.earlier.append(saved.versions)
        if self.group.rank == 0:
            names = sorted(saved.versions.keys() | now.keys())
            changed = [
                f"{name} {saved.versions.get(name)}, now {now.get(name)}"
                for name in names
                if saved.versions.get(name) != now.get(name)
            ]
            print(
                f"warning: stage {self.name} was stopped at step {saved.step} under {'; '.join(changed)}: the model "
                "may differ in its last bits from one of an uninterrupted run",
                file=sys.stderr,
                flush=True,
            )


def versions() -> dict[str, str]:
    """Of what the files' format and the bits depend on."""
    return {"torch": torch.__version__, "deepspeed": version("deepspeed")}


def _described(folder: Path, files: list[Path]) -> Files:
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        for file in files
    }
