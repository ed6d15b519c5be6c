"""Where a process computes: training, reference, evaluation and generation all ask here."""

import os
from fnmatch import fnmatchcase

import torch

from fmtrain.errors import ConfigError

# Variables by which libraries choose other arithmetic: TF32, kernels, the order of sums. Recorded, never set.
_ARITHMETIC = """
    NVIDIA_TF32_OVERRIDE ATEN_* PYTORCH_* TORCH_* CUBLAS* CUDNN_* MKL_* ONEDNN_* DNNL_* OPENBLAS_* OMP_* KMP_* GOMP_*
    NCCL_ALGO NCCL_PROTO NCCL_MIN_* NCCL_MAX_* NCCL_NVLS_* NCCL_COLLNET_* TRITON_* DS_ACCELERATOR GLIBC_TUNABLES
"""


def arithmetic() -> dict[str, str]:
    """What of this process's environment the last bits of a result may depend on, for its numerics."""
    patterns = _ARITHMETIC.split()
    return {name: os.environ[name] for name in sorted(os.environ) if any(fnmatchcase(name, p) for p in patterns)}


def device() -> torch.device:
    """This process's GPU, that of its LOCAL_RANK, or the CPU where there is none or DS_ACCELERATOR=cpu says so."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"local rank {local} has no GPU of its own, this machine has {torch.cuda.device_count()}; "
            "start at most one rank a GPU"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
