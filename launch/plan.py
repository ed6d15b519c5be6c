"""What a run will do: for every stage reuse, run, resume or skip, and why.

Reads the store, and writes there only how files looked that it has hashed. The fingerprint of a stage is known before
it has run: it is taken of its slice, its sources' content and its parents' fingerprints.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from fmtrain.artifacts.fingerprint import differences, fingerprint
from fmtrain.artifacts.manifest import Artifact, verify_looks
from fmtrain.artifacts.storage import owner_of
from fmtrain.artifacts.store import Store
from fmtrain.artifacts.worker import RESULT
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import MODELS, Amount, Kind
from fmtrain.redact import shown_in
from fmtrain.schema import plugins
from fmtrain.schema.load import identity
from fmtrain.schema.training import Shape
from launch.base import check_base
from launch.code import code_hash
from launch.edges import Pin
from launch.graph import Folder, Graph, Node
from launch.reasons import why

LOOKED_AT = 20  # versions of a name, of which the most like it tells why a stage is made
KEPT = ("reuse", "skip")  # actions that make nothing


@dataclass
class Step:
    """A node with its identity and what will be done about it."""

    node: Node
    fingerprint: str
    payload: dict[str, Any]
    action: str  # reuse | run | resume | skip
    reason: str
    seconds: float | None = None  # estimate, by launch.figures; None where there is none
    memory: float | None = None  # bytes of a rank of a training, beside its libraries; by launch.figures
    shape: Shape | None = None  # of the model that it trains or hands on
    amount: Amount | None = None
    megabytes: float | None = None  # of the documents or rows that it descends from; None where nobody knows
    artifact: Artifact | None = None
    parents: dict[str, "Step | Artifact | Folder"] = field(default_factory=dict, repr=False)  # each with its own
    prints: dict[str, str] = field(default_factory=dict)  # role -> the parent's fingerprint

    @property
    def code(self) -> str:
        return code_of(self.node.kind)


def code_of(kind: Kind) -> str:
    """The hash of the source behind a kind of stage."""
    return fingerprint([code_hash(module) for module in kind.code])[:16]


def plan(graph: Graph, store: Store) -> list[Step]:
    """The steps in order; ConfigError for a pin that does not fit this configuration."""
    steps: dict[str, Step] = {}
    for node in graph.nodes:
        parents = {role: _parent(origin, steps, store) for role, origin in node.parents.items()}
        prints = {role: _identity(parent, node.counts.get(role)) for role, parent in parents.items()}
        node.plugins = _with_models(node, parents.values())
        payload = {
            "kind": node.kind.name,
            "revision": node.kind.revision,
            "job": identity(node.job),
            "parents": _unnamed(prints, node.unlabelled),
            "sources": sorted(s.identity for s in node.sources),
            **({"plugins": node.plugins} if node.plugins else {}),
        }
        step = Step(node, fingerprint(payload), payload, "run", "", parents=parents, prints=prints)
        _decide(step, store)
        steps[node.stage] = step
    _spare(list(steps.values()))
    for node in graph.nodes:
        for origin in node.parents.values():
            if isinstance(origin, Pin):
                _check_pin(origin, steps, store)
    for step in steps.values():
        _check_agreement(step)
    for pin, uses in graph.versions.items():
        if (artifact := _pinned(pin, store)).manifest.kind in MODELS and (
            said := check_base(pin.ref, artifact.path, uses)
        ):
            graph.notes.append(said)
    return list(steps.values())


def _with_models(node: Node, parents: Iterable["Step | Artifact | Folder"]) -> list[dict[str, str]]:
    """The plug-ins of a stage, with those that know the class of a model that it reads."""
    given = set[str]()
    for parent in parents:
        if not isinstance(parent, Folder) and _makes(parent) in MODELS:
            given |= {one["module"] for one in _payload(parent).get("plugins", [])}
    known = {one["module"]: one for one in [*map(asdict, plugins.knowing(given)), *node.plugins]}
    return [known[module] for module in sorted(known)]


def _makes(parent: "Step | Artifact") -> str:
    return parent.node.kind.makes if isinstance(parent, Step) else parent.manifest.kind


def _payload(parent: "Step | Artifact") -> dict[str, Any]:
    return parent.payload if isinstance(parent, Step) else parent.manifest.payload


def _unnamed(prints: dict[str, str], unlabelled: set[str]) -> dict[str, str]:
    """Role -> fingerprint, without the names of the stages that an unlabelled role was filled by."""
    found = {role: one for role, one in prints.items() if role.partition(".")[0] not in unlabelled}
    for head in unlabelled:
        ours = sorted(one for role, one in prints.items() if role.partition(".")[0] == head)
        found |= {f"{head}.{n}": one for n, one in enumerate(ours)}
    return dict(sorted(found.items()))


def _parent(origin: "str | Pin | Folder", steps: dict[str, Step], store: Store) -> "Step | Artifact | Folder":
    if isinstance(origin, Pin):
        return _pinned(origin, store)
    return steps[origin] if isinstance(origin, str) else origin


def _pinned(pin: Pin, store: Store) -> Artifact:
    try:
        return store.get(pin.ref, *pin.kinds)
    except ConfigError as e:
        raise ConfigError(f"{pin.key}={e}") from None


def _identity(parent: "Step | Artifact | Folder", counts: Callable[[str], bool] | None) -> str:
    """Of an artifact of which some files alone are read what these hold, as of a folder."""
    if isinstance(parent, Step):
        return parent.fingerprint
    if isinstance(parent, Artifact):
        files = parent.manifest.files if counts else {}
        known = sorted([name, file["bytes"], file["sha256"]] for name, file in files.items() if counts and counts(name))
        return fingerprint(known) if counts else parent.manifest.fingerprint
    return fingerprint(sorted(s.identity for s in parent.files))


def _check_pin(pin: Pin, steps: dict[str, Step], store: Store) -> None:
    """An artifact of the stage that it is taken in the place of must be what this configuration makes there."""
    if pin.stage is None:
        return
    artifact, step = _pinned(pin, store), steps.get(pin.stage)
    if step is None or artifact.manifest.stage != pin.stage or artifact.manifest.fingerprint == step.fingerprint:
        return
    different = differences(artifact.manifest.payload, shown_in(step.payload))
    what = different[0] if different else "fingerprint"
    raise ConfigError(
        f"{pin.key}={pin.ref}: {pin.ref} is not what this configuration makes: {what} (pinned -> configured). "
        f"Set that field as it was, pin another version, or leave stages.{pin.stage} out (stages.{pin.stage}=null)."
    )


def _check_agreement(step: Step) -> None:
    """Reference log-probabilities must be those of the very model and rows that a training starts from."""
    key = f"stages.{step.node.stage}.inputs"
    for role, parent, shared in [
        (role, parent, step.node.agrees.get(role.partition(".")[0], ())) for role, parent in step.parents.items()
    ]:
        if not shared:
            continue
        assert not isinstance(parent, Folder)
        made_of = _payload(parent).get("parents", {})
        for other in shared:
            if made_of.get(other) != step.payload["parents"].get(other):
                raise ConfigError(
                    f"{key}.{other} and {key}.{role} do not belong together: the {role} was made of another {other}; "
                    f"give its stage the same inputs.{other}, or leave these out"
                )


def _decide(step: Step, store: Store) -> None:
    node = step.node
    found = store.find(node.kind.makes, step.fingerprint, node.name)
    if found is not None:
        verify_looks(found)
        notes = ["code changed"] if found.manifest.code != step.code else []
        notes += [f"to be called {node.name} too"] if found.manifest.name != node.name else []
        notes += [f"its {role} {ref} is gone" for role, ref in store.gone(found).items()]
        step.action, step.artifact = "reuse", found
        step.reason = f"{found.ref} ({', '.join(notes)})" if notes else found.ref
        return
    now, versions = shown_in(step.payload), [a.manifest for a in store.artifacts(node.kind.makes, node.name)]
    near = min(reversed(versions[-LOOKED_AT:]), key=lambda one: len(differences(one.payload, now)), default=None)
    are = {role: parent.ref for role, parent in step.parents.items() if isinstance(parent, Folder)}
    were = {role: parent["ref"] for role, parent in near.parents.items()} if near else {}
    step.reason = "first time" if near is None else why(near.payload, now, were, are)
    work = store.work(node.kind.makes, step.fingerprint)
    if work is not None and (
        any(work.glob("checkpoints/step-*")) or any(work.glob("parts/*")) or (work / RESULT).is_file()
    ):
        step.action = "resume"
        step.reason = "unfinished work of an earlier run"
        if (work / "code").is_file() and (work / "code").read_text() != step.code:
            step.reason += " (code changed)"
    elif others := store.foreign_work(node.kind.makes, step.fingerprint):
        step.reason += f" (unfinished work of {', '.join(map(owner_of, others))} is passed over)"


def _spare(steps: list[Step]) -> None:
    """What is gone, and went into nothing but what is reused, is not made again."""
    for step in reversed(steps):
        takers = [other for other in steps if any(parent is step for parent in other.parents.values())]
        if step.action not in KEPT and takers and all(other.action in KEPT for other in takers):
            step.action, step.reason = "skip", "gone, and what was made of it is reused"
