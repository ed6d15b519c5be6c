"""One rank: trains several cases in one process group and writes losses, norms, weights and what a resume gave.

argv: OUT INPUTS.json. Not a test by itself; test_parity.py starts it.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.worker import leave
from fmtrain.kinds.train import TrainJob
from fmtrain.models import build_model, load_tokenizer
from fmtrain.models.device import device
from fmtrain.objectives import OBJECTIVES, CollateContext
from fmtrain.schema.load import dump
from fmtrain.schema.training import Zero
from fmtrain.train.distributed import Group, start
from fmtrain.train.engine import DeepSpeedEngine, Engine
from fmtrain.train.loop import Loop
from fmtrain.train.settings import derive
from tests.fmtrain.train.spawning import sft_job, train_job

STEPS = 6
CASES = {
    "clm-0": train_job(0),
    "clm-1": train_job(1),
    "clm-2": train_job(2),
    "sft-2": sft_job(2),
    "sft-2-offload": sft_job(zero=Zero(stage=2, offload_optimizer=True, overlap_comm=True)),
    "bf16-1": train_job(1, precision="bf16"),
    "bf16-2": train_job(2, precision="bf16"),
    "clm-3": train_job(3),
    "sft-3": sft_job(3),
    "bf16-3": train_job(3, precision="bf16"),
}


def make_loop(job: TrainJob, engine: Engine, group: Group, inputs: dict[str, str]) -> Loop:
    stage = Stage("s", "model", "s", "f" * 32, "r", dump(job), inputs, {}, [], "work")
    tokenizer = load_tokenizer(stage.input("tokenizer"))
    objective = OBJECTIVES[job.stage.objective.name]
    rows = objective.rows(stage, job, tokenizer)
    context = CollateContext.of(tokenizer, job.stage.objective, job.seed)
    settings = derive(job, "s", group.size)
    return Loop(engine, group, objective, rows, context, job.stage, settings, STEPS, torch.device("cpu"), lambda: False)


def case(name: str, job: TrainJob, group: Group, inputs: dict[str, str], out: Path) -> dict[str, object]:
    """Six steps, saved after three; then a fresh engine from there, on another accumulation where that can be."""

    def fresh(job: TrainJob) -> tuple[DeepSpeedEngine, Loop]:
        assert job.model is not None
        model = build_model(job.model, load_tokenizer(Path(inputs["tokenizer"])), job.seed)
        engine = DeepSpeedEngine(model, job.stage, derive(job, "s", group.size), device())
        return engine, make_loop(job, engine, group, inputs)

    engine, loop = fresh(job)
    rows = []
    for step in range(STEPS):
        rows.append(loop.step(step)[0])
        if step == 2:
            files = engine.save(out / name)
            assert all(f.is_file() for f in files)
    weights = engine.weights()
    again, loop = fresh(job)
    again.load(out / name, 3)
    resumed = [loop.step(step)[0] for step in range(3, STEPS)]
    resumed_weights = again.weights()
    other = dataclasses.replace(job, stage=dataclasses.replace(job.stage, micro_batch_size=1))
    regrouped, loop = fresh(other)
    regrouped.load(out / name, 3)
    regrouped_losses = [loop.step(step)[0]["loss"] for step in range(3, STEPS)]
    if group.rank == 0:
        torch.save(weights, out / f"{name}.pt")
    same = all(torch.equal(weights[n], resumed_weights[n]) for n in weights)
    return {"rows": rows, "resumed": resumed, "same_weights": same, "regrouped": regrouped_losses}


def main(out: Path, inputs: dict[str, str]) -> None:
    group = start(device())
    torch.set_num_threads(1)
    found = {}
    for name, job in CASES.items():
        if group.size > 1 or name in ("clm-2", "sft-2"):
            found[name] = case(name, job, group, inputs, out)
    if group.rank == 0:
        (out / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
    leave(0)  # as every rank of ours does: gloo's threads may abort an interpreter that tears itself down
