"""The environment of what we start: by an allow-list for the kind of process, never the driver's own as it is.

A name that stands on no list of its kind does not pass, so that the keys in a user's shell are nobody's but those who
read from the network. What would mislead a process of ours passes to none, and Python's settings are set, not passed.
`launch.env=[NAME]` lets more through by name.
"""

import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import launch
from fmtrain.errors import ConfigError

Kind = Literal["compute", "network", "ray"]  # from files alone; from URLs and hubs too; Ray's own processes

# What describes one machine, and stays on it.
_MACHINE = """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE LC_* TZ TMPDIR TERM XDG_* LD_* LIBRARY_PATH CPATH CC CXX VIRTUAL_ENV
    CONDA_PREFIX SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE CUDA_* NVIDIA_* ROCR_* HIP_* HSA_*
    PYTHONPATH PYTHONNOUSERSITE PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONFAULTHANDLER
"""
# What means the same on every machine, and travels with a command: libraries' settings, where caches lie.
_SETTINGS = """
    NCCL_* GLOO_* UCX_* FI_* RDMAV_* OMP_* MKL_* KMP_* GOMP_* OPENBLAS_* NUMEXPR_* MALLOC_* GLIBC_TUNABLES TORCH*
    PYTORCH_* TRITON_* CUBLAS_* CUDNN_* DS_* DEEPSPEED_* NUMBA_* RAYON_* TOKENIZERS_* HF_HOME HF_*_CACHE HF_*OFFLINE
    TRANSFORMERS_*
"""
# Addresses and keys of what lies behind the network.
_NETWORK = """
    HF_* HUGGING_FACE_* AWS_* BOTO_CONFIG GOOGLE_* GCLOUD_* CLOUDSDK_* GCS* STORAGE_EMULATOR_HOST FSSPEC_* NETRC
    http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY
"""
_LISTS = {
    "compute": (_MACHINE + _SETTINGS).split(),
    "network": (_MACHINE + _SETTINGS + _NETWORK).split(),
    "ray": (_MACHINE + _SETTINGS + "RAY_*").split(),
}
# Of an outer launcher or of somebody's debugging: a rank that believed it would wait for others, or run other code.
_MISLEADING = """
    RANK LOCAL_RANK GROUP_RANK ROLE_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE ROLE_WORLD_SIZE MASTER_ADDR
    MASTER_PORT TORCHELASTIC_* SLURM_* SRUN_* PMI_* PMIX_* OMPI_* FMTRAIN_* PYTHONOPTIMIZE PYTHONWARNINGS PYTHONHOME
    PYTHONSTARTUP PYTHONINSPECT PYTHONBREAKPOINT PYTHONSAFEPATH PYTHONUTF8 PYTHONIOENCODING
"""
_PYTHON = {
    "PYTHONSAFEPATH": "1",  # the working directory is no place to import from
    "PYTHONUTF8": "1",  # whatever LC_ALL says
    "PYTHONUNBUFFERED": "1",  # a log says how far a killed process came
}


def environment(kind: Kind, passed: Iterable[str] = (), given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Of `given` what a process of this kind gets, on this machine; `passed` are further names (launch.env)."""
    found = {name: value for name, value in given.items() if _allowed(name, _LISTS[kind])} | _named(passed, given)
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", os.defpath)])  # ninja
    found["PYTHONPATH"] = _python_path(given.get("PYTHONPATH", ""))
    return {name: value for name, value in found.items() if name != "PYTHONPATH" or value} | _PYTHON


def travelling(kind: Kind, passed: Iterable[str] = (), given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The part of `environment` that a process on another machine gets, over what that machine has of its own."""
    machine = _MACHINE.split()
    patterns = [pattern for pattern in _LISTS[kind] if pattern not in machine]
    return {name: value for name, value in given.items() if _allowed(name, patterns)} | _named(passed, given)


def misleading(given: Mapping[str, str] = os.environ) -> list[str]:
    """Names of an outer launcher's ranks that are set here: nothing of ours listens to them."""
    return sorted({"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & given.keys())


def module(name: str, *words: str) -> list[str]:
    """The command line of a module of ours: not one that happens to stand in the working directory."""
    return [sys.executable, "-P", "-m", name, *words]


def _allowed(name: str, patterns: Iterable[str]) -> bool:
    return _any(name, patterns) and not _any(name, _MISLEADING.split())


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _named(names: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    for name in names:
        if _any(name, _MISLEADING.split()):
            raise ConfigError(f"launch.env: {name} is not passed on: it would mislead a process of ours; leave it out")
        if name not in given:
            raise ConfigError(f"launch.env: {name} is not set; export {name}=.. before the command, or leave it out")
    return {name: given[name] for name in names}


def _python_path(given: str) -> str:
    """As the user gave it, absolute, without the empty entries that mean the working directory; then our own folder,
    where we run from a checkout."""
    folders = [os.path.abspath(entry) for entry in given.split(os.pathsep) if entry]
    root = str(Path(launch.__file__).resolve().parents[1])
    installed = root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return os.pathsep.join(dict.fromkeys(folders + ([] if installed else [root])))
