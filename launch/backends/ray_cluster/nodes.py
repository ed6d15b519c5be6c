"""The nodes of a Ray: what they have, and whether each runs what the driver runs.

A rank on a node with other code or another library trains another model, or fails in ways that say nothing of it, so
the versions are compared once, before the first stage.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmtrain.artifacts.ray_logs import failed_starts, last_words
from fmtrain.errors import ConfigError, NodesSilent, RankLost

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
    """Ask every node what it runs; ConfigError names each that runs something else, and what, NodesSilent those that
    say nothing. `logs` as for `unanswered`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    own, asked = prober()(), {}
    probe = ray.remote(num_cpus=0, max_retries=2)(prober())
    for node in nodes:
        there = probe.options(name=f"versions:{node.host}", scheduling_strategy=On(node.id, soft=False))
        asked[there.remote()] = f"{node.host} ({node.address})"
    silent = {asked[ref]: f"started no process of ours within {PROBE_WAIT:.0f} s"
              for ref in unanswered(list(asked), logs, PROBE_WAIT)}  # fmt: skip
    other = {}
    for ref, who in asked.items():
        if who in silent:
            continue
        try:
            there = ray.get(ref)
        except (ray.exceptions.RayTaskError, ray.exceptions.RuntimeEnvSetupError) as e:  # it cannot do what we ask
            other[who] = str(e).strip().splitlines()[0]
        except ray.exceptions.RayError as e:  # it or its worker is gone
            silent[who] = str(e).strip().splitlines()[0]
        else:
            differ = [f"{name} {there.get(name)}, here {has}" for name, has in own.items() if there.get(name) != has]
            other |= {who: "; ".join(differ)} if differ else {}
    verdicts = "".join(f"\n  {who}: {verdict}" for who, verdict in sorted((other or silent).items()))
    if other:
        raise ConfigError(
            f"{len(other)} of {len(nodes)} node(s) of this Ray do not run what this driver runs:{verdicts}\n"
            "Install the same there (checkout, `make install`, Python), or take the node out of the cluster"
        )
    if silent:
        raise NodesSilent(f"{len(silent)} of {len(nodes)} node(s) of this Ray do not answer:{verdicts}")


def unanswered(refs: list[Any], logs: Path | None, seconds: float, before: int = 0) -> list[Any]:
    """Those of `refs` that have no answer after so many seconds.

    `logs` are Ray's own where it is ours and runs on this machine: there they say why its workers do not start, and
    RankLost tells it as soon as some have tried, more than the `before` of earlier.
    """
    import ray

    deadline = time.monotonic() + seconds
    while (waiting := ray.wait(refs, num_returns=len(refs), timeout=1.0)[1]) and time.monotonic() < deadline:
        if logs is not None and (tries := failed_starts(logs) - before) >= TRIES:
            raise RankLost(f"Ray's workers do not start on this machine, {tries} tries:{last_words(logs)}")
    if waiting and logs is not None:
        raise RankLost(f"Ray started no worker on this machine within {seconds:.0f} s:{last_words(logs)}")
    return list(waiting)


def as_message(nodes: list[Node]) -> list[dict[str, Any]]:
    return [asdict(node) for node in nodes]
