"""Stage `corpus`: sources -> filtered, deduplicated documents, training and held out, with an account of the rest.

    read and filter (tasks)  ->  exact copies  ->  signatures (tasks) -> buckets (tasks) -> clusters  ->  shards (tasks)

The held-out split is by group and comes before any filter. The result depends on the documents, the settings and the
versions recorded as numerics; not on the number of tasks, the executor, or the order of files.
"""

import gzip
import importlib.metadata
import platform
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from data_pipelines import words
from data_pipelines.dedup import HELDOUT, Deduplicated, deduplicate
from data_pipelines.documents import (
    STEP,
    UNREADABLE,
    Dropped,
    Entry,
    ReadItem,
    check_faults,
    fetch,
    load_parts,
    read_task,
)
from data_pipelines.schedule import Counts, Scheduler, Task, parts_key
from data_pipelines.sources import READERS, deal
from fmtrain.errors import ConfigError, InputError
from fmtrain.run.stage import Stage
from fmtrain.run.worker import Result
from fmtrain.schema.corpus import CorpusJob
from fmtrain.schema.load import identity

SHARD_BYTES = 32_000_000  # of text
ALARM = 0.5  # share of the documents removed as copies from which we say so
_GZIP_LEVEL = 6


@dataclass(frozen=True)
class ShardItem:
    """One file of the artifact and the documents in it."""

    name: str
    entries: list[Entry]


def run(stage: Stage) -> Result:
    job = stage.job_as(CorpusJob)
    tasks = _check(stage, job)
    key = parts_key(
        {
            "job": identity(job),
            "sources": sorted((s.name, s.sha256) for s in stage.sources),
            "tasks": tasks,
            "versions": _versions(),
        }
    )
    with Scheduler(stage, key) as scheduler:
        units = deal(job.data, stage.sources, {s.path: _size(Path(s.path)) for s in stage.sources}, tasks)
        items = [ReadItem(job.data, job.filter, part) for part in units]
        total = len(stage.sources) if job.data.name == "stdlib" else None
        read = _sum(scheduler.run(STEP, read_task, items, unit="documents", total=total))
        entries, dropped = load_parts(scheduler.parts, tasks)
        faults = [f"{d.id}: {d.reason}" for d in dropped if d.reason.startswith(UNREADABLE)]
        check_faults(len(faults), faults, job.data)
        result = deduplicate(scheduler, job.dedup, job.seed, entries)
        dropped += result.dropped
        counts = _counts(read, result.kept, dropped, job)
        _write(stage, scheduler, result.kept, dropped)
    return Result(counts, _metrics(counts, result), _versions())


def _check(stage: Stage, job: CorpusJob) -> int:
    """The number of tasks, once the stage is known to be workable."""
    if job.data.name not in READERS:
        raise ConfigError(f"data.name: {job.data.name!r} holds no documents; give one of {', '.join(sorted(READERS))}")
    if job.data.heldout_modulus < 1:
        raise ConfigError(f"data.heldout_modulus: {job.data.heldout_modulus} is below 1; 20 holds out a twentieth")
    if not stage.sources:
        raise InputError("the corpus has no input file; give some with data.files=[PATH,..], or data=stdlib")
    return max(1, int(stage.resources.get("tasks", 1)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}. Check data.files and the permissions") from None


def _sum(counts: Iterable[Counts]) -> Counts:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(total)


def _counts(read: Counts, kept: list[Entry], dropped: list[Dropped], job: CorpusJob) -> dict[str, int | dict[str, int]]:
    """The account of every record read; what does not add up is our fault, an empty side is the user's to mend."""
    train, heldout = [e for e in kept if not e.heldout], [e for e in kept if e.heldout]
    reasons = Counter(d.reason.split(":")[0] for d in dropped)
    if read["documents"] != len(kept) + len(dropped):
        raise AssertionError(f"read {read['documents']} records, but kept {len(kept)} and dropped {len(dropped)}")
    if not train or not heldout:
        why = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common()) or "nothing was dropped"
        raise InputError(
            f"of {read['documents']} documents {len(train)} are left for training and {len(heldout)} held out; both "
            f"are needed. Dropped: {why}. Give more documents, a filter that fits them (filter={job.filter.name} now; "
            f"filter=none keeps all), or another share held out: data.heldout_modulus={job.data.heldout_modulus} now"
        )
    return {
        "read": read["documents"],
        "bytes_read": read["bytes_read"],
        "train_documents": len(train),
        "train_bytes": sum(e.bytes for e in train),
        "heldout_documents": len(heldout),
        "heldout_bytes": sum(e.bytes for e in heldout),
        UNREADABLE: reasons[UNREADABLE],
        "dropped": dict(sorted(reasons.items())),
        "heldout_near_duplicates": reasons[HELDOUT],
    }


