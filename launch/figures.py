"""How much each stage is (parameters, steps, tokens), and how long that may take.

By the last time of the same name where that ran on such a machine; else a training by its FLOPs and what the machine
is known to do, the rest by the megabytes that it descends from. What cannot be told is None, never a guess.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtrain.artifacts import lineage
from fmtrain.artifacts.inside import read_object
from fmtrain.artifacts.machine import cpus
from fmtrain.artifacts.manifest import Artifact, Manifest
from fmtrain.artifacts.remote import is_url
from fmtrain.artifacts.sources import BESIDE, HUB
from fmtrain.artifacts.store import Store
from fmtrain.artifacts.weights import tensors
from fmtrain.errors import FmtrainError
from fmtrain.kinds.base import CORE, MODELS, Amount, Kind
from fmtrain.schema.launch import Launch
from fmtrain.schema.load import identity
from fmtrain.schema.training import Shape
from launch.backends.inline import gpu_names
from launch.backends.slurm_script import gpu_type, gpus_per_node
from launch.base import size_in, tokens_in
from launch.graph import Folder
from launch.plan import KEPT, Step

_TOLD = 5e8  # bytes of a rank from which on they are told: below, the libraries are most of it
_MFU = 0.35  # of a GPU's peak, that a training is taken to reach
_MOST_PARAMETERS = 10**15
# GPU -> peak FLOP/s of dense matrices in bf16 and in fp32 (NVIDIA's data sheets)
_PEAKS = {
    "h200": (989e12, 67e12), "h100": (989e12, 67e12), "gh200": (989e12, 67e12), "b200": (2250e12, 75e12),
    "a100": (312e12, 19.5e12), "a800": (312e12, 19.5e12), "h800": (989e12, 67e12), "l40s": (362e12, 91e12),
    "l40": (181e12, 90e12), "l4": (121e12, 30e12), "a10": (125e12, 31e12), "a40": (150e12, 37e12),
    "a6000": (155e12, 39e12), "4090": (165e12, 83e12), "3090": (71e12, 36e12), "5090": (210e12, 105e12),
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What stages run on: so many GPUs of a name (lower case; "" where that is not known), or processors."""

    cpus: int
    gpus: int = 0
    gpu: str = ""

    def flops(self, precision: str) -> float | None:
        """FLOP/s that a training reaches on all of it; None where the GPUs are of a kind that nobody told."""
        if not self.gpus:
            return self.cpus * CORE
        known = [peaks for name, peaks in _PEAKS.items() if name in self.gpu.replace("-", " ").split()]
        return self.gpus * _MFU * known[0][precision == "fp32"] if known else None


def measure(steps: list[Step], launch: Launch, store: Store) -> None:
    """Give every step its shape, its amount and, where it is to be made, its seconds."""
    machine, then = _machine(launch), _Then(store)
    for step in steps:  # each after what feeds it
        step.shape = _shape(step)
        step.megabytes = _megabytes(step)
        step.amount = step.node.kind.amount(identity(step.node.job), _rows(step))
        if step.action not in KEPT:
            step.memory = _memory(step, machine, launch)
            step.seconds = _last_time(step, machine, launch, store, then) or _estimate(step, machine, launch)


def _machine(launch: Launch) -> Machine:
    """Where a run takes place, as far as it can be known before there is a job or a cluster."""
    given: Any = launch
    if launch.name == "slurm":
        return Machine(
            given.nodes * given.cpus_per_task, given.nodes * gpus_per_node(given), gpu_type(given.gres or "")
        )
    if getattr(given, "address", None):
        return Machine(1, 1)  # a cluster of others, of which nothing is known
    names = gpu_names()
    return Machine(getattr(given, "num_cpus", None) or cpus(), len(names), names[0].lower() if names else "")


def _shape(step: Step) -> Shape | None:
    """The model that a stage trains or hands on."""
    if "model" in step.parents:
        parent = step.parents["model"]
        if isinstance(parent, Step):
            return parent.shape
        if isinstance(parent, Folder):
            return shape_of(parent.root, parent.hub.parameters if parent.hub else None)
        return shape_of(parent.path)
    shapes = [parent.shape for parent in step.parents.values() if isinstance(parent, Step) and parent.shape]
    drawn = getattr(step.node.job, "model", None)
    if drawn is None:
        return max(shapes, key=lambda shape: shape.parameters, default=None)  # of those that are scored
    words = _vocabulary(step.parents.get("tokenizer"))
    return None if words is None else drawn.shape(words)


