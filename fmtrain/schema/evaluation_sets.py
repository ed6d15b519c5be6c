"""Evaluation sets by name: what a short name stands for, and how any other data set is written.

    gsm8k    gsm8k@REVISION    openai/gsm8k:main:test    openai/gsm8k@REVISION:main:test    ./evals/ours:test

The short names are after the tasks of lm-evaluation-harness, and stand for the split that it scores.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from fmtrain.errors import ConfigError

NAMED = {
    "arc_challenge": "allenai/ai2_arc:ARC-Challenge:test",
    "arc_easy": "allenai/ai2_arc:ARC-Easy:test",
    "commonsense_qa": "tau/commonsense_qa:validation",
    "gpqa": "Idavidrein/gpqa:gpqa_main:train",
    "gsm8k": "openai/gsm8k:main:test",
    "hellaswag": "Rowan/hellaswag:validation",
    "humaneval": "openai/openai_humaneval:test",
    "ifeval": "google/IFEval:train",
    "lambada": "EleutherAI/lambada_openai:default:test",
    "math_500": "HuggingFaceH4/MATH-500:test",
    "mbpp": "google-research-datasets/mbpp:full:test",
    "mmlu": "cais/mmlu:all:test",
    "mmlu_pro": "TIGER-Lab/MMLU-Pro:test",
    "nq_open": "google-research-datasets/nq_open:validation",
    "openbookqa": "allenai/openbookqa:main:test",
    "piqa": "baber/piqa:validation",
    "sciq": "allenai/sciq:test",
    "social_iqa": "lighteval/siqa:validation",
    "triviaqa": "mandarjoshi/trivia_qa:rc.nocontext:validation",
    "truthfulqa": "truthfulqa/truthful_qa:generation:validation",
    "winogrande": "allenai/winogrande:winogrande_xl:validation",
}
_FOLDER = ("/", "./", "../", "~")
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_PART = re.compile(r"[\w.+-]+")  # a configuration or a split; no slice of one


@dataclass(frozen=True)
class EvaluationSet:
    """One split of a Hugging Face data set: OWNER/NAME on the hub, or a folder on this machine."""

    path: str
    revision: str | None  # of a name on the hub; None before it is resolved, and for a folder
    config: str | None
    split: str

    @property
    def is_folder(self) -> bool:
        return self.path.startswith(_FOLDER)

    @property
    def label(self) -> str:
        """What reports and files call it: no revision, and of a folder its name alone."""
        path = Path(self.path).name if self.is_folder else self.path
        return ":".join([path, *filter(None, [self.config]), self.split])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return ":".join([f"{self.path}{revision}", *filter(None, [self.config]), self.split])


def parse(entry: str, key: str) -> EvaluationSet:
    """What an entry of the setting `key` stands for; ConfigError where it is nothing."""
    short, at, commit = entry.partition("@")
    path, *rest = (NAMED[short].replace(":", f"{at}{commit}:", 1) if short in NAMED else entry).split(":")
    folder = path.startswith(_FOLDER)
    if not 1 <= len(rest) <= 2 or not all(map(_PART.fullmatch, rest)) or not (folder or _ON_HUB.fullmatch(path)):
        near = difflib.get_close_matches(short, NAMED, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{key}: {entry!r} names no evaluation set; {hint}There are {', '.join(NAMED)}; any other is "
            "OWNER/NAME:SPLIT or OWNER/NAME:CONFIG:SPLIT on the hub, or a folder, e.g. ./evals/ours:test (no slices)"
        )
    name, _, revision = (path, "", "") if folder else path.partition("@")
    return EvaluationSet(name, revision or None, rest[0] if len(rest) == 2 else None, rest[-1])
