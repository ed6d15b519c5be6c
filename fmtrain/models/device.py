"""Where a process computes: training, reference, evaluation and generation all ask here."""

import os

import torch

from fmtrain.errors import ConfigError


def device() -> torch.device:
    """This process's GPU, that of its LOCAL_RANK, or the CPU where there is none or DS_ACCELERATOR=cpu says so."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"launch.ranks: local rank {local} has no GPU of its own, this machine has {torch.cuda.device_count()}; "
            "start at most one rank a GPU"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
