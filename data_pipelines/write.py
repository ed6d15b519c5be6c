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
from data_pipelines.corpus_reader import SPLITS, license_of
from data_pipelines.dedup import runs
from data_pipelines.dedup.cuts import Cuts
from data_pipelines.dedup.result import ROW as GONE
from data_pipelines.dedup.runs import Records
from data_pipelines.lines import POSITION_BITS
from data_pipelines.parts import INDEX, STEP, Parts
from data_pipelines.schedule import Counts, Scheduler, Task
from data_pipelines.words import split
from fmtrain.artifacts.storage import read_json, write_json

# The place of every document that was read, by order_key: written by the read step, a run or more a task.
ORDER = runs.Form([("key", "<u8"), ("rank", "<u4"), ("number", "<u8")], order=("key",))
_IDS = runs.Form([("id", "<u8"), ("key", "<u8")], order=("id", "key"))
LAST = (1 << 64) - 1  # above every key
_PIECE = 1 << 14  # records looked at at a time: INDEX and what reads it take some 300 bytes each
_RANGE = _PIECE * ORDER.dtype.itemsize
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 6


@dataclass(frozen=True)
class Shard:
    """A file of the artifact: documents of a side with a key in [low, high); `renamed`: the keys with another id."""

    name: str
    heldout: bool
    low: int
    high: int
    renamed: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShardItem:
    """What a shard's task needs beside its shard."""

    parts: Parts
    gone: Path
    cuts: Cuts | None
    shard: Shard


@dataclass
class Survey:
    """One pass over all documents: what goes and what stays, by reason and source."""

    reasons: dict[int, tuple[int, int]] = field(default_factory=dict)  # reason -> documents, bytes
    copies: dict[str, int] = field(default_factory=dict)  # source -> documents that went as copies
    kept: dict[bool, tuple[int, int]] = field(default_factory=lambda: {False: (0, 0), True: (0, 0)})  # held out or not
    heldout_copies: int = 0  # held out, and a copy of a training document
    shards: list[Shard] = field(default_factory=list)
    renamed: npt.NDArray[np.uint64] = field(
        default_factory=lambda: np.empty(0, np.uint64)
    )  # keys, sorted; 8 bytes each


def order_runs(parts: Parts) -> list[Path]:
    return runs.runs_in(parts.folder / STEP)


def ordered(parts: Parts, gone: Path) -> Iterator[tuple[Records, Records, Records, npt.NDArray[np.int64]]]:
    """All documents but an earlier corpus's, in order, thousands at a time: ORDER, INDEX, GONE and row of each."""
    for places in runs.merge(order_runs(parts), ORDER, budget=_RANGE):
        index, rows = look_up(parts, places)
        yield places, index, runs.gather(gone, GONE, rows), rows


def look_up(parts: Parts, places: Records) -> tuple[Records, npt.NDArray[np.int64]]:
    """INDEX and row of every record of ORDER; read, not mapped, since mapped pages count as memory."""
    index, numbers = np.empty(len(places), INDEX), places["number"].astype(np.int64)
    for rank in np.unique(places["rank"]):
        mine = places["rank"] == rank
        index[mine] = runs.gather(parts.path(int(rank), "index"), INDEX, numbers[mine])
    return index, parts.base[places["rank"]] + numbers