def _vocabulary(tokenizer: "Step | Artifact | Folder | None") -> int | None:
    """Tokens of a tokenizer; None where it has not said yet."""
    if isinstance(tokenizer, Folder) or tokenizer is None:
        return None
    made = tokenizer.artifact if isinstance(tokenizer, Step) else tokenizer
    if made is not None:
        return made.manifest.counts.get("vocab_size")
    assert isinstance(tokenizer, Step)
    given = tokenizer.node.job.tokenizer
    path = getattr(given, "path", None)
    return tokens_in(Path(path)) or None if path else getattr(given, "vocab_size", None)


def shape_of(folder: Path, parameters: int | None = None) -> Shape | None:
    """The shape of the model in a Hugging Face folder, by its configuration and the headers of its weights; where these
    are not there yet, by how many `parameters` somebody has counted."""
    try:
        config = read_object(folder, "config.json")
        layers = size_in(config, "num_hidden_layers", "n_layer")
        hidden = size_in(config, "hidden_size", "n_embd", "d_model")
        if parameters is None:
            parameters = sum(tensor.elements for tensor in tensors(folder).values())
        if layers is None or hidden is None or not 0 < parameters < _MOST_PARAMETERS:
            return None
        return Shape(parameters, layers, hidden, size_in(config, "vocab_size") or 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, FmtrainError):
        return None  # what is wrong with it, the stage that reads it tells


def _memory(step: Step, machine: Machine, launch: Launch) -> float | None:
    """Bytes that a rank of a training holds beside its libraries: the model's state, and what a micro-batch leaves."""
    if not step.node.kind.ranks or step.shape is None:
        return None
    stage = step.node.job.stage
    width = 2 if stage.precision == "bf16" else 4
    rows = stage.micro_batch_size * stage.objective.forwards
    state = stage.zero.bytes(step.shape.parameters, launch.count(machine.gpus), width)
    return float(state + step.shape.activations(rows, stage.sequence_length, width))


def _rows(step: Step) -> int | None:
    """Rows that a training has at most, where the stage before has counted them already."""
    parent = step.parents.get("examples")
    made = parent.artifact if isinstance(parent, Step) else parent
    if not isinstance(made, Artifact):
        return None
    part = "preference" if "reference" in step.parents else "sft"
    return made.manifest.counts.get(f"{part}_train")


def _last_time(step: Step, machine: Machine, launch: Launch, store: Store, known: "_Then") -> float | None:
    """Seconds by the newest version of that name, scaled by what there is to do; None where the machine was another."""
    kind = step.node.kind
    latest = store.latest(kind.makes, step.node.name)
    if latest is None or not _such(latest.manifest, kind, machine):
        return None
    manifest = latest.manifest
    if not kind.ranks:
        then, now = known.megabytes(manifest), step.megabytes
        if not then or not now:
            return None
        if now == then:
            return manifest.seconds
        beyond = manifest.seconds - kind.seconds  # what grows with the data
        return kind.seconds + beyond * now / then if beyond > 0 else None
    try:
        before = kind.amount(manifest.payload["job"], manifest.counts["rows"])
        spent, parameters = float(manifest.metrics["seconds"]), float(manifest.counts["parameters"])
    except (KeyError, TypeError, ValueError):  # one of another version of us
        return None
    same = manifest.numerics.get("ranks") == launch.count(machine.gpus)
    if not same or not step.shape or not step.amount or not step.amount.tokens or not before or not before.tokens:
        return None
    return kind.seconds + spent * step.amount.tokens * step.shape.parameters / (before.tokens * parameters)


def _such(manifest: Manifest, kind: Kind, machine: Machine) -> bool:
    """Whether an artifact was made on such a machine, as far as its kind of stage depends on one."""
    if kind.ranks or kind.gpu:
        return str(manifest.numerics.get("device", "")).lower() == (machine.gpu if machine.gpus else "cpu")
    return not kind.pool or manifest.host.get("cpus") == machine.cpus


