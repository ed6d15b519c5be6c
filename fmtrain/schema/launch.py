"""Config of where a run takes place; never part of an artifact's identity."""

from dataclasses import dataclass
from typing import Annotated

from fmtrain.schema.fields import MISSING, items
from fmtrain.schema.limits import Count, Limits, Positive


@dataclass
class Launch:
    """A backend; `ranks=auto` is one a GPU over NCCL, two over gloo where there is none.

    `interface` is the network that ranks of several machines reach each other by (eth0); found where it is not named.
    `env` names variables of the environment that stages get beside those of launch/backends/environment.py.
    """

    name: str = MISSING
    ranks: str = "auto"
    cpus_per_rank: Positive = 1
    interface: str | None = None
    env: list[str] = items()


@dataclass
class Inline(Launch):
    """No Ray: corpus tasks in one process, ranks as its children. For debuggers and bare GPU machines."""

    name: str = "inline"


@dataclass
class LocalRay(Launch):
    """A Ray on this machine, on loopback; `auth` is Ray's auth mode, disabled or token. `address`: one that runs."""

    name: str = "local"
    address: str | None = None
    auth: str = "disabled"
    dashboard: bool = True
    num_cpus: Positive | None = None
    object_store_mb: Annotated[int, Limits(least=80)] = 200


@dataclass
class Slurm(Launch):
    """A Slurm job that brings up Ray over its nodes and runs the same command in it."""

    name: str = "slurm"
    nodes: Positive = 1
    gpus_per_node: Count = 0
    cpus_per_task: Positive = 4
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str = "01:00:00"
    constraint: str | None = None
    setup: str = ""  # shell lines run first in the job, e.g. 'module load cuda'
    sbatch_extra: list[str] = items()  # further #SBATCH options, e.g. '--exclusive'
    dry_run: bool = False
    max_restarts: Count = 3
