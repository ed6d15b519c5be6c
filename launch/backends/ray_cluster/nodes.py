"""The nodes of a Ray: what they have, and whether each runs what the driver runs.

A rank on a node with other code or another library trains another model, or fails in ways that say nothing of it, so
the versions are compared once, before the first stage.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError, RankLost
from fmtrain.run.ray_logs import failed_starts, last_words

PROBE_WAIT = 120.0  # seconds for a node that is alive to start a first process
TRIES = 2  # workers that end before they have reached Ray; it starts one a processor, and the next a minute later
PROBED = ("ray", "torch", "deepspeed", "transformers", "datatrove")


@dataclass(frozen=True)
class Node:
    """One living node: its name for people, and what it has in all."""

    id: str
    host: str
    address: str
    cpus: int
    gpus: int


def living() -> list[Node]:
    import ray

    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has, host, address = node["Resources"], node["NodeManagerHostname"], node["NodeManagerAddress"]
            found.append(Node(node["NodeID"], host, address, int(has.get("CPU", 0)), int(has.get("GPU", 0))))
    return sorted(found, key=lambda node: (node.host, node.id))


def prober() -> Callable[[], dict[str, str]]:
    """A function that says what a node runs. It goes there by value: there may be no package of ours to name it by."""
    probed = PROBED

    def probe() -> dict[str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import platform

        found = {"Python": platform.python_version()}
        for package in probed:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = "missing"
        for package in ("fmtrain", "data_pipelines", "launch"):
            spec = importlib.util.find_spec(package)
            places = list(spec.submodule_search_locations or []) if spec else []
            digest = hashlib.sha256()
            for root in map(pathlib.Path, places[:1]):
                for path in sorted(root.rglob("*.py")):
                    digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
            found[f"{package}'s code"] = digest.hexdigest()[:12] if places else "missing"
        return found

    return probe


def compare(nodes: list[Node], logs: Path | None) -> None:
    """Ask every node what it runs; ConfigError names each that runs something else, or starts nothing, and what.

    `logs` are Ray's own where it runs on this machine: there it says why its workers do not start.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    own, asked = prober()(), {}
    probe = ray.remote(num_cpus=0, max_retries=2)(prober())
    for node in nodes:
        there = probe.options(name=f"versions:{node.host}", scheduling_strategy=On(node.id, soft=False))
        asked[there.remote()] = f"{node.host} ({node.address})"
    verdicts = []
    for ref in _answered(list(asked), logs):
        try:
            other = ray.get(ref, timeout=0)
        except ray.exceptions.GetTimeoutError:
            verdicts.append(f"{asked[ref]}: started no process of ours within {PROBE_WAIT:.0f} s")
        except ray.exceptions.RayError as e:
            verdicts.append(f"{asked[ref]}: {str(e).strip().splitlines()[0]}")
        else:
            differ = [f"{name} {other.get(name)}, here {has}" for name, has in own.items() if other.get(name) != has]
            verdicts += [f"{asked[ref]}: {'; '.join(differ)}"] if differ else []
    if verdicts:
        lines = "".join(f"\n  {verdict}" for verdict in sorted(verdicts))
        raise ConfigError(
            f"{len(verdicts)} of {len(nodes)} node(s) of this Ray do not run what this driver runs:{lines}\n"
            "Install the same there (checkout, `make install`, Python), or take the node out of the cluster"
        )


def _answered(refs: list[Any], logs: Path | None) -> list[Any]:
    """All of `refs`, when each has an answer or PROBE_WAIT is over; RankLost where workers do not start here."""
    import ray

    deadline = time.monotonic() + PROBE_WAIT
    while time.monotonic() < deadline and ray.wait(refs, num_returns=len(refs), timeout=1.0)[1]:
        if logs is not None and (tries := failed_starts(logs)) >= TRIES:
            raise RankLost(f"Ray's workers do not start on this machine, {tries} tries:{last_words(logs)}")
    if logs is not None and ray.wait(refs, timeout=0)[1]:
        raise RankLost(f"Ray started no worker on this machine within {PROBE_WAIT:.0f} s:{last_words(logs)}")
    return refs


def as_message(nodes: list[Node]) -> list[dict[str, Any]]:
    return [asdict(node) for node in nodes]