def _estimate(step: Step, machine: Machine, launch: Launch) -> float | None:
    kind, shape, amount = step.node.kind, step.shape, step.amount
    if kind.ranks:
        stage = step.node.job.stage
        speed = machine.flops(stage.precision)
        if shape is None or amount is None or amount.tokens is None or speed is None:
            return None
        ranks = launch.count(machine.gpus)
        used = ranks / machine.gpus if machine.gpus else ranks * launch.cpus_per_rank / machine.cpus
        return kind.seconds + amount.tokens * shape.flops(stage.sequence_length) / (speed * min(1.0, used))
    megabytes = step.megabytes
    if megabytes is None or (kind.gpu and shape is None):
        return None
    if not kind.gpu:
        return kind.seconds + kind.per_mb * megabytes * (2 / max(2, machine.cpus) if kind.pool else 1)
    assert shape is not None
    one = Machine(machine.cpus, min(1, machine.gpus), machine.gpu).flops("fp32")
    flops = kind.per_mb * megabytes * shape.parameters
    return None if one is None else kind.seconds + flops / one


def _megabytes(step: Step) -> float | None:
    """Of the documents or rows that a stage descends from; None where a hub or a web server has them."""
    own = _size(step.payload["sources"])
    if not own and any(source.path.startswith(HUB) or is_url(source.path) for source in step.node.sources):
        return None
    behind = [own]
    for parent in step.parents.values():
        found = parent.megabytes if isinstance(parent, Step) else 0.0
        if found is None:
            return None
        behind.append(_held(parent.manifest) if isinstance(parent, Artifact) else found)
    return max(behind)


class _Then:
    """The same of what was made once, as far as the store knows what it was made of."""

    def __init__(self, store: Store) -> None:
        self.known = lineage.manifests(store)
        self.found: dict[str, float] = {}

    def megabytes(self, manifest: Manifest) -> float:
        if manifest.fingerprint not in self.found:
            prints = [parent["fingerprint"] for parent in manifest.parents.values()]
            behind = [self.megabytes(self.known[one]) for one in prints if one in self.known]
            self.found[manifest.fingerprint] = max([_size(manifest.payload.get("sources")), *behind])
        return self.found[manifest.fingerprint]


def _held(manifest: Manifest) -> float:
    """Of the text or the rows in an artifact that is taken as it is; a model holds none."""
    if manifest.kind in (*MODELS, "tokenizer"):
        return 0.0
    read = manifest.counts.get("bytes_read")
    return (read if isinstance(read, int) else sum(int(file["bytes"]) for file in manifest.files.values())) / 1e6


def _size(sources: Any) -> float:
    """Megabytes of the sources in a payload; 0 where it has none, or is of another version of us."""
    try:
        return sum(int(size) for name, size, _ in sources if not name.startswith(BESIDE)) / 1e6
    except (TypeError, ValueError, AttributeError):
        return 0.0


def described(step: Step) -> str:
    """`2.1 M parameters, 700 steps, 2.9 M tokens`; "" for what trains nothing."""
    if step.amount is None:
        return ""
    amount: Amount = step.amount
    words = [f"{_count(step.shape.parameters)} parameters"] if step.shape else []
    words += [f"~{step.memory / 1e9:.1f} GB a rank"] if step.memory and step.memory >= _TOLD else []
    if amount.steps is None or amount.tokens is None:
        return ", ".join([*words, "all rows once" if amount.epochs == 1 else f"all rows {amount.epochs:g} times"])
    most = "" if amount.epochs is None else "at most "
    return ", ".join([*words, f"{most}{amount.steps:,} steps", f"{_count(amount.tokens)} tokens"])


def unknown_for(step: Step) -> str:
    """What an estimate lacks."""
    if step.amount is not None and step.amount.tokens is None:
        return "its rows are not counted yet"
    if step.shape is None and (step.node.kind.ranks or step.node.kind.gpu):
        return "the size of its model is not known yet"
    if step.megabytes is None:
        return "the size of its data is not known here"
    return "of which type the GPUs are is not known (under Slurm launch.gres=gpu:TYPE:N says it), or what such can do"


def _count(number: float) -> str:
    """`135 M`, `2.1 M`, `1.3 B`."""
    units = ["", " k", " M", " B", " T"]
    while number >= 999.5 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.0f}{units[0]}" if number >= 9.95 or not units[0] else f"{number:.1f}{units[0]}"
