"""One command on Ray: room for its ranks, an actor for each, and how they ended.

Ranks on one node stand together. They meet in a file: in this process's memory where all ranks are on its machine,
else in the command's folder of logs, which every node sees.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmtrain.artifacts.ray_logs import failed_starts
from fmtrain.errors import ConfigError, NodesSilent, RankLost
from launch.backends.command import SETTLE, STOP, Command, Failure, meeting, rank_env
from launch.backends.ray_cluster.nodes import Node, living, unanswered
from launch.backends.ray_cluster.rank import Place, Rank, Title

LOOK = 0.5  # seconds that one look for room takes at most
STRICT_WAIT = 10.0  # seconds for a node for each rank; the last command's resources come back within one
TELL_AFTER, TELL_EVERY = 5.0, 60.0  # seconds without room after which we say so, and between two such words
START_WAIT = 120.0  # seconds for an actor that has room to answer


@dataclass(frozen=True)
class Order:
    """A command with the environment that its processes get: `ours` on every node, `lacking` where a node has none.
    It waits for room for `wait` seconds."""

    command: Command
    ours: dict[str, str]
    lacking: dict[str, str]
    wait: float


def as_message(order: Order) -> dict[str, Any]:
    return asdict(order) | {"command": asdict(order.command) | {"log_dir": str(order.command.log_dir)}}


def order_of(message: dict[str, Any]) -> Order:
    given = message["command"]
    command = Command(**{**given, "log_dir": Path(given["log_dir"]), "passed": tuple(given["passed"])})
    return Order(**{**message, "command": command})


@dataclass(frozen=True)
class Joined:
    """The Ray that a run has joined: its nodes then, and its logs where it is ours and runs on this machine."""

    run: str
    nodes: list[Node]
    logs: Path | None


class RayJob:
    """The actors of one command and the futures of their exit codes."""

    def __init__(
        self, order: Order, joined: Joined, say: Callable[..., None], alone: Callable[[], bool] = lambda: True
    ) -> None:
        """`say(text=..)` tells the user; `alone` whether no other command of this run may give room back."""
        import ray

        self.ray, self.command, self.joined = ray, order.command, joined
        self.failed_before = failed_starts(joined.logs) if joined.logs is not None else 0
        self.actors: list[Any] = []
        self.futures: list[Any] = []
        self.hosts: list[str] = []
        self._open = contextlib.ExitStack()
        self._order, self._placing = order, self._room(order, say, alone)

    def placed(self) -> bool:
        """Whether its ranks have been started, after one more look for room."""
        try:
            next(self._placing)
        except StopIteration as found:
            try:
                self._start(found.value, self._order)
            except BaseException:
                self._end()
                raise
            return True
        except BaseException:
            self._end()
            raise
        return False

    def _room(self, order: Order, say: Callable[..., None], alone: Callable[[], bool]) -> Generator[None, None, Any]:
        """A placement group with a bundle for each rank. ConfigError where there is none, at once where there never
        will be; NodesSilent where it may be for nodes that have left."""
        command = order.command
        cpus = 0.001 if command.pool else float(command.cpus)
        bundle = {"CPU": cpus, **({"GPU": float(command.gpus)} if command.gpus else {})}
        what = f"{command.name}: {command.ranks} rank(s) of {cpus:g} CPU(s) and {command.gpus} GPU(s) each"
        nodes = self._fitting(what, cpus)
        # SPREAD alone looks at what is free at this moment, and doubles up on a node where another is still being freed
        if 1 < command.ranks <= len(nodes):
            group = self._group(bundle, "STRICT_SPREAD")
            strictly = time.monotonic() + min(STRICT_WAIT, order.wait)
            while not (found := group.wait(LOOK)) and time.monotonic() < strictly:
                yield
            if found:
                return group
            self.ray.util.remove_placement_group(group)
        group = self._group(bundle, "SPREAD")
        begun = time.monotonic()
        tell = begun + TELL_AFTER
        while not group.wait(LOOK):
            yield
            self._fitting(what, cpus)
            now = time.monotonic()
            begun = begun if alone() else now
            free = self.ray.available_resources()
            left = f"free of it now: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs"
            if now - begun > order.wait:
                raise ConfigError(
                    f"{what} found no room within launch.wait_seconds={order.wait:g}; {left}. Others use this Ray "
                    "(its dashboard and `ray status` tell who); wait longer, or lower launch.ranks or "
                    "launch.cpus_per_rank"
                )
            if now >= tell:
                tell = now + TELL_EVERY
                say(text=f"{what} wait for room in this Ray; {left}")
        return group

    def _fitting(self, what: str, cpus: float) -> list[Node]:
        """The living nodes, which have room for all ranks as soon as nobody else is there."""
        nodes = living()
        if fit(nodes, cpus, self.command.gpus) >= self.command.ranks:
            return nodes
        have = "; ".join(f"{node.host} {node.cpus} CPUs, {node.gpus} GPUs" for node in nodes)
        if left := [node.host for node in self.joined.nodes if node not in nodes]:
            raise NodesSilent(f"{what} do not fit without {', '.join(left)}, gone from this Ray, which has: {have}")
        raise ConfigError(
            f"{what} never fit into this Ray, which has: {have}. Lower launch.ranks or launch.cpus_per_rank"
        )

    def _group(self, bundle: dict[str, float], strategy: str) -> Any:
        group = self.ray.util.placement_group([bundle] * self.command.ranks, strategy=strategy)
        self._open.callback(self.ray.util.remove_placement_group, group)
        return group

    def _start(self, group: Any, order: Order) -> None:
        command = order.command
        strategy = self.ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        bundles = self._bundles(group)
        for rank, (bundle, _) in enumerate(bundles):
            actor = self.ray.remote(Rank).options(
                name=f"{command.name}-rank{rank}-{secrets.token_hex(2)}",
                num_cpus=0.001 if command.pool else float(command.cpus),
                num_gpus=float(command.gpus),
                max_concurrency=2,
                scheduling_strategy=strategy(group, placement_group_bundle_index=bundle),
            )
            self.actors.append(actor.remote(Title(self.joined.run, command.name, rank, command.ranks)))
        places = self._places([host for _, host in bundles])
        self.hosts = [place.host for place in places]
        address = {"RAY_ADDRESS": self.ray.get_runtime_context().gcs_address} if command.pool else {}
        for actor, own in zip(self.actors, self._envs(places), strict=True):
            self.futures.append(actor.run.remote(command, {**order.ours, **address, **own}, order.lacking))

    def _bundles(self, group: Any) -> list[tuple[int, str]]:
        """The bundle of each rank, so that ranks of one node stand together, with that node's name."""
        node_of = self.ray.util.placement_group_table(group)["bundles_to_node_id"]
        nodes = {node.id: node for node in living()}
        at = {bundle: nodes.get(node, Node(node, node, "", 0, 0)) for bundle, node in node_of.items()}
        return [(b, at[b].host) for b in sorted(at, key=lambda b: (at[b].address, at[b].id, b))]

    def _places(self, hosts: list[str]) -> list[Place]:
        """Where the actors are, once all of them run; they are on their way to `hosts`."""
        asked = [actor.where.remote() for actor in self.actors]
        if silent := unanswered(asked, self.joined.logs, START_WAIT, self.failed_before):
            who = ", ".join(f"rank {asked.index(ref)} on {hosts[asked.index(ref)]}" for ref in silent)
            raise NodesSilent(f"{self.command.name}: Ray started no process within {START_WAIT:.0f} s for {who}")
        try:
            return list(self.ray.get(asked))
        except self.ray.exceptions.RayError as e:
            raise RankLost(f"{self.command.name}: Ray lost a rank while it started: {e}") from None

    def _envs(self, places: list[Place]) -> list[dict[str, str]]:
        if len(places) == 1:
            return [{}]
        here = self.ray.get_runtime_context().get_node_id()
        shared = None if {place.node for place in places} == {here} else self.command.log_dir
        return rank_envs(places, self._open.enter_context(meeting(shared)))

    def wait(self, timeout: float) -> list[Failure] | None:
        """As a Job's."""
        _, waiting = self.ray.wait(self.futures, num_returns=len(self.futures), timeout=timeout)
        seen = self._failed()
        if not seen and waiting:
            return None
        if seen and waiting:
            time.sleep(SETTLE)
            seen |= self._failed()
            self.stop(STOP)
        self._end()
        return list(seen.values())

    def _failed(self) -> dict[int, Failure]:
        """The ranks that have ended badly until now."""
        done, _ = self.ray.wait(self.futures, num_returns=len(self.futures), timeout=0)
        found = {}
        for future in done:
            rank = self.futures.index(future)
            try:
                if code := int(self.ray.get(future)):
                    found[rank] = Failure(rank, self.hosts[rank], code)
            except self.ray.exceptions.RayError as e:
                said = next(iter(str(e).strip().splitlines()), type(e).__name__)
                found[rank] = Failure(rank, self.hosts[rank], None, f"its actor in Ray is gone: {said}")
        return found

    def ask(self) -> None:
        """As a Job's."""
        for actor in self.actors:
            actor.stop.remote()

    def stop(self, grace: float) -> None:
        """As a Job's."""
        self.ask()
        if self.futures:  # else it was never placed
            self.ray.wait(self.futures, num_returns=len(self.futures), timeout=grace)
        self._end()

    def _end(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        self.actors = []
        self._open.close()


def fit(nodes: list[Node], cpus: float, gpus: int) -> int:
    """How many ranks these nodes can hold when nothing else runs there."""
    room = 0
    for node in nodes:
        by_gpus = [node.gpus // gpus] if gpus else []
        room += min([int(node.cpus / cpus), *by_gpus])
    return room


def rank_envs(places: list[Place], file: Path) -> list[dict[str, str]]:
    """torch's variables for each rank, from where the actors report to be: ranks of one node stand together.

    Ray shows each actor its own GPU alone; LOCAL_RANK counts over the node's, so every rank is shown all of them.
    """
    nodes = [place.node for place in places]
    envs = []
    for rank, place in enumerate(places):
        gpus = [gpu for other in places if other.node == place.node for gpu in other.gpus]
        local = nodes[:rank].count(place.node), nodes.count(place.node)
        env = rank_env(rank, local[0], len(places), local[1], file, places[0].address)
        envs.append(env | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}))
    return envs
