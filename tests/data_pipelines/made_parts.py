"""Documents laid on disk as the read step leaves them, and a scheduler in this process to deduplicate them with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import xxhash

from data_pipelines.dedup.keys import normalise, normalise_url
from data_pipelines.parts import INDEX, Parts
from data_pipelines.schedule import Scheduler
from fmtrain.artifacts.stage import Stage


@dataclass(frozen=True)
class Made:
    """A document and what its index record says of it."""

    id: str
    text: str
    url: str = ""
    date: int = 0
    score: float = 0.0
    heldout: bool = False
    earlier: bool = False


def halves(text: str) -> tuple[int, int]:
    digest = xxhash.xxh3_128_intdigest(text.encode())
    return digest >> 64, digest & (1 << 64) - 1


def make_parts(folder: Path, documents: Sequence[Made], tasks: int = 2) -> Parts:
    """The documents dealt to `tasks` tasks in turn, under `folder`."""
    parts = Parts(folder, tasks)
    (folder / "read").mkdir(parents=True, exist_ok=True)
    for rank in range(tasks):
        mine = list(enumerate(documents))[rank::tasks]
        records = np.zeros(len(mine), INDEX)
        with open(parts.path(rank, "kept.jsonl"), "wb") as lines:
            for record, (line, doc) in zip(records, mine, strict=True):
                row = orjson.dumps({"id": doc.id, "text": doc.text, "group": doc.id, "source": "made"}) + b"\n"
                record["line"], record["offset"], record["size"] = line, lines.tell(), len(row)
                record["bytes"] = len(doc.text.encode())
                record["id"] = record["group"] = xxhash.xxh3_64_intdigest(doc.id)
                record["text"], record["normal"] = halves(doc.text), halves(normalise(doc.text))
                record["url"] = xxhash.xxh3_64_intdigest(normalise_url(doc.url)) if doc.url else 0
                record["date"], record["score"] = doc.date, doc.score
                record["heldout"], record["earlier"] = doc.heldout, doc.earlier
                lines.write(row)
        records.tofile(parts.path(rank, "index"))
    return parts


def make_scheduler(folder: Path) -> Scheduler:
    """One that keeps all it makes under `folder`; tasks run in this process."""
    work, inline = str(folder / "work"), {"executor": "inline"}
    Path(work).mkdir(parents=True, exist_ok=True)
    return Scheduler(Stage("corpus", "corpus", "corpus", "f", "r", {}, {}, {}, [], work, inline, folder), "key")
