"""Every objective by name: clm, mlm, sft, dpo. To add one: a module with rows, collate and loss, and a line here."""

from fmtrain.data.padding import IGNORED
from fmtrain.models.build import Task
from fmtrain.objectives import clm, dpo, mlm, sft
from fmtrain.objectives.base import Batch, CollateContext, Forward, Objective, Rows, Terms
from fmtrain.schema import plugins

OBJECTIVES: dict[str, Objective] = {
    "clm": Objective("clm", "causal", clm.rows, clm.collate, clm.loss),
    "mlm": Objective("mlm", "masked", mlm.rows, mlm.collate, mlm.loss),
    "sft": Objective("sft", "causal", sft.rows, sft.collate, sft.loss),
    "dpo": Objective("dpo", "causal", dpo.rows, dpo.collate, dpo.loss),
}


def objective(name: str) -> Objective:
    """The objective of that name, ours or a plug-in's."""
    return OBJECTIVES[name] if name in OBJECTIVES else plugins.OBJECTIVES[name]()


__all__ = [
    "IGNORED",
    "OBJECTIVES",
    "Batch",
    "CollateContext",
    "Forward",
    "Objective",
    "Rows",
    "Task",
    "Terms",
    "objective",
]
