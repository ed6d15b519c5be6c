"""Config of where a run takes place; never part of an artifact's identity."""

from dataclasses import dataclass
from typing import Annotated

from fmtrain.schema.fields import MISSING, items
from fmtrain.schema.limits import Count, Limits, NotNegative, Positive
from fmtrain.schema.options import options

Ranks = Annotated[str, Limits(pattern="auto|[1-9][0-9]{0,5}", form="auto or a number of ranks", such="2")]


@dataclass
class Launch:
    """A backend; `ranks=auto` is one a GPU over NCCL, two over gloo where there is none.

    `interface` is the network that ranks of several machines reach each other by (eth0); found where it is not named.
    `env` names variables of the environment that stages get beside those of launch/backends/environment.py.
    """

    name: str = MISSING
    ranks: Ranks = "auto"
    cpus_per_rank: Positive = 1
    parallel: Positive = 1  # stages at a time, where none feeds the other and there are processors and GPUs for both
    interface: str | None = None
    env: list[str] = items()
    # that a stage has to save when asked to stop; unless told, until the end is
    grace_seconds: NotNegative | None = None

    def count(self, gpus: int) -> int:
        """How many processes a training takes where there are so many GPUs in all."""
        return self.told or gpus or 2

    @property
    def told(self) -> int | None:
        """The ranks that were asked for; None where that is left to the machine."""
        return None if self.ranks == "auto" else int(self.ranks)


@dataclass
class Inline(Launch):
    """No Ray: corpus tasks in one process, ranks as its children. For debuggers and bare GPU machines."""

    name: str = "inline"


@dataclass
class LocalRay(Launch):
    """A Ray on this machine, on loopback, that asks everyone for a token (`auth`: token or disabled); or the one that
    runs at `address`. What is not set is taken from this machine: its processors, and a twentieth of its memory."""

    name: str = "local"
    address: str | None = None
    auth: str = "token"
    dashboard: bool = True
    num_cpus: Positive | None = None
    object_store_mb: Annotated[int, Limits(least=80)] | None = None  # for tasks and counts; data lie in files
    wait_seconds: Annotated[float, Limits(least=0)] = 3600.0  # for room that others of this Ray hold


@dataclass
class Slurm(Launch):
    """A Slurm job that brings up Ray over its nodes and runs the same command in it."""

    name: str = "slurm"
    nodes: Positive = 1
    gpus_per_node: Count = 0
    gres: str | None = None  # in place of gpus_per_node where a type is wanted, e.g. gpu:a100:4
    cpus_per_task: Positive = 4  # on each node: there is one task a node
    mem: str | None = None  # on each node, e.g. 64G
    exclusive: bool = False
    time: str = "01:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    dependency: str | None = None  # e.g. afterok:1234
    mail_type: str | None = None  # e.g. END,FAIL,REQUEUE
    mail_user: str | None = None
    job_name: str | None = None  # unless told, the recipe and the run
    comment: str | None = None
    output: str | None = None  # a file, %j for the job's number; unless told, in the run's folder
    signal_seconds: Annotated[int, Limits(least=10)] = 90  # from USR1 to the time limit: a step and its checkpoint
    node_wait_seconds: Annotated[int, Limits(least=10)] = 300  # for all nodes to join Ray
    container: list[str] = items()  # a command put before Python on the nodes, e.g. [apptainer,exec,--nv,image.sif]
    setup: str = ""  # shell lines run first in the job, e.g. 'module load cuda'
    sbatch_extra: list[str] = items()  # further #SBATCH options, e.g. '--exclude=n3'
    dry_run: bool = False
    max_restarts: Count = 3  # in a row that end without a step; a turn that gets on, or is preempted, does not count
    wait_seconds: Annotated[float, Limits(least=0)] = 3600.0  # for room that others of this Ray hold


options(Launch, inline=Inline, local=LocalRay, slurm=Slurm)
