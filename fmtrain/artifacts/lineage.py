"""What an artifact was made of, as far back as a store tells. Knows manifests, and no files."""

from dataclasses import dataclass, field

from fmtrain.artifacts.manifest import Manifest
from fmtrain.artifacts.store import Store


@dataclass
class Ancestor:
    """An artifact that went into another; `parents` maps a role to {ref, fingerprint}."""

    kind: str
    ref: str
    fingerprint: str
    stage: str
    parents: dict[str, dict[str, str]] = field(default_factory=dict)
    data: str | None = None  # the kind of data source, for a stage that reads one


def manifests(store: Store) -> dict[str, Manifest]:
    """Every artifact of the store, by fingerprint."""
    return {a.manifest.fingerprint: a.manifest for a in store.artifacts()}


def climb(found: Manifest, known: dict[str, Manifest], ancestors: dict[str, Ancestor]) -> None:
    """Add `found` and what it was made of to `ancestors`, by fingerprint, breadth first."""
    waiting = [found]
    while waiting:
        one = waiting.pop(0)
        if one.fingerprint in ancestors:
            continue
        ancestors[one.fingerprint] = Ancestor(
            one.kind, one.ref, one.fingerprint, one.stage, dict(sorted(one.parents.items())), _data(one)
        )
        waiting += [known[p["fingerprint"]] for _, p in sorted(one.parents.items()) if p.get("fingerprint") in known]


def _data(found: Manifest) -> str | None:
    """The name of the data source in the frozen configuration of a stage that reads one."""
    job = found.payload.get("job")
    data = job.get("data") if isinstance(job, dict) else None
    return str(data["name"]) if isinstance(data, dict) and "name" in data else None
