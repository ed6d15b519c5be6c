"""What a run will do: for every stage reuse, run or resume, why, and how long that may take.

Reads the store, and writes there only how files looked that it has hashed. The fingerprint of a stage is known before
it has run: it is taken of its slice, its sources' content and its parents' fingerprints.
"""

from dataclasses import dataclass, field
from typing import Any

from fmtrain.errors import ConfigError
from fmtrain.redact import shown_in
from fmtrain.run.fingerprint import differences, fingerprint
from fmtrain.run.manifest import Artifact, verify_looks
from fmtrain.run.storage import owner_of
from fmtrain.run.store import Store
from fmtrain.run.worker import RESULT
from fmtrain.schema.load import identity
from fmtrain.schema.training import TrainJob
from launch.code import code_hash
from launch.graph import SPECS, Folder, Graph, Node, Pin

# Seconds of the quickstart's stages on 2 cores, for a store that has no history yet; start-up alone for what scales.
_SECONDS = {"corpus": 12, "tokenizer": 4, "tokens": 4, "examples": 6, "reference": 15, "evaluate": 70, "publish": 1}
_START_UP = 15.0
_CPU_FLOPS = 1.1e11  # fp32, 2 cores, as the quickstart reaches


@dataclass
class Step:
    """A node with its identity and what will be done about it."""

    node: Node
    fingerprint: str
    payload: dict[str, Any]
    action: str  # reuse | run | resume
    reason: str
    seconds: float  # estimate
    artifact: Artifact | None = None
    parents: dict[str, "Step | Artifact | Folder"] = field(default_factory=dict)

    @property
    def code(self) -> str:
        return stage_code(self.node.stage)


def stage_code(stage: str) -> str:
    """The hash of the source behind a stage."""
    return fingerprint([code_hash(module) for module in SPECS[stage].code])[:16]


def plan(graph: Graph, store: Store) -> list[Step]:
    """The steps in order; ConfigError for a pin that does not fit this configuration."""
    steps: dict[str, Step] = {}
    for node in graph.nodes:
        parents = {role: _parent(origin, steps, store) for role, origin in node.parents.items()}
        payload = {
            "stage": node.stage,
            "revision": node.spec.revision,
            "job": identity(node.job),
            "parents": {role: _identity(parent) for role, parent in sorted(parents.items())},
            "sources": sorted(s.identity for s in node.sources),
        }
        step = Step(node, fingerprint(payload), payload, "run", "", 0.0, parents=parents)
        _decide(step, store)
        steps[node.stage] = step
    for node in graph.nodes:
        for origin in node.parents.values():
            if isinstance(origin, Pin):
                _check_pin(origin, steps, store)
    if "dpo" in steps:
        _check_reference(steps["dpo"])
    return list(steps.values())


def _parent(origin: "str | Pin | Folder", steps: dict[str, Step], store: Store) -> "Step | Artifact | Folder":
    if isinstance(origin, Pin):
        return _pinned(origin, store)
    return steps[origin] if isinstance(origin, str) else origin


def _pinned(pin: Pin, store: Store) -> Artifact:
    kinds = ("model", "published") if pin.role == "model" else (pin.role,)
    try:
        return store.get(pin.ref, *kinds)
    except ConfigError as e:
        raise ConfigError(f"{pin.key}={e}") from None


def _identity(parent: "Step | Artifact | Folder") -> str:
    if isinstance(parent, Step):
        return parent.fingerprint
    if isinstance(parent, Artifact):
        return parent.manifest.fingerprint
    return fingerprint(sorted(s.identity for s in parent.files))


def _check_pin(pin: Pin, steps: dict[str, Step], store: Store) -> None:
    """A pinned artifact must be what this configuration would make in its place."""
    if pin.stage is None:
        return
    artifact, step = _pinned(pin, store), steps[pin.stage]
    if artifact.manifest.fingerprint == step.fingerprint:
        return
    different = differences(artifact.manifest.payload, shown_in(step.payload))
    what = different[0] if different else "fingerprint"
    raise ConfigError(
        f"{pin.key}={pin.ref}: {pin.ref} is not what this configuration makes: {what} (pinned -> configured). "
        f"Set that field as it was, pin another version, or leave stages.{pin.stage} out (stages.{pin.stage}=null)."
    )


