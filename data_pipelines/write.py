"""The last step of a corpus: what stays, in the order of the input, as files of the artifact.

    train/00000.jsonl.zst    heldout/00000.jsonl.gz    a document a line: id, text, group, source, what is known of it

Held-out text is gzip because the training wing, which reads it, may have no zstandard. The order is that of the input
files' names and of the records in them; tasks, and how files are split among them, do not change a byte.
"""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from data_pipelines.account import Account, account_from, total
from data_pipelines.dedup import runs
from data_pipelines.dedup.cuts import Cuts
from data_pipelines.dedup.result import ROW as GONE
from data_pipelines.parts import INDEX, STEP, Parts
from data_pipelines.schedule import Counts, Scheduler, Task
from fmtrain.run.storage import read_json, write_json

# The place of every document that was read, by order_key: written by the read step, a run or more a task.
ORDER = runs.Form([("key", "<u8"), ("rank", "<u4"), ("number", "<u8")], order=("key",))
_IDS = runs.Form([("id", "<u8"), ("key", "<u8")], order=("id", "key"))
SIDES = ("train", "heldout")
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 6


@dataclass(frozen=True)
class Shard:
    """A file of the artifact: the documents of a side whose key lies in [low, high); `new_ids`: key -> id's number."""

    name: str
    heldout: bool
    low: int
    high: int
    new_ids: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardItem:
    """What a shard's task needs beside its shard."""

    parts: Parts
    gone: Path
    cuts: Cuts | None
    shard: Shard


@dataclass
class Survey:
    """One pass over all documents: what goes and what stays, by reason and source; nothing of it grows with them."""

    reasons: dict[int, tuple[int, int]] = field(default_factory=dict)  # reason -> documents, bytes
    copies: dict[str, int] = field(default_factory=dict)  # source -> documents that went as copies
    kept: dict[bool, tuple[int, int]] = field(default_factory=lambda: {False: (0, 0), True: (0, 0)})  # held out or not
    heldout_copies: int = 0  # held out, and a copy of a training document
    shards: list[Shard] = field(default_factory=list)
    new_ids: dict[int, int] = field(default_factory=dict)


def order_runs(parts: Parts) -> list[Path]:
    return runs.runs_in(parts.folder / STEP)


def ordered(parts: Parts, gone: Path) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]:
    """All documents but those of an earlier corpus, in order, thousands at a time: ORDER, INDEX and GONE of each."""
    verdicts = np.memmap(gone, GONE, "r") if parts.rows else np.empty(0, GONE)
    for places in runs.merge(order_runs(parts), ORDER):
        index, rows = look_up(parts, places)
        stays = ~index["earlier"]
        yield places[stays], index[stays], verdicts[rows[stays]]


