"""The same engine in plain PyTorch, one process and no ZeRO: what the DeepSpeed engine is held against."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fmtrain.kinds.train import TrainStage
from fmtrain.train.engine import write_state
from fmtrain.train.forward import logits_of
from fmtrain.train.optim import build_optimizer
from fmtrain.train.settings import Settings

FILE = "state.pt"


class PlainEngine:
    """fp32, one rank."""

    def __init__(self, model: nn.Module, cfg: TrainStage, settings: Settings) -> None:
        assert settings.ranks == 1 and cfg.precision == "fp32"
        self.module, self.max_grad_norm = model, cfg.optim.max_grad_norm
        self.accumulation = settings.gradient_accumulation_steps
        self.optimizer = build_optimizer(cfg.optim, model.named_parameters())

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        return logits_of(self.module, self.module, input_ids, attention_mask)

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def save(self, folder: Path) -> list[Path]:
        write_state({"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / FILE)
        return [folder / FILE]

    def load(self, folder: Path, steps: int) -> None:
        state = torch.load(folder / FILE, weights_only=True)
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}
