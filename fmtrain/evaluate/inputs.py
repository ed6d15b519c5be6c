"""Reads what is evaluated on: held-out documents, SFT rows and preference rows. Knows the artifacts' files; no model.

A limit always takes what hashes lowest by its id, so that a larger limit holds what a smaller one held.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from fmtrain.artifacts.manifest import FILE, read_manifest
from fmtrain.artifacts.model_folder import architectures
from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import read_json, read_jsonl
from fmtrain.errors import InputError, StoreError
from fmtrain.evaluate.records import FunnelLevel
from fmtrain.kinds.evaluate import Scored

T = TypeVar("T")


@dataclass(frozen=True)
class Document:
    """A held-out document."""

    id: str
    text: str

    @property
    def bytes(self) -> int:
        return len(self.text.encode("utf-8"))


@dataclass(frozen=True)
class SftText:
    """An SFT row as text."""

    id: str
    group: str
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class PairText:
    """A preference row as text: a prompt of messages, two responses, and how the rejected one came about."""

    id: str
    group: str
    kind: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str


def task_of(folder: Path) -> Literal["causal", "masked"]:
    """What a model folder is for, by the architecture in its config.json."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: give a Hugging Face model folder")
    names = architectures(read_json(folder / "config.json"))
    return "masked" if any(name.endswith("ForMaskedLM") for name in names) else "causal"


def by_hash(rows: Iterable[T]) -> list[T]:
    """Rows in the order in which a limit takes them: by SHA-256 of their `id`."""
    return sorted(rows, key=lambda r: hashlib.sha256(r.id.encode("utf-8")).digest())  # type: ignore[attr-defined]


def heldout_documents(corpus: Path, max_bytes: int | None) -> list[Document]:
    """Whole held-out documents, sorted by id; under a limit, by hash as many as fit, and always one."""
    found = [d for path in sorted((corpus / "heldout").glob("*.jsonl.gz")) for d in _documents(path) if d.text]
    if max_bytes is not None:
        kept: list[Document] = []
        left = max_bytes
        for document in by_hash(found):
            if not kept or document.bytes <= left:
                kept.append(document)
                left -= document.bytes
        found = kept
    return sorted(found, key=lambda d: d.id)


def funnel(corpus: Path) -> list[FunnelLevel]:
    """What was left of the corpus's input after each of its rules, from its card; empty where it has none."""
    if not (corpus / "card.json").is_file():
        return []
    card = read_json(corpus / "card.json")
    first = FunnelLevel("read", card["documents"], card["bytes"])
    return [first, *(FunnelLevel(x["name"], x["documents_out"], x["bytes_out"]) for x in card["levels"])]


def sft_texts(examples: Path) -> dict[str, SftText]:
    """The held-out SFT rows by id."""
    rows = read_jsonl(examples / "sft.heldout.jsonl")
    return {r["id"]: SftText(r["id"], r["group"], r["messages"]) for r in rows}


def pair_texts(examples: Path) -> dict[str, PairText]:
    """The held-out preference rows by id."""
    rows = read_jsonl(examples / "preference.heldout.jsonl")
    return {r["id"]: PairText(r["id"], r["group"], r["kind"], r["prompt"], r["chosen"], r["rejected"]) for r in rows}


def trained_kinds(examples: Path) -> set[str]:
    """The kinds that occur among the training pairs."""
    return {row["kind"] for row in read_jsonl(examples / "preference.train.jsonl")}


def reference_of(stage: Stage, model: Scored) -> Path | None:
    """The reference that a model was trained against, among those that are given; None where it was against none."""
    given = [stage.input(role) for role in stage.inputs if role.partition(".")[0] == "reference"]
    if model.beta is None or not given:
        return None
    trained = stage.input(model.role)
    if not (trained / FILE).is_file():  # no artifact of a store
        return given[0] if len(given) == 1 else None
    wanted = read_manifest(trained).parents.get("reference", {}).get("fingerprint")
    return next((folder for folder in given if read_manifest(folder).fingerprint == wanted), None)


def limit_a_kind(pairs: Iterable[PairText], limit: int | None) -> list[PairText]:
    """At most `limit` pairs of each kind, by hash; sorted by id."""
    kept: dict[str, list[PairText]] = {}
    for pair in by_hash(pairs):
        kept.setdefault(pair.kind, []).append(pair)
    return sorted((p for of_kind in kept.values() for p in of_kind[:limit]), key=lambda p: p.id)


def _documents(path: Path) -> list[Document]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [Document(row["id"], row["text"]) for row in map(json.loads, lines)]
    except (EOFError, KeyError, TypeError, ValueError, gzip.BadGzipFile, zlib.error) as e:
        raise StoreError(f"{path} is damaged ({e}); remove this version, and the same command makes it again") from e
