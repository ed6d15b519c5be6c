"""A store to look into: its versions, their numbers, what they were made of, and what they hold.

Nothing here writes to the store, but for notes of how files looked when they were hashed.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmtrain.artifacts import lineage
from fmtrain.artifacts import store as artifacts
from fmtrain.artifacts.fingerprint import differences
from fmtrain.artifacts.manifest import Artifact, Manifest, verify, verify_looks
from fmtrain.artifacts.storage import read_jsonl
from fmtrain.errors import ConfigError
from fmtrain.kinds.base import MODELS
from fmtrain.schema import (
    plugins,
    root,  # noqa: F401  as `plugins.apart` wants it
)
from launch.python.rows import READERS, check_split
from launch.status import DEFAULT_STORE, store_at

if TYPE_CHECKING:
    from fmtrain.generate import Loaded

METRICS = "metrics.jsonl"  # of a training: a row a step
EVALUATION = "evaluation"  # the role in which a published model was given its numbers


class Store:
    """The store in a folder; unless told, FMTRAIN_STORE or ./store, as the command line has it."""

    def __init__(self, path: str | Path | None = None) -> None:
        given = os.environ.get("FMTRAIN_STORE", DEFAULT_STORE) if path is None else str(path)
        self.at: artifacts.Store = store_at(given)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @property
    def path(self) -> Path:
        return self.at.root

    def version(self, ref: str, kind: str | None = None) -> "Version":
        """`NAME@vN`, or of `NAME` the newest; `kind` where artifacts of several kinds have that name."""
        name = ref.partition("@")[0]
        kinds = sorted({a.manifest.kind for a in self.at.artifacts(kind, name)}) if name else []
        if len(kinds) > 1:
            raise ConfigError(
                f"{ref}: {name} is the name of several: {', '.join(kinds)}; say which: version({ref!r}, {kinds[0]!r})"
            )
        every = [kind] if kind else sorted({a.manifest.kind for a in self.at.artifacts()})
        return Version(self, self.at.get(ref, *(kinds or every or ["model"])))

    def versions(self, kind: str | None = None) -> list["Version"]:
        """All there are, of a kind where one is named: corpus, tokenizer, tokens, examples, model, reference,
        evaluation, published, or a plug-in's."""
        return [Version(self, artifact) for artifact in self.at.artifacts(kind)]


@dataclass(frozen=True, repr=False)
class Version:
    """A version of an artifact. `manifest` has all that is recorded of it: counts, metrics, packages, hashes."""

    store: Store
    artifact: Artifact

    def __repr__(self) -> str:
        return f"Version({self.kind} {self.ref}, {str(self.path)!r})"

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def ref(self) -> str:
        return self.artifact.ref

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def path(self) -> Path:
        return self.artifact.path

    def metrics(self) -> list[dict[str, Any]]:
        """Rows for `pandas.DataFrame`: of a training one a step (step, loss, lr, ..), of all others one a number
        (metric, value); of a published model those of the evaluation that was published with it."""
        if METRICS in self.manifest.files:
            verify_looks(self.artifact)
            return list(read_jsonl(self.path / METRICS))
        numbers = self.manifest.metrics
        if not numbers and (parent := self.manifest.parents.get(EVALUATION)):
            known = lineage.manifests(self.store.at).get(parent["fingerprint"])
            numbers = known.metrics if known else {}
        return [{"metric": name, "value": n} for name, n in numbers.items() if isinstance(n, (int, float))]

    def lineage(self) -> list[dict[str, Any]]:
        """Rows for `pandas.DataFrame`: this version and all that it was made of, the nearest first.

        `made_of` maps a role to what filled it. Of what the store no longer has, and of a folder that is no artifact,
        there is the name and the fingerprint; `here` is then false.
        """
        found: dict[str, lineage.Ancestor] = {}
        lineage.climb(self.manifest, lineage.manifests(self.store.at), found)
        table = [
            {
                "ref": one.ref, "kind": one.kind, "fingerprint": one.fingerprint, "stage": one.stage,
                "made_of": {role: parent["ref"] for role, parent in one.parents.items()}, "here": True,
            }
            for one in found.values()
        ]  # fmt: skip
        others = {p["fingerprint"]: p["ref"] for one in found.values() for p in one.parents.values()}
        for fingerprint, ref in others.items():
            if fingerprint not in found:
                kind = "" if re.search(r"@v\d+$", ref) else "folder"
                row = {"ref": ref, "kind": kind, "fingerprint": fingerprint, "stage": "", "made_of": {}, "here": False}
                table.append(row)
        return table

    def differences(self, other: "Version") -> list[str]:
        """The settings and inputs in which `other` was made otherwise, as `path: this -> other`."""
        return differences(self.manifest.payload, other.manifest.payload)

    def verify(self) -> None:
        """Read every file and compare it with the manifest; StoreError names the first that differs."""
        verify(self.artifact)

    def load(self) -> "Loaded":
        """A model and its tokenizer as transformers has them: fp32, on the CPU, in evaluation mode.

        Every byte is compared with the manifest before it is read.
        """
        if self.kind not in MODELS:
            near = [row["ref"] for row in self.lineage() if row["kind"] in MODELS]
            hint = f"; a model that it was made of: {near[0]}" if near else ""
            raise ConfigError(f"{self.ref} is no model, it is of kind {self.kind}: load() wants {_or(MODELS)}{hint}")
        from fmtrain.generate import load

        self.verify()
        with plugins.apart():  # the model's class may be a plug-in's
            plugins.register_found(plugin["module"] for plugin in self.manifest.payload.get("plugins", []))
            return load(self.path)

    def rows(self, split: str | None = None) -> Iterator[dict[str, Any]]:
        """What a corpus, examples or tokens hold, one dict after the other, read while you iterate.

        A corpus gives its documents (split, id, text, group, source, ..), examples their rows (split, form, id,
        group, and messages, or prompt, chosen and rejected), tokens a document's ids (document, shard, tokens).
        `split` is "train" or "heldout"; without it both, one after the other.
        """
        read = READERS.get(self.kind)
        if read is None:
            raise ConfigError(f"{self.ref} holds no rows, it is of kind {self.kind}: rows() wants {_or(READERS)}")
        check_split(self.ref, self.kind, split)
        verify_looks(self.artifact)
        return read(self.path, split)


def _or(names: Any) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
