"""What an evaluation holds, as it stands in evaluation.json. Plain dataclasses; imports no torch.

Rates are per token (nats) or per byte (bits). Nothing here depends on when or where the evaluation ran.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.artifacts.storage import read_json, write_json
from fmtrain.errors import InputError

FILE = "evaluation.json"
FORMAT = 1  # raised when a reader of evaluation.json would have to change


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class ModelRecord:
    """A model that was evaluated; `task` is causal or masked."""

    name: str
    ref: str
    architecture: str
    task: str
    parameters: int
    training: dict[str, Any]  # what training.json says of rows and of what was left out


@dataclass(frozen=True)
class TextScore:
    """Held-out text under a causal model or a baseline; a compressor has no tokens."""

    name: str
    bits_per_byte: Estimate
    nats_per_token: float | None
    nats: float
    tokens: int
    bytes: int
    documents: int


@dataclass(frozen=True)
class MaskedScore:
    """Masked positions under a masked model, beside always guessing the commonest token (None: no tokens given)."""

    name: str
    accuracy: Estimate
    pseudo_loss: float  # nats a masked token
    masked: int
    commonest_token: str | None
    commonest_accuracy: Estimate | None
    unigram_loss: float | None  # nats a masked token


@dataclass(frozen=True)
class ResponseScore:
    """Held-out SFT rows under a causal model: response and end token alone."""

    name: str
    nats_per_token: Estimate
    rows: int
    tokens: int
    too_long: int


@dataclass(frozen=True)
class PreferenceScore:
    """How often a scorer puts the chosen response first; a tie counts half. `kind` is "all" or one kind."""

    scorer: str
    baseline: bool
    kind: str
    accuracy: Estimate
    pairs: int
    ties: int
    groups: int


@dataclass(frozen=True)
class Verdict:
    """One claim, checked, in a sentence; `difference` is the model's share minus the best baseline's, paired."""

    subject: str
    holds: bool
    sentence: str
    value: float
    baseline: str
    baseline_value: float
    difference: Estimate


@dataclass(frozen=True)
class Sample:
    """One continuation; `form` is text, chat or masked, `sampling` greedy or the temperature."""

    model: str
    form: str
    sampling: str
    prompt: str
    continuation: str


@dataclass(frozen=True)
class Curve:
    """One quantity over a model's training steps, thinned."""

    model: str
    quantity: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class FunnelLevel:
    """What was left of the corpus's input after one rule: documents, and bytes of text."""

    name: str
    documents: int
    bytes: int


@dataclass
class Evaluation:
    """Everything the report shows; lists are empty where an input was missing, and `notes` says which."""

    name: str
    fingerprint: str
    refs: dict[str, str]
    settings: dict[str, Any]
    models: list[ModelRecord] = field(default_factory=list)
    text: list[TextScore] = field(default_factory=list)
    masked: list[MaskedScore] = field(default_factory=list)
    responses: list[ResponseScore] = field(default_factory=list)
    preferences: list[PreferenceScore] = field(default_factory=list)
    heldout_kinds: list[str] = field(default_factory=list)
    synthetic: bool = False  # the preference pairs are corruptions, not anyone's judgement
    verdicts: list[Verdict] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    funnel: list[FunnelLevel] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT


def write(folder: Path, evaluation: Evaluation) -> None:
    """Write `folder/evaluation.json`."""
    write_json(folder / FILE, asdict(evaluation))


def read(folder: Path) -> Evaluation:
    """The evaluation in `folder`; InputError when it is of another format."""
    data = read_json(folder / FILE)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{folder / FILE} is not an evaluation of format {FORMAT}; run the evaluate stage again")
    rows: dict[str, list[Any]] = {
        "models": [ModelRecord(**r) for r in data["models"]],
        "text": [TextScore(**_estimates(r, "bits_per_byte")) for r in data["text"]],
        "masked": [MaskedScore(**_estimates(r, "accuracy", "commonest_accuracy")) for r in data["masked"]],
        "responses": [ResponseScore(**_estimates(r, "nats_per_token")) for r in data["responses"]],
        "preferences": [PreferenceScore(**_estimates(r, "accuracy")) for r in data["preferences"]],
        "verdicts": [Verdict(**_estimates(r, "difference")) for r in data["verdicts"]],
        "samples": [Sample(**r) for r in data["samples"]],
        "curves": [Curve(**r) for r in data["curves"]],
        "funnel": [FunnelLevel(**r) for r in data.get("funnel", [])],
    }
    return Evaluation(**{**data, **rows})


def _estimates(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {**row, **{key: Estimate(**row[key]) for key in keys if row[key] is not None}}