def look_up(parts: Parts, places: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """INDEX and row of every record of ORDER."""
    index, numbers = np.empty(len(places), INDEX), places["number"].astype(np.int64)
    for rank in np.unique(places["rank"]):
        mine = places["rank"] == rank
        index[mine] = parts.index(int(rank))[numbers[mine]]
    return index, parts.base[places["rank"]] + numbers


def survey(parts: Parts, gone: Path, names: list[list[str]], shard_bytes: int, scratch: Path) -> Survey:
    """Count, and cut both sides into shards. `names[rank]` are the rank's sources."""
    found, ends = Survey(), {False: 0, True: 0}
    bounds: dict[bool, list[int]] = {False: [0], True: [0]}
    verdicts = np.memmap(gone, GONE, "r") if parts.rows else np.empty(0, GONE)
    with runs.Writer(scratch, "ids", _IDS) as ids:
        for places, index, verdict in ordered(parts, gone):
            stays = verdict["reason"] == 0
            ids.add(_IDS.make(id=index["id"][stays], key=places["key"][stays]))
            _count_gone(found, parts, names, places[~stays], index[~stays], verdict[~stays], verdicts)
            for heldout in (False, True):
                mine = stays & (index["heldout"] == heldout)
                documents, size = found.kept[heldout]
                sizes = index["bytes"][mine].astype(np.int64)
                found.kept[heldout] = documents + len(sizes), size + int(sizes.sum())
                bounds[heldout] += _bounds(places["key"][mine], sizes, ends, heldout, shard_bytes)
    found.new_ids = _new_ids(runs.runs_in(scratch))
    for side, heldout in zip(SIDES, (False, True), strict=True):
        found.shards += _shards(side, heldout, bounds[heldout], found)
    return found


def _count_gone(
    found: Survey, parts: Parts, names: list[list[str]], places: Any, index: Any, verdict: Any, verdicts: Any
) -> None:
    for reason in np.unique(verdict["reason"]).tolist():
        mine = verdict["reason"] == reason
        documents, size = found.reasons.get(reason, (0, 0))
        found.reasons[reason] = documents + int(mine.sum()), size + int(index["bytes"][mine].sum())
    for rank, source in zip(places["rank"].tolist(), index["source"].tolist(), strict=True):
        name = names[rank][source]
        found.copies[name] = found.copies.get(name, 0) + 1
    for keeper in verdict["keeper"][index["heldout"]].tolist():
        rank, number = parts.place(keeper)
        found.heldout_copies += not parts.index(rank)[number]["heldout"]


def _bounds(
    keys: npt.NDArray[np.uint64], sizes: npt.NDArray[np.int64], ends: dict[bool, int], heldout: bool, shard_bytes: int
) -> list[int]:
    """The keys at which a new shard begins: where `shard_bytes` of text are full."""
    before = ends[heldout] + np.concatenate([[0], np.cumsum(sizes)])
    ends[heldout] = int(before[-1])
    number = before[:-1] // shard_bytes
    previous = np.concatenate([[(before[0] - 1) // shard_bytes if before[0] else 0], number[:-1]])
    return [int(key) for key in keys[number > previous]]


def _shards(side: str, heldout: bool, bounds: list[int], found: Survey) -> list[Shard]:
    if not found.kept[heldout][0]:
        return []
    suffix = "jsonl.gz" if heldout else "jsonl.zst"
    pairs = zip(bounds, [*bounds[1:], 1 << 64], strict=True)
    return [
        Shard(
            f"{side}/{n:05d}.{suffix}", heldout, low, high, {k: v for k, v in found.new_ids.items() if low <= k < high}
        )
        for n, (low, high) in enumerate(pairs)
    ]


def _new_ids(paths: list[Path]) -> dict[int, int]:
    """Key -> n for the n-th document (n > 1) of an id that several documents have, in their order."""
    new: dict[int, int] = {}
    for records in runs.merge(paths, _IDS):
        bounds = runs.starts(records["id"])
        for start, end in zip(bounds[:-1][np.diff(bounds) > 1], bounds[1:][np.diff(bounds) > 1], strict=True):
            new |= {int(key): n for n, key in enumerate(records["key"][start + 1 : end], start=2)}
    return new


def write(
    scheduler: Scheduler, parts: Parts, gone: Path, cuts: Cuts | None, found: Survey
) -> tuple[Account, dict[bool, int]]:
    """Write all shards into the step's folder; what they hold, as it was written, and the bytes of either side."""
    items = [ShardItem(parts, gone, cuts, shard) for shard in found.shards]
    counts = scheduler.run("shards", shard_task, items, unit="shards", total=len(items))
    sizes = {False: 0, True: 0}
    for shard, count in zip(found.shards, counts, strict=True):
        sizes[shard.heldout] += count["bytes"]
    folder = scheduler.parts / "shards"
    return total(account_from(read_json(folder / f"{rank:05d}.account.json")) for rank in range(len(items))), sizes


def shard_task(task: Task, item: ShardItem) -> Counts:
    path = task.scratch / item.shard.name
    path.parent.mkdir(parents=True)
    account, rows = Account(), shard_rows(item)
    with _packed(path) as file:
        for number, (key, row, document) in enumerate(zip(*rows, item.parts.fetch(rows[1]), strict=True)):
            if item.cuts is not None:
                document["text"] = item.cuts.apply(row, document["text"])
            if key in item.shard.new_ids:
                document["id"] = f"{document['id']}#{item.shard.new_ids[key]}"
            file.write(orjson.dumps(document) + b"\n")
            _account(account, document)
            task.tick(number)
    write_json(task.scratch / f"{task.rank:05d}.account.json", account.as_json())
    return {"shards": 1, "bytes": sum(source.kept_bytes for source in account.sources.values())}


def shard_rows(item: ShardItem) -> tuple[list[int], list[int]]:
    """Keys and rows of a shard's documents, in order."""
    verdicts = np.memmap(item.gone, GONE, "r")
    found = []
    for path in order_runs(item.parts):
        run = np.memmap(path, ORDER.dtype, "r")
        low, high = np.searchsorted(
            run["key"], [np.uint64(item.shard.low), np.uint64(min(item.shard.high, (1 << 64) - 1))]
        )
        found.append(np.array(run[low:high]))
    places = ORDER.sort(np.concatenate(found))
    index, rows = look_up(item.parts, places)
    mine = (index["heldout"] == item.shard.heldout) & ~index["earlier"] & (verdicts["reason"][rows] == 0)
    return [int(k) for k in places["key"][mine]], [int(r) for r in rows[mine]]


def _account(account: Account, document: dict[str, Any]) -> None:
    source, size = account.source(document["source"]), len(document["text"].encode())
    source.kept += 1
    source.kept_bytes += size
    source.licenses[str(document.get("license") or "unknown")] += 1
    if "language" in document:
        account.languages[document["language"]] += 1


@contextmanager
def _packed(path: Path) -> Iterator[IO[bytes]]:
    """A file whose bytes depend on what is written to it alone: no time and no name in a header."""
    with open(path, "wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        else:
            with zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).stream_writer(raw) as stream:
                yield cast(IO[bytes], stream)
