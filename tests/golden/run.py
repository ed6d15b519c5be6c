"""The golden run: the recipes beside this file, planned and driven as any, their workers forked (forking.py).

Knows how a stage is made, and made again with an edited source; nothing of what is compared.
"""

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import launch.sources
from fmtrain.artifacts.manifest import Manifest
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source, read_stage, write_stage
from fmtrain.artifacts.storage import read_sealed
from fmtrain.artifacts.store import Store
from fmtrain.artifacts.worker import RESULT
from fmtrain.schema.sources import Data, Stdlib
from launch import driver, graph, signals
from launch.backends.command import Command, Failure
from launch.backends.environment import environment
from launch.compose import compose
from launch.plan import plan
from tests.golden.forking import Edit, Forks

HERE = Path(__file__).parent
LIBRARY = "library.jsonl"  # a row a module: file, text
FROM_BASE = ("sft", "reference", "dpo", "evaluate_base", "publish_base")  # stages that take the base model
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",  # evaluation takes every processor, and tests beside it want them too
    "TOKENIZERS_PARALLELISM": "false",
    "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Made:
    """A stage of the golden run: what was planned, the folder that its worker was started with, and its artifact."""

    stage: str
    worker: str
    folder: Path
    out: Path
    manifest: Manifest


class _Job:
    def __init__(self, failures: list[Failure]) -> None:
        self.hosts, self.failures = [socket.gethostname()], failures

    def wait(self, timeout: float) -> list[Failure] | None:
        return self.failures

    def ask(self) -> None:
        """It has ended."""

    def stop(self, grace: float) -> None:
        """It has ended when it is handed out."""


class _Backend:
    """One rank, on the CPU, forked."""

    executor, cpus, gpus = "inline", 1, 0

    def __init__(self, forks: Forks) -> None:
        self.forks, self.notes = forks, list[str]()

    def node_cpus(self, gpus: int) -> int:
        return self.cpus

    def submit(self, command: Command) -> _Job:
        *_, worker, folder = command.argv
        code = self.forks.run(worker, Path(folder), command.log(0))
        return _Job([Failure(0, socket.gethostname(), code)] if code else [])


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    """In the environment of a worker, with one thread, no GPU and no network."""
    with Forks({**environment("compute"), **_ENVIRONMENT}) as found:
        yield found


def recipes(base: Path) -> dict[str, list[str]]:
    """Each recipe with the overrides that say where its data stands."""
    return {
        "library": [f"tokenizer.path={HERE / 'tokenizer'}", *(f"stages.{s}.inputs.model=[{base}]" for s in FROM_BASE)],
        "code": [],
        "prose": [f"data.files={HERE / 'prose.jsonl'}"],
        "rows": [f"data.files={HERE / 'rows.jsonl'}"],
    }


def make(folder: Path, forks: Forks) -> dict[str, Made]:
    """Every stage of every recipe, by name, in a store that is made in `folder`."""
    store, made = Store(folder / "store"), dict[str, Made]()
    store.prepare()
    library = _library(folder / "library")
    for recipe, given in recipes(_base(folder / "base")).items():
        root = compose([f"recipe={HERE / recipe}.yaml", f"store={store.root}", *given])
        with _standing_in(forks, library):
            steps = plan(graph.build(root), store)
            ended = driver.run(root, steps, store, recipe, given)
        assert ended.code == 0, f"the recipe {recipe}: {ended.message}; logs: {store.run_dir(recipe) / 'logs'}"
        for step in steps:
            name, kind = step.node.stage, step.node.kind
            artifact = store.find(kind.makes, step.fingerprint, step.node.name)
            assert artifact is not None
            place = store.run_dir(recipe) / "stages" / name
            made[name] = Made(name, kind.worker, place, artifact.path, artifact.manifest)
    return made


def again(made: Made, folder: Path, forks: Forks, edit: Edit) -> Made:
    """The same stage on the same inputs, made of an edited source."""
    stage = replace(read_stage(made.folder), work=str(folder / "work"))
    stage.work_dir.mkdir(parents=True)
    write_stage(folder / "stage", stage)
    log = folder / "log"
    code = forks.run(made.worker, folder / "stage", log, edit)
    assert code == 0, log.read_text(encoding="utf-8")
    result = read_sealed(stage.work_dir / RESULT)
    found = {name: result[name] for name in ("counts", "metrics", "files")}
    return replace(made, out=stage.out, manifest=replace(made.manifest, **found))


@contextlib.contextmanager
def _standing_in(forks: Forks, library: list[Source]) -> Iterator[None]:
    """Our backend for the one that the recipe names, our library for the interpreter's; signals stay as they were."""
    find = launch.sources.sources

    def sources(data: Data, notes: list[str] | None = None) -> list[Source]:
        return library if isinstance(data, Stdlib) else find(data, notes)

    @contextlib.contextmanager
    def backend(*_: Any) -> Iterator[_Backend]:
        yield _Backend(forks)

    with (
        mock.patch.object(graph, "sources", sources),
        mock.patch.object(driver, "open_backend", backend),
        signals.given_back(),
    ):
        yield


def _library(folder: Path) -> list[Source]:
    folder.mkdir()
    for row in map(json.loads, (HERE / LIBRARY).read_text(encoding="utf-8").splitlines()):
        (folder / row["file"]).write_text(row["text"], encoding="utf-8")
    return [identify(str(path), path.name) for path in sorted(folder.iterdir())]


def _base(folder: Path) -> Path:
    """A Llama of 26,000 weights, which no source of ours has a part in."""
    shutil.copytree(HERE / "tokenizer", folder)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model, numbers = LlamaForCausalLM(config), np.random.default_rng(1)
    for weights in (p for _, p in sorted(model.state_dict().items()) if p.dim() > 1):
        weights.copy_(torch.from_numpy(numbers.uniform(-0.1, 0.1, tuple(weights.shape))))
    model.save_pretrained(folder)
    return folder
