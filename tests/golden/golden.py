"""What every kind of stage made last (golden.yaml), and what it means where it makes something else now.

An output may change with the kind's revision, with what the stage is given, or with a library. Where none of these did,
it changed in silence, and a store would go on serving what the old source made: `CHANGED`.
"""

import enum
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path

import torch
import yaml

from fmtrain.artifacts.fingerprint import fingerprint
from fmtrain.kinds.base import KINDS
from tests.golden import outputs
from tests.golden.outputs import Lines
from tests.golden.run import Made

FILE = Path(__file__).with_name("golden.yaml")
COMMAND = "make golden"
HEAD = f"""\
# What every kind of stage made of the data beside this file, under which revision and versions: `{COMMAND}` writes it.
# A line an output: a hash of its content, or its numbers to {outputs.DIGITS} decimals.
"""
_NUMBERS = ("torch", "transformers", "tokenizers", "numpy", "jinja2", "processor")
UNDER = {  # kind -> what its output hangs on beside our source
    "corpus": ("python", "numpy", "numba", "xxhash", "ftfy", "jinja2"),
    "tokenizer": ("python", "tokenizers"),
    "tokens": ("tokenizers",),
    "examples": ("python", "tokenizers"),
    "train": (*_NUMBERS, "deepspeed"),
    "reference": _NUMBERS,
    "evaluate": (*_NUMBERS, "python"),
    "publish": ("transformers", "jinja2"),
}


@dataclass
class Entry:
    """One stage of the golden run: `given` stands for its settings and its files, `inputs` are the stages it reads."""

    kind: str
    revision: int
    under: dict[str, str]
    given: str
    inputs: list[str]
    outputs: Lines = field(default_factory=dict)


Golden = dict[str, Entry]


class Word(enum.Enum):
    """What is to be said of a stage."""

    SAME = "as before"
    RENEW = "to be renewed"  # it was raised, or is given something else
    FOLLOWS = "follows its inputs"
    LIBRARIES = "made under other versions"
    CHANGED = "changed in silence"


def versions(kind: str) -> dict[str, str]:
    """Of what `kind` hangs on, as they are here; a build's label is left out, as of 2.13.0+cpu."""
    known = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }
    return {name: known.get(name) or metadata.version(name).partition("+")[0] for name in UNDER[kind]}


def entries(made: Iterable[Made]) -> Golden:
    """What a golden run has made."""
    made = list(made)
    stages = {one.manifest.fingerprint: one.stage for one in made}
    names = {print_: f"fingerprint of {stage}" for print_, stage in stages.items()}
    parents = (parent for one in made for parent in one.manifest.parents.values())
    names |= {parent["ref"]: "the base model" for parent in parents if parent["fingerprint"] not in stages}
    return {one.stage: _entry(one, stages, names) for one in made}


def _entry(made: Made, stages: dict[str, str], names: dict[str, str]) -> Entry:
    """`stages` by fingerprint; `names` as in outputs.lines."""
    manifest = made.manifest
    parents = {role: parent["fingerprint"] for role, parent in manifest.parents.items()}
    folders = {role: print_ for role, print_ in parents.items() if print_ not in stages}
    given = {"job": manifest.payload["job"], "sources": manifest.payload["sources"], "folders": folders}
    return Entry(
        kind=manifest.payload["kind"],
        revision=manifest.revision,
        under=versions(manifest.payload["kind"]),
        given=fingerprint(given)[:16],
        inputs=sorted({stages[print_] for role, print_ in parents.items() if role not in folders}),
        outputs=outputs.lines(made.out, manifest, names),
    )


def read(path: Path = FILE) -> Golden:
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {stage: Entry(**entry) for stage, entry in found.items()}


def write(golden: Golden, path: Path = FILE) -> None:
    order = list(KINDS)
    stages = sorted(golden, key=lambda stage: order.index(golden[stage].kind))
    text = "\n".join(
        yaml.safe_dump({stage: asdict(golden[stage])}, sort_keys=False, default_flow_style=None, width=10**6)
        for stage in stages
    )
    path.write_text(f"{HEAD}\n{text}", encoding="utf-8")


def judge(was: Golden, now: Golden, stage: str) -> tuple[Word, str]:
    """The word on a stage of `now`, and the sentences for whoever reads it."""
    new, old = now[stage], was.get(stage)
    if old is None:
        return Word.RENEW, f"the stage {stage} is new; {COMMAND} writes down what it makes"
    different = outputs.differences(old.outputs, new.outputs)
    what = f"stage {stage} (kind {new.kind}, revision {new.revision}): " + "; ".join(different[:4])
    what += f"; and {len(different) - 4} more" if len(different) > 4 else ""
    if old.revision != new.revision:
        return Word.RENEW, (
            f"the kind {new.kind} has the revision {new.revision}, and {FILE.name} was written under {old.revision}: "
            f"renew it with `{COMMAND}`"
        )
    if not different:
        return Word.SAME, ""
    if old.given != new.given or old.inputs != new.inputs:
        return Word.RENEW, f"{what}. It is given other settings, data or inputs than before: renew with `{COMMAND}`"
    if others := [name for name in new.inputs if _makes_another(was, now, name)]:
        return Word.FOLLOWS, f"{what}. It follows {', '.join(others)}, and is not judged before that is"
    if old.under != new.under:
        there = old.under
        others = [f"{name} {there.get(name)} -> {here}" for name, here in new.under.items() if there.get(name) != here]
        return Word.LIBRARIES, f"{what}. That may come of {', '.join(others)}, and is not judged"
    return Word.CHANGED, (
        f"{what}. The output changed and the revision did not: what stores hold would be reused as if it were this. If "
        f"it was meant to change, raise the revision in {_file(new.kind)}, then renew with `{COMMAND}`"
    )


def _makes_another(was: Golden, now: Golden, stage: str) -> bool:
    return stage not in was or bool(outputs.differences(was[stage].outputs, now[stage].outputs))


def _file(kind: str) -> str:
    return type(KINDS[kind]).__module__.replace(".", "/") + ".py"


def renewed(was: Golden, now: Golden, libraries: bool) -> tuple[Golden | None, list[str]]:
    """The golden file's next content, with what is to be said of it; None where that would hide a change.

    An output that is as it was keeps its numbers, whose last bits may be another processor's.
    """
    said, refused, found = [], False, {}
    for stage, new in now.items():
        word, text = judge(was, now, stage)
        stop = word is Word.CHANGED or (word is Word.LIBRARIES and not libraries)
        refused |= stop
        if text:
            said.append(f"{'refused' if stop else word.value}: {text}")
        found[stage] = replace(new, outputs=was[stage].outputs) if word is Word.SAME else new
    said += [f"gone: stage {stage}" for stage in was if stage not in now]
    return (None if refused else found), said
