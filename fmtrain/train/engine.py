"""What the loop needs of an engine, and the one over DeepSpeed ZeRO (Rajbhandari et al. 2020).

All that is known of DeepSpeed's ways, and every hook into it, is in this file. A loss given to `backward` is divided
by ranks and accumulation inside; who calls it multiplies by both.
"""

import os
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fmtrain.artifacts.storage import disk_errors
from fmtrain.errors import StoreError
from fmtrain.kinds.train import TrainStage
from fmtrain.schema.training import Zero
from fmtrain.train.forward import logits_of
from fmtrain.train.optim import build_optimizer
from fmtrain.train.settings import Settings

TAG = "state"  # the folder's name inside a checkpoint; we never read DeepSpeed's `latest`


class Engine(Protocol):
    """A model with its optimizer, spread over the ranks or not."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(batch, seq), (batch, seq) or None -> logits (batch, seq, vocab)."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss` / (ranks * accumulation), summed over ranks."""
        ...

    def step(self, lr: float) -> float:
        """Clip, update, clear the gradients; the gradient's norm before clipping."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write what `load` needs; every rank calls it. The files this rank wrote, flushed to the disk."""
        ...

    def load(self, folder: Path, steps: int) -> None:
        """Go on from what `save` wrote after `steps` optimizer steps; same ranks, ZeRO stage and precision."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Every weight and saved buffer in full, fp32, on the CPU of the first rank; empty on others. All call it."""
        ...


class DeepSpeedEngine:
    """ZeRO stages 0 to 3 in fp32 or bf16, over gloo or NCCL."""

    def __init__(self, model: nn.Module, cfg: TrainStage, settings: Settings, device: torch.device) -> None:
        deepspeed = import_deepspeed(device)
        self.zero_stage = cfg.zero.stage
        self.accumulation = settings.gradient_accumulation_steps
        self.max_grad_norm = cfg.optim.max_grad_norm
        parameters = sum(p.numel() for p in model.parameters())
        if cfg.precision == "bf16":
            model.to(torch.bfloat16)  # before the optimizer, so that its parameters are the engine's
        optimizer = build_optimizer(cfg.optim, model.named_parameters())
        model.to(device)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_config(cfg, settings, parameters)
        )
        self.module: nn.Module = self.engine.module
        self.writer = _writer()
        self.engine.checkpoint_engine = self.writer
        self.engine._copy_recovery_script = _nothing  # 100 KB of scripts beside each checkpoint, outside our writer

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        return logits_of(self.engine, self.module, input_ids, attention_mask)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # counts the micro-batch; changes no weight

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.zero_stage == 0:  # the gradients are whole on every rank; DeepSpeed would clip and not tell the norm
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm or float("inf"))
            self.engine.step()
            return float(norm)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def save(self, folder: Path) -> list[Path]:
        """A rank whose disk fails still takes part to the end, so that no other waits for it; then it raises."""
        self.writer.begin()
        self.engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
        written: list[Path] = self.writer.finish()
        return written

    def load(self, folder: Path, steps: int) -> None:
        path, _ = self.engine.load_checkpoint(str(folder), tag=TAG)
        if path is None or self.engine.global_steps != steps:
            raise StoreError(
                f"{folder} was not taken by DeepSpeed (step {self.engine.global_steps}, expected {steps}); remove it, "
                "and the same command goes on from an older checkpoint"
            )
        self.engine.micro_steps = steps * self.accumulation  # of this run's accumulation, which may be another

    def weights(self) -> dict[str, Tensor]:
        first = self.engine.global_rank == 0
        found: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            if id(parameter) in names:  # tied: gathered once
                if first:
                    found[name] = found[names[id(parameter)]]
                continue
            names[id(parameter)] = name
            full = self._full(parameter)
            if first:
                found[name] = full
        if first:
            kept = set(self.module.state_dict())
            found |= {n: b.detach().cpu().clone() for n, b in self.module.named_buffers() if n in kept}
        return found

    def _full(self, parameter: nn.Parameter) -> Tensor:
        """One whole parameter in fp32 on the CPU: the master copy where training keeps one."""
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        full = safe_get_full_fp32_param(parameter) if parameter.requires_grad and self.zero_stage else None
        if full is None and self.zero_stage == 3:  # frozen
            with deepspeed.zero.GatheredParameters([parameter]):
                return parameter.detach().float().cpu().clone()
        return (parameter if full is None else full).detach().float().cpu().clone()


def import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, set up for `device`, its communication on the process group that stands."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed calls what torch 2.13 deprecates; said once a rank, it buries what matters in the log
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    import deepspeed

    if device.type == "cpu":
        # init_distributed would compile a shared-memory op, for minutes, even for gloo. We use no compiled op on the
        # CPU, and probing for compilers takes seconds of its own.
        import deepspeed.ops
        from deepspeed.ops.op_builder.all_ops import ALL_OPS

        deepspeed.ops.__dict__["__compatible_ops__"] = dict.fromkeys(ALL_OPS, False)
    deepspeed.init_distributed(dist_backend="gloo" if device.type == "cpu" else "nccl", auto_mpi_discovery=False)
    return deepspeed


def deepspeed_config(cfg: TrainStage, settings: Settings, parameters: int) -> dict[str, Any]:
    """DeepSpeed's configuration; sizes are in elements."""
    return {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_clipping": cfg.optim.max_grad_norm if cfg.zero.stage else 0.0,
        "bf16": {"enabled": cfg.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},  # also in bf16, where small micro-batches would be lost in the sum
        "zero_optimization": zero_config(cfg.zero, parameters),
        "zero_allow_untested_optimizer": True,  # a plug-in's; one that flat parts do not suit is refused before
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW, also where its state is offloaded
        "steps_per_print": 1 << 40,
        "wall_clock_breakdown": False,
    }


def zero_config(cfg: Zero, parameters: int) -> dict[str, Any]:
    # One bucket of the default size would hold all of a small model: no overlap, and gigabytes of buffer.
    bucket = cfg.reduce_bucket_size or int(max(25e6, parameters / 16))
    made: dict[str, Any] = {"stage": cfg.stage, "reduce_bucket_size": bucket, "overlap_comm": cfg.overlap_comm}
    if cfg.offload_optimizer:
        made["offload_optimizer"] = {"device": "cpu"}
    if cfg.param_persistence_threshold is not None:
        made["stage3_param_persistence_threshold"] = cfg.param_persistence_threshold
    return made


def _nothing(path: str) -> None:
    """In place of a step of DeepSpeed's save that we do without."""


def _writer() -> Any:
    """A checkpoint engine for DeepSpeed that writes as we want: flushed, remembered, failing only at the end."""
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    class Writer(TorchCheckpointEngine):  # type: ignore[misc]
        """An error inside DeepSpeed's save would leave the other ranks in a barrier; so it is kept for `finish`."""

        def begin(self) -> None:
            self.files: list[Path] = []
            self.error: StoreError | None = None

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            self._try(Path(path), lambda: os.makedirs(path, exist_ok=exist_ok))

        def save(self, state_dict: Any, path: str) -> None:
            if self.error is None:
                self._try(Path(path).parent, lambda: write_state(state_dict, Path(path)))
                self.files.append(Path(path))

        def _try(self, where: Path, action: Any) -> None:
            try:
                with disk_errors(where):
                    action()
            except StoreError as e:
                self.error = self.error or e

        def finish(self) -> list[Path]:
            if self.error is not None:
                raise self.error
            return self.files

    return Writer()


def write_state(state: Any, path: Path) -> None:
    """torch.save, flushed to the disk."""
    with open(path, "wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
