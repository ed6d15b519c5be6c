"""`fmtrain models`: the models of a store, published and trained."""

import argparse
import json
import os

from fmtrain.artifacts.manifest import Artifact
from launch.status import store_at
from launch.terminal import table
from launch.verbs.parser import Verbs, add_json, add_store, add_verb


def add(verbs: Verbs) -> None:
    models = add_verb(verbs, "models", _models, "the models of a store, published and trained", only_reads=True)
    add_store(models)
    add_json(models)


def _models(args: argparse.Namespace) -> int:
    store = store_at(args.store)
    found = [a for kind in ("published", "model") for a in store.artifacts(kind)]
    if args.json:
        print(json.dumps([{**_model_row(a), "gone": store.gone(a)} for a in found], indent=1))
    elif not found:
        print(f"no models in {store.root} yet; make one: fmtrain run recipe=quickstart")
    else:
        rows = [("model", "kind", "made", "from", "folder")]
        for a in found:
            parent = a.manifest.parents.get("model", {}).get("ref", "random weights")
            parent += " (gone)" if "model" in store.gone(a) else ""
            rows.append((a.ref, a.manifest.kind, a.manifest.created[:16], parent, os.path.relpath(a.path)))
        print(table(rows))
    return 0


def _model_row(artifact: Artifact) -> dict[str, object]:
    m = artifact.manifest
    return {
        "ref": artifact.ref, "kind": m.kind, "created": m.created, "path": str(artifact.path),
        "fingerprint": m.fingerprint, "parents": m.parents, "metrics": m.metrics, "counts": m.counts,
    }  # fmt: skip
