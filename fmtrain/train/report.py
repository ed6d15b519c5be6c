"""What a training stage says of itself: metrics.jsonl and training.json beside the model, counts and numerics."""

import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch

from fmtrain.artifacts.machine import cpus
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import write_json
from fmtrain.artifacts.worker import Result
from fmtrain.kinds.train import TrainJob
from fmtrain.models.device import arithmetic
from fmtrain.train.distributed import Group
from fmtrain.train.metrics import FILE, MetricsFile, Summary
from fmtrain.train.settings import Settings

Numerics = dict[str, str | int | dict[str, str] | list[dict[str, str]]]


@dataclass(frozen=True)
class Trained:
    """A finished training in numbers."""

    settings: Settings
    row_counts: dict[str, int]  # the objective's: rows, too_long, ...
    steps: int
    parameters: int
    numerics: Numerics
    summary: Summary


def numerics(job: TrainJob, group: Group, device: torch.device, threads: int) -> Numerics:
    """What the weights' bits depend on beside the fingerprint."""
    return {
        "ranks": group.size,
        "micro_batch_size": job.stage.micro_batch_size,
        "zero_stage": job.stage.zero.stage,
        "offload_optimizer": job.stage.zero.offload_optimizer,
        "precision": job.stage.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "environment": arithmetic(),
        **{name: version(name) for name in ("torch", "deepspeed", "transformers", "numpy")},
    }


def write_report(stage: Stage, job: TrainJob, metrics: MetricsFile, done: Trained) -> Result:
    """Write both files into `stage.out`; the stage's result says the same."""
    shutil.copyfile(metrics.path, stage.out / FILE)
    # `tokens` of a model are those it was trained on; the token artifact's own number goes under another name
    rows = {("corpus_tokens" if name == "tokens" else name): count for name, count in done.row_counts.items()}
    counts = {**rows, "steps": done.steps, "tokens": done.summary.tokens, "parameters": done.parameters}
    values = {name: value for name, value in asdict(done.summary).items() if name != "tokens"}
    training = {
        "objective": job.stage.objective.name,
        **counts,
        "counts": rows,
        "seconds": round(done.summary.seconds, 3),
        "metrics": values,
        "sequence_length": job.stage.sequence_length,
        "settings": asdict(done.settings),
        "numerics": done.numerics,
        "host_cpus": cpus(),
    }
    write_json(stage.out / "training.json", training)
    return Result(counts=counts, metrics=values, numerics=dict(done.numerics))
