"""What keys a configuration has: by the dataclasses, under the options that are chosen in it."""

import dataclasses
import difflib
import functools
import typing
from typing import Any

from fmtrain.kinds.table import KINDS
from fmtrain.schema import training
from fmtrain.schema.load import bare, hints_of
from fmtrain.schema.options import OPTIONS, chosen
from fmtrain.schema.root import Root

# Hydra group -> base class; the last two have one shape, whatever the option
GROUPS: dict[str, type] = {
    **{base.__name__.lower(): base for base in OPTIONS},
    "zero": training.Zero,
    "checkpoint": training.Checkpoint,
}


def known_keys(data: Any, hint: Any = Root, prefix: str = "") -> list[str]:
    """Every key of the schema under the options that `data` has chosen, dotted, groups and leaves."""
    if typing.get_origin(hint) is dict:
        inner = bare(typing.get_args(hint)[1])
        told = dataclasses.is_dataclass(inner) or _holds_any(hint)
        names = list(data) if told else sorted({kind.makes for kind in KINDS.values()})
        hints = dict.fromkeys(names, inner)
    else:
        hints = {name: bare(inner) for name, inner in hints_of(chosen(hint, data)).items()}
    found = []
    for name, inner in hints.items():
        found.append(key := f"{prefix}{name}")
        value = data.get(name) if isinstance(data, dict) else None
        if value is not None and (dataclasses.is_dataclass(inner) or typing.get_origin(inner) is dict):
            found += known_keys(value, inner, f"{key}.")
    return found


def slots(group: str, data: dict[str, Any]) -> list[str]:
    """The places in `data` at which a group's option may stand: `stages.dpo.objective`."""
    if group == "stage":
        return [f"stages.{name}" for name in data["stages"]]
    return [key for key in known_keys(data) if class_at(key, data) is GROUPS[group]]


def class_at(key: str, base: Any) -> Any:
    """The schema's class of a known key; of a group the base class."""
    cls: Any = Root
    for part in key.split("."):
        if typing.get_origin(cls) is dict:
            cls = bare(typing.get_args(cls)[1])
        else:
            cls = bare(hints_of(chosen(cls, base))[part])
        base = base.get(part) if isinstance(base, dict) else None
    return cls


def is_open(key: str, base: Any) -> bool:
    """Whether a key stands in a map whose names its reader knows, and no schema: filter.datatrove.NAME.ARGUMENT."""
    cls: Any = Root
    for part in key.split("."):
        if _holds_any(cls):
            return True
        if typing.get_origin(cls) is dict:
            cls = bare(typing.get_args(cls)[1])
        elif dataclasses.is_dataclass(cls):
            cls = bare(hints_of(chosen(typing.cast(type, cls), base)).get(part))
        else:
            return False
        base = base.get(part) if isinstance(base, dict) else None
    return False


def _holds_any(hint: Any) -> bool:
    """dict[str, Any], or one of such."""
    if typing.get_origin(hint) is not dict:
        return False
    inner = typing.get_args(hint)[1]
    return inner is Any or _holds_any(inner)


def node(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


# What other trainers call a setting -> what it is called here, below a stage.
_ELSEWHERE = {
    "learning_rate": "optim.lr", "adam_beta1": "optim.beta1", "adam_beta2": "optim.beta2", "dtype": "precision",
    "bf16": "precision", "torch_dtype": "precision", "lr_scheduler_type": "schedule", "lr_scheduler": "schedule",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "max_steps": "steps", "train_steps": "steps",
    "max_seq_length": "sequence_length", "max_length": "sequence_length", "seq_length": "sequence_length",
    "seq_len": "sequence_length", "cutoff_len": "sequence_length", "batch_size": "global_batch_size",
    "train_batch_size": "global_batch_size", "gradient_accumulation_steps": "global_batch_size",
    "per_device_train_batch_size": "micro_batch_size", "micro_batch_size_per_gpu": "micro_batch_size",
    "logging_steps": "log_every", "zero_stage": "zero.stage", "mlm_probability": "objective.mask_probability",
    "warmup_ratio": "schedule.warmup_steps",
}  # fmt: skip
_AT_ROOT = {"output_dir": "store", "save_steps": "checkpoint.every_steps", "save_total_limit": "checkpoint.keep"}


def elsewhere(key: str, known: list[str]) -> str | None:
    """The whole key of a setting that is given by its last part, or as another trainer calls it: of the stage or group
    that is named, else of the first stage that has it."""
    head, _, last = key.rpartition(".")
    ours = _ELSEWHERE.get(last, last)
    if head and head not in known:  # another part is misspelt
        return None
    stages = [name for name in known if name.startswith("stages.") and name.count(".") == 1]
    places = [head, head.rpartition(".")[0]] if head else stages
    exact = [f"{place}.{ours}" for place in places]
    deeper = [name for name in known if name.startswith(f"{head}." if head else "stages.")]
    found = [*(name for name in exact if name in known), *(name for name in deeper if name.endswith(f".{ours}"))]
    return next(iter(found), None if head else _AT_ROOT.get(last))


def nearest(word: str, candidates: list[str]) -> str:
    return _most_like(word, tuple(candidates))


def meant(word: str, candidates: list[str]) -> str:
    """`; did you mean 'x'?` where a candidate ends like the word; a far-fetched one would lead astray."""
    near = nearest(word, candidates)
    last, given = near.rpartition(".")[2], word.rpartition(".")[2]
    return f"; did you mean {near!r}?" if difflib.SequenceMatcher(None, last, given).ratio() >= 0.5 else ""


@functools.lru_cache(maxsize=256)
def _most_like(word: str, candidates: tuple[str, ...]) -> str:
    """The candidate most like `word`; among equals the one whose last part is most like the last part of `word`."""
    best, found = (-1.0, -1.0), ""
    whole = difflib.SequenceMatcher(None, "", word, autojunk=False)  # what it knows of `word` serves for all
    last = difflib.SequenceMatcher(None, "", word.rpartition(".")[2])
    for candidate in candidates:
        whole.set_seq1(candidate)
        if whole.real_quick_ratio() < best[0] or whole.quick_ratio() < best[0]:
            continue  # upper bounds, far cheaper than the ratio
        if (ratio := whole.ratio()) < best[0]:
            continue
        last.set_seq1(candidate.rpartition(".")[2])
        likeness = (ratio, last.ratio())
        if likeness > best:
            best, found = likeness, candidate
    return found
