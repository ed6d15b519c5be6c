"""Ray: on this machine or over a Slurm job's nodes. A command's ranks are one plain named actor each.

An actor supervises one process of the command; it holds no state. When the driver dies, so does a Ray that it started
(the kernel kills Ray's processes with it), and with an actor's process the one that it supervises.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError
from fmtrain.run.machine import cpus
from fmtrain.schema.launch import LocalRay, Slurm
from launch.backends.command import Command, Failure, worker_env
from launch.backends.reaper import reaper

PLACEMENT_WAIT = 60.0  # seconds for the cluster to find room for every rank
STRICT_WAIT = 10.0  # seconds for it to find a node for each rank; the last command's resources come back within one


@contextlib.contextmanager
def connect(config: LocalRay | Slurm, run: str) -> Iterator[str]:
    """Connect to the Ray of our Slurm job or at launch.address, or start one for the block; the address of it."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_DEDUP_LOGS="0",
        RAY_worker_niceness="0",  # of 15, Ray's own: a rank is what this machine is for
        RAY_DISABLE_IMPORT_WARNING="1",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    )
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning", "namespace": run}
    with contextlib.ExitStack() as stack:
        if "FMTRAIN_JOB" in os.environ and os.environ.get("RAY_ADDRESS"):
            options["address"] = os.environ["RAY_ADDRESS"]
        elif isinstance(config, LocalRay) and config.address:
            options["address"] = config.address
        elif isinstance(config, LocalRay):
            os.environ.pop("RAY_ADDRESS", None)  # of some other cluster
            options |= _start_options(config)
            stack.enter_context(reaper())
        else:
            raise ConfigError("launch=slurm runs on the Ray of its job, and RAY_ADDRESS is not set; use `fmtrain run`")
        import ray

        handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        ray.init(**options)
        stack.callback(ray.shutdown)
        for number, handler in handlers.items():  # Ray installs its own
            signal.signal(number, handler)
        yield ray.get_runtime_context().gcs_address


def _start_options(config: LocalRay) -> dict[str, Any]:
    """A Ray of our own: loopback only, auth mode said in so many words, small object store."""
    if config.auth not in ("disabled", "token"):
        raise ConfigError(f"launch.auth={config.auth}: expected disabled or token")
    os.environ["RAY_AUTH_MODE"] = config.auth
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # what keeps Ray on loopback; Linux too, whatever its name
    if config.auth == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_urlsafe(32))
    return {
        "address": "local",
        "num_cpus": config.num_cpus or max(2, cpus()),
        "object_store_memory": config.object_store_mb * 1_000_000,
        "include_dashboard": config.dashboard,
        "dashboard_host": "127.0.0.1",
    }


@dataclass(frozen=True)
class Place:
    """Where an actor is: Ray's node, its address, a port free there, its host name, the GPUs given to the actor."""

    node: str
    address: str
    port: int
    host: str
    gpus: list[str]