def _check_reference(dpo: Step) -> None:
    """The reference log-probabilities must be those of the very model and rows that DPO starts from."""
    reference = dpo.parents["reference"]
    assert not isinstance(reference, Folder)
    made_of = (reference.payload if isinstance(reference, Step) else reference.manifest.payload)["parents"]
    for role in ("model", "examples"):
        if made_of[role] != dpo.payload["parents"][role]:
            raise ConfigError(
                f"stages.dpo.inputs.{role} and stages.dpo.inputs.reference do not belong together: the reference was "
                f"made of another {role}; pin stages.reference.inputs.{role} to the same, or leave the pins out"
            )


def _decide(step: Step, store: Store) -> None:
    node = step.node
    found = store.find(node.spec.kind, step.fingerprint)
    if found is not None:
        verify_looks(found)
        notes = ["code changed"] if found.manifest.code != step.code else []
        notes += [f"its {role} {ref} is gone" for role, ref in store.gone(found).items()]
        step.action, step.artifact = "reuse", found
        step.reason = f"{found.ref} ({', '.join(notes)})" if notes else found.ref
        return
    step.reason = _reason(step, store)
    work = store.work(node.spec.kind, step.fingerprint)
    if work is not None and (
        any(work.glob("checkpoints/step-*")) or any(work.glob("parts/*")) or (work / RESULT).is_file()
    ):
        step.action = "resume"
        step.reason = "unfinished work of an earlier run"
        if (work / "code").is_file() and (work / "code").read_text() != step.code:
            step.reason += " (code changed)"
    elif others := store.foreign_work(node.spec.kind, step.fingerprint):
        step.reason += f" (unfinished work of {', '.join(map(owner_of, others))} is passed over)"
    step.seconds = _estimate(step, store)


def _reason(step: Step, store: Store) -> str:
    """The first field in which the newest version of the same name differs."""
    latest = store.latest(step.node.spec.kind, step.node.name)
    if latest is None:
        return "first time"
    different = differences(latest.manifest.payload, shown_in(step.payload))
    own = [d for d in different if not d.startswith("parents.")]
    if own:
        return own[0] + (f" and {len(own) - 1} more" if len(own) > 1 else "")
    roles = sorted({d.split(":")[0].split(".")[1] for d in different})
    return f"new {', '.join(roles)}" if roles else "fingerprint"


def _estimate(step: Step, store: Store) -> float:
    """Seconds: the last time's, scaled by work; without history a guess from the quickstart's figures."""
    latest = store.latest(step.node.spec.kind, step.node.name)
    if not isinstance(step.node.job, TrainJob):
        return latest.manifest.seconds if latest else float(_SECONDS[step.node.stage])
    tokens = _tokens(identity(step.node.job))
    if latest:
        before = max(1, _tokens(latest.manifest.payload["job"]))
        return _START_UP + max(0.0, latest.manifest.seconds - _START_UP) * tokens / before
    model = identity(step.node.job.model) if step.node.job.model else {}
    hidden, layers = model.get("hidden_size", 192), model.get("num_hidden_layers", 3)
    parameters = float(12 * layers * hidden**2 + 4096 * hidden)
    return _START_UP + 6 * parameters * tokens / _CPU_FLOPS


def _tokens(job: dict[str, Any]) -> int:
    """Token positions that a training job works through, at most."""
    stage = job["stage"]
    by_epochs = (stage["max_rows"] or 1000) * (stage["epochs"] or 1)
    rows = stage["steps"] * stage["global_batch_size"] if stage["steps"] else by_epochs
    return int(rows * stage["sequence_length"] * (2 if stage["objective"]["name"] == "dpo" else 1))