def _metrics(counts: dict[str, int | dict[str, int]], result: Deduplicated) -> dict[str, float]:
    """Shares that tell a filter or a deduplication gone wrong; such a deduplication also says so on stderr."""
    read, kept = counts["bytes_read"], (counts["train_bytes"], counts["heldout_bytes"])
    assert isinstance(read, int) and isinstance(kept[0], int) and isinstance(kept[1], int)
    removed = len(result.dropped) / max(len(result.dropped) + len(result.kept), 1)
    if removed > ALARM:
        print(
            f"warning: {removed:.0%} of the documents that passed the filters were removed as copies; the largest "
            f"cluster has {result.largest_cluster}. dropped.jsonl.gz names what each is a copy of",
            file=sys.stderr,
        )
    return {
        "kept_byte_share": (kept[0] + kept[1]) / max(read, 1),
        "duplicate_share": removed,
        "largest_cluster": float(result.largest_cluster),
    }


def _versions() -> dict[str, str]:
    """What the result's bytes depend on beside the configuration."""
    return {
        "python": platform.python_version(),
        "datatrove": importlib.metadata.version("datatrove"),
        "xxhash": importlib.metadata.version("xxhash"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "words": words.VERSION,
    }


def _write(stage: Stage, scheduler: Scheduler, kept: list[Entry], dropped: list[Dropped]) -> None:
    """The artifact: shards of each side by id, written by tasks, and the dropped documents by id."""
    items = []
    for side in ("train", "heldout"):
        entries = sorted((e for e in kept if e.heldout == (side == "heldout")), key=lambda e: e.id)
        items += [ShardItem(f"{side}/{n:05d}.jsonl.gz", shard) for n, shard in enumerate(_shards(entries))]
    scheduler.run("shards", shard_task, items, unit="shards", total=len(items))
    for item in items:
        target = stage.out / item.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(scheduler.parts / "shards" / item.name, target)
    lines = (_dropped_line(d) for d in sorted(dropped, key=lambda d: d.id))
    _gzip(stage.out / "dropped.jsonl.gz", lines)


def _shards(entries: list[Entry]) -> list[list[Entry]]:
    """Cut where SHARD_BYTES of text are full."""
    shards: list[list[Entry]] = []
    size = SHARD_BYTES
    for entry in entries:
        if size >= SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.bytes
    return shards


def shard_task(task: Task, item: ShardItem) -> Counts:
    path = task.scratch / item.name
    path.parent.mkdir(parents=True)
    _gzip(path, fetch(task.parts, item.entries))
    return {"shards": 1}


def _dropped_line(dropped: Dropped) -> bytes:
    row = {"id": dropped.id, "reason": dropped.reason, "detail": dropped.detail}
    if dropped.duplicate_of:
        row["duplicate_of"] = dropped.duplicate_of
    return orjson.dumps(row) + b"\n"


def _gzip(path: Path, lines: Iterable[bytes]) -> None:
    """The same bytes for the same lines: no time and no name in the header, one level."""
    with open(path, "wb") as f, gzip.GzipFile("", "wb", _GZIP_LEVEL, f, mtime=0) as packed:
        for line in lines:
            packed.write(line)