def survey(parts: Parts, gone: Path, names: list[list[str]], shard_bytes: int, scratch: Path) -> Survey:
    """Count, and cut both sides into shards. `names[rank]` are the rank's sources."""
    found, ends = Survey(), {False: 0, True: 0}
    bounds: dict[bool, list[int]] = {False: [0], True: [0]}
    with runs.Writer(scratch, "ids", _IDS) as ids:
        for places, index, verdict, _ in ordered(parts, gone):
            stays = verdict["reason"] == 0
            ids.add(_IDS.make(id=index["id"][stays], key=places["key"][stays]))
            _count_gone(found, parts, names, places[~stays], index[~stays], verdict[~stays])
            for heldout in (False, True):
                mine = stays & (index["heldout"] == heldout)
                documents, size = found.kept[heldout]
                sizes = index["bytes"][mine].astype(np.int64)
                found.kept[heldout] = documents + len(sizes), size + int(sizes.sum())
                bounds[heldout] += _bounds(places["key"][mine], sizes, ends, heldout, shard_bytes)
    found.renamed = _repeated(runs.runs_in(scratch))
    for side, heldout in zip(SPLITS, (False, True), strict=True):
        found.shards += _shards(side, heldout, bounds[heldout], found)
    return found


def _count_gone(
    found: Survey, parts: Parts, names: list[list[str]], places: Records, index: Records, verdict: Records
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
    pairs = zip(bounds, [*bounds[1:], LAST], strict=True)
    return [
        Shard(f"{side}/{n:05d}.{suffix}", heldout, low, high, _between(found.renamed, low, high))
        for n, (low, high) in enumerate(pairs)
    ]


def _repeated(paths: list[Path]) -> npt.NDArray[np.uint64]:
    """The keys, sorted, of documents whose id a document before them has."""
    found = [np.empty(0, np.uint64)]
    for records in runs.merge(paths, _IDS):
        found.append(records["key"][runs.equal_to_last(records["id"])])
    return np.sort(np.concatenate(found))


def _between(keys: npt.NDArray[np.uint64], low: int, high: int) -> npt.NDArray[np.uint64]:
    first, end = np.searchsorted(keys, np.array([low, high], np.uint64))
    return keys[first:end].copy()


def is_renamed(keys: npt.NDArray[np.uint64], key: int) -> bool:
    at = int(np.searchsorted(keys, np.uint64(key)))
    return at < len(keys) and int(keys[at]) == key


def new_id(given: str, key: int) -> str:
    """An id that no other document has: the given one with the document's place, file number and position."""
    return f"{given}#{key >> POSITION_BITS}:{key & ((1 << POSITION_BITS) - 1)}"


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
            if is_renamed(item.shard.renamed, key):
                document["id"] = new_id(document["id"], key)
            file.write(orjson.dumps(document) + b"\n")
            _account(account, document)
            task.tick(number)
    write_json(task.scratch / f"{task.rank:05d}.account.json", account.as_json())
    return {"shards": 1, "bytes": sum(source.kept_bytes for source in account.sources.values())}


def shard_rows(item: ShardItem) -> tuple[list[int], list[int]]:
    """Keys and rows of a shard's documents, in order; of what else lies between its keys a piece at a time is held."""
    keys, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    bounds = np.array([item.shard.low, item.shard.high], np.uint64)
    for path in order_runs(item.parts):
        low, high = np.searchsorted(np.memmap(path, ORDER.dtype, "r")["key"], bounds).tolist()
        for at in range(low, high, _PIECE):
            places = np.fromfile(path, ORDER.dtype, min(_PIECE, high - at), offset=at * ORDER.dtype.itemsize)
            index, place_rows = look_up(item.parts, places)
            stays = runs.gather(item.gone, GONE, place_rows)["reason"] == 0
            mine = stays & (index["heldout"] == item.shard.heldout)
            keys.append(places["key"][mine])
            rows.append(place_rows[mine])
    whole_keys, whole_rows = np.concatenate(keys), np.concatenate(rows)
    order = np.argsort(whole_keys)
    return whole_keys[order].tolist(), whole_rows[order].tolist()


def _account(account: Account, document: dict[str, Any]) -> None:
    source, size = account.source(document["source"]), len(document["text"].encode())
    source.kept += 1
    source.kept_bytes += size
    license, words = license_of(document), len(split(document["text"]))
    source.kept_words += words
    source.licenses[license] += 1
    source.license_bytes[license] += size
    source.license_words[license] += words
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