class Rank:
    """The actor behind one rank: says where it is, runs the process, passes on the wish to stop."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def where(self) -> Place:
        import ray

        address = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            port = int(probe.getsockname()[1])
        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        return Place(ray.get_runtime_context().get_node_id(), address, port, socket.gethostname(), gpus)

    def run(self, argv: list[str], env: dict[str, str], log: str) -> int:
        """The process's exit code. It inherits this node's environment under the command's."""
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                argv,
                env={**os.environ, **env, "FMTRAIN_PARENT": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


class RayJob:
    """The actors of one command and the futures of their exit codes."""

    def __init__(self, command: Command, run: str) -> None:
        import ray

        self.ray = ray
        self.actors: list[Any] = []
        self.hosts: list[str] = []
        self.group: Any = None
        try:
            self._start(command, run)
        except BaseException:
            self._kill()
            raise

    def _start(self, command: Command, run: str) -> None:
        ray = self.ray
        bundle = {
            "CPU": 0.001 if command.pool else float(command.cpus),
            **({"GPU": float(command.gpus)} if command.gpus else {}),
        }
        # SPREAD alone looks at what is free at this moment, and doubles up on a node where another is still being freed
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        one_each = 1 < command.ranks <= nodes
        self.group = ray.util.placement_group(
            [bundle] * command.ranks, strategy="STRICT_SPREAD" if one_each else "SPREAD"
        )
        if one_each and not self.group.wait(STRICT_WAIT):
            ray.util.remove_placement_group(self.group)
            self.group = ray.util.placement_group([bundle] * command.ranks, strategy="SPREAD")
        if not self.group.wait(PLACEMENT_WAIT):
            have = {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")}
            raise ConfigError(
                f"{command.name}: {command.ranks} ranks of {bundle} find no room in this Ray, which has {have}; "
                "lower launch.ranks or launch.cpus_per_rank"
            )
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        for rank in range(command.ranks):
            actor = ray.remote(Rank).options(
                name=f"{command.name}-rank{rank}-{secrets.token_hex(2)}",
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                max_concurrency=2,
                scheduling_strategy=strategy(self.group, placement_group_bundle_index=rank),
            )
            self.actors.append(actor.remote())
        placed = ray.get([a.where.remote() for a in self.actors], timeout=PLACEMENT_WAIT)
        order = sorted(range(command.ranks), key=lambda i: (placed[i].address, placed[i].node, i))
        self.actors = [self.actors[i] for i in order]
        places = [placed[i] for i in order]
        self.hosts = [place.host for place in places]
        envs = rank_envs(places)
        # a node keeps its own environment (Ray's, Slurm's); the command adds to it
        base = {
            k: v
            for k, v in worker_env(command).items()
            if k not in os.environ or k in ("OMP_NUM_THREADS", "PATH", *command.env)
        }
        base["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        self.futures = [
            a.run.remote(command.argv, {**base, **env}, str(command.log(rank)))
            for rank, (a, env) in enumerate(zip(self.actors, envs, strict=True))
        ]

    def wait(self, timeout: float) -> list[Failure] | None:
        """One rank that fails ends the command: the others are stopped and killed."""
        done, waiting = self.ray.wait(self.futures, num_returns=len(self.futures), timeout=timeout)
        failures = [failure for future in done if (failure := self._failure(future)) is not None]
        if not failures and waiting:
            return None
        if waiting:
            self.stop(5.0)
        self._kill()
        return failures

    def stop(self, grace: float) -> None:
        for actor in self.actors:
            actor.stop.remote()
        self.ray.wait(self.futures, num_returns=len(self.futures), timeout=grace)
        self._kill()

    def _failure(self, future: Any) -> Failure | None:
        rank = self.futures.index(future)
        try:
            code = int(self.ray.get(future))
        except self.ray.exceptions.RayActorError as e:
            return Failure(rank, self.hosts[rank], None, str(e))
        return Failure(rank, self.hosts[rank], code) if code else None

    def _kill(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        if self.group is not None:
            self.ray.util.remove_placement_group(self.group)
        self.actors, self.group = [], None


def rank_envs(places: list[Place]) -> list[dict[str, str]]:
    """torch's variables for each rank, from where the actors report to be: ranks of one node stand together.

    Ray shows each actor its own GPU alone; LOCAL_RANK counts over the node's, so every rank is shown all of them.
    """
    if len(places) == 1:
        return [{}]
    nodes = [place.node for place in places]
    envs = []
    for rank, place in enumerate(places):
        gpus = [gpu for other in places if other.node == place.node for gpu in other.gpus]
        envs.append(
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(nodes[:rank].count(place.node)),
                "WORLD_SIZE": str(len(places)),
                "LOCAL_WORLD_SIZE": str(nodes.count(place.node)),
                "MASTER_ADDR": places[0].address,
                "MASTER_PORT": str(places[0].port),
                **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}),
            }
        )
    return envs


class RayBackend:
    executor = "ray"

    def __init__(self, address: str, run: str) -> None:
        import ray

        self.run = run
        resources = ray.cluster_resources()
        nodes = [n for n in ray.nodes() if n["Alive"]]
        self.node_cpus = min(int(n["Resources"].get("CPU", 1)) for n in nodes)
        self.cpus, self.gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        self.notes = [f"Ray at {address}: {len(nodes)} node(s), {self.cpus} CPUs, {self.gpus} GPUs"]
        dashboard = ray._private.worker.global_worker.node.webui_url if ray._private.worker.global_worker.node else ""
        if dashboard:
            self.notes.append(f"dashboard http://{dashboard}")

    def submit(self, command: Command) -> RayJob:
        return RayJob(command, self.run)
