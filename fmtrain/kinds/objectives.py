"""What a training learns: the settings of an objective, and what it asks of the data and of the model.

The collate and the loss of each stand in fmtrain.objectives under the same name.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fmtrain.kinds.base import MODELS, Role
from fmtrain.schema.fields import MISSING
from fmtrain.schema.limits import AboveZero, Limits
from fmtrain.schema.options import options

_EXAMPLES = ("examples",)
_TOKENS = [
    Role("tokens", ("tokens",), several=True, agrees=("tokenizer",)),
    Role("tokenizer", ("tokenizer",)),
]


@dataclass
class Objective:
    """What is learnt; `name` is a row of fmtrain.objectives' table."""

    name: str = MISSING
    task: ClassVar[str] = "causal"  # of the model's head: causal or masked
    packing: ClassVar[str] = "none"  # the one that it can do
    blank: ClassVar[bool] = False  # whether it may start from random weights
    forwards: ClassVar[int] = 1  # rows that go through the model, for a row of the batch
    prompt: ClassVar[tuple[str, ...]] = ("Say hello.",)  # words after `fmtrain generate MODEL` for a first try
    tries: ClassVar[tuple[str, ...]] = ()  # a setting of it, and two values that are worth a second run

    def roles(self) -> list[Role]:
        """The inputs that it needs beside the model."""
        return []


@dataclass
class Clm(Objective):
    """Next-token prediction."""

    name: str = "clm"
    packing: ClassVar[str] = "concat"
    blank: ClassVar[bool] = True
    prompt: ClassVar[tuple[str, ...]] = ("--raw", "import ")

    def roles(self) -> list[Role]:
        return _TOKENS


@dataclass
class Mlm(Objective):
    """Masked-token prediction (Devlin et al. 2019): of the chosen positions 80% masked, 10% random, 10% kept."""

    name: str = "mlm"
    mask_probability: Annotated[float, Limits(above=0, below=1)] = 0.15
    task: ClassVar[str] = "masked"
    packing: ClassVar[str] = "concat"
    blank: ClassVar[bool] = True
    prompt: ClassVar[tuple[str, ...]] = ("import <mask>",)

    def roles(self) -> list[Role]:
        return _TOKENS


@dataclass
class Sft(Objective):
    """Next-token prediction on the responses of a chat alone."""

    name: str = "sft"

    def roles(self) -> list[Role]:
        return [Role("examples", _EXAMPLES, part="sft")]


@dataclass
class Dpo(Objective):
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7) against stored reference log-probabilities."""

    name: str = "dpo"
    beta: AboveZero = 0.1
    tries: ClassVar[tuple[str, ...]] = ("beta", "0.2", "0.3")
    forwards: ClassVar[int] = 2

    def roles(self) -> list[Role]:
        reference = Role("reference", ("reference",), agrees=("model", "examples"), implied=True)
        return [Role("examples", _EXAMPLES, part="preference"), reference]


options(Objective, clm=Clm, mlm=Mlm, sft=Sft, dpo=Dpo)
MODEL = Role("model", MODELS, folder=True)
