"""Optimizers by name: torch's own, handed to the engine. DeepSpeed's would compile kernels at first use."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter

from fmtrain.schema import plugins
from fmtrain.schema.training import AdamW, Optim


def build_optimizer(cfg: Optim, named_parameters: Iterable[tuple[str, Parameter]]) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters; a tied one counts once."""
    make = (OPTIMIZERS | plugins.OPTIMIZERS)[cfg.name]
    made: torch.optim.Optimizer = make(cfg, [p for _, p in named_parameters if p.requires_grad])
    return made


def groups(parameters: list[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and higher are decayed; norms, biases and other vectors are not. An empty group is left out."""
    decayed = [p for p in parameters if p.dim() >= 2]
    others = [p for p in parameters if p.dim() < 2]
    made: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [g for g in made if g["params"]]


def adamw(cfg: AdamW, parameters: list[Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups(parameters, cfg.weight_decay), lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.eps, fused=True
    )


OPTIMIZERS: dict[str, Callable[[Any, list[Parameter]], torch.optim.Optimizer]] = {"adamw": adamw}
