"""The first step of a corpus: read, set the held-out documents apart, filter; and the form its parts have on disk.

A task leaves three files: `RANK.kept.jsonl`, a document a line in the form of the corpus artifact; `RANK.index.jsonl`,
what the later steps need to know of each without its text; `RANK.dropped.jsonl`. Later steps fetch documents from
the first by offset. Duplicates are not looked for here.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson
from datatrove.data import Document

from data_pipelines import filters, sources
from data_pipelines.schedule import Counts, Task, quiet
from data_pipelines.sources.records import Record
from fmtrain.errors import InputError
from fmtrain.schema.corpus import Data, Filter

STEP = "read"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ReadItem:
    """What one task reads."""

    data: Data
    filter: Filter
    units: list[sources.Unit]


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept document without its text: where it came from, where it lies. Sizes in UTF-8 bytes."""

    source: str
    line: int
    id: str
    heldout: bool
    bytes: int  # of the text
    digest: str  # SHA-256 of the text
    rank: int
    offset: int  # of the line in the rank's kept.jsonl
    size: int  # of that line
    renamed: bool = False  # its id was given to another document before it


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that is not in the corpus, and why."""

    source: str
    line: int
    id: str
    reason: str
    detail: str
    duplicate_of: str = ""


class _Sink:
    """Takes what the filters drop: the part of a datatrove exclusion writer that a filter uses."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def write(self, doc: Document, rank: int = 0) -> None:
        record: Record = doc.metadata["record"]
        self.put(record, doc.metadata.get("filter_reason", "filtered"), doc.metadata.get("detail", ""))

    def put(self, record: Record, reason: str, detail: str) -> None:
        self.file.write(orjson.dumps([record.source, record.line, record.id, reason, detail]) + b"\n")


def read_task(task: Task, item: ReadItem) -> Counts:
    """Read and filter the documents of some units."""
    quiet()
    counts: Counts = {"documents": 0, "bytes_read": 0, UNREADABLE: 0, "kept": 0}
    with ExitStack() as files:
        kept, index, dropped = (
            files.enter_context(open(task.scratch / f"{task.rank:05d}.{name}.jsonl", "wb"))
            for name in ("kept", "index", "dropped")
        )
        sink = _Sink(dropped)
        stream: Iterator[Document] = _documents(task, item, counts, sink)
        for step in filters.make(item.filter):
            step.exclusion_writer = sink
            stream = step.run(stream, task.rank, task.world_size)
        offset = 0
        for doc in stream:
            line = orjson.dumps({"id": doc.id, "text": doc.text, "group": doc.metadata["record"].group}) + b"\n"
            kept.write(line)
            index.write(_index_line(doc, item.data.heldout_modulus, offset, len(line)))
            offset += len(line)
            counts["kept"] += 1
    return counts


def _documents(task: Task, item: ReadItem, counts: Counts, sink: _Sink) -> Iterator[Document]:
    """The readable documents of the task's units; the others go to the sink."""
    faults: list[str] = []
    for unit in item.units:
        for record in sources.read(item.data, unit):
            counts["documents"] += 1
            task.tick(counts["documents"])
            if record.fault:
                sink.put(record, f"{UNREADABLE}: {record.fault}", "")
                faults.append(f"{record.id}: {record.fault}")
                check_faults(len(faults), faults, item.data)
                counts[UNREADABLE] += 1
                continue
            counts["bytes_read"] += len(record.text.encode())
            if not record.text.strip():
                sink.put(record, "empty", "no character but white space")
                continue
            yield Document(text=record.text, id=record.id, metadata={"record": record})


def check_faults(count: int, examples: list[str], data: Data) -> None:
    """InputError where more records are unreadable than data.max_bad_rows allows."""
    if count > data.max_bad_rows:
        shown = "\n  ".join(examples[:5])
        raise InputError(
            f"more than data.max_bad_rows={data.max_bad_rows} records cannot be read (at least {count}); the first:\n"
            f"  {shown}\nMend the files, or say that so many may be left out: data.max_bad_rows=N"
        )


def _index_line(doc: Document, modulus: int, offset: int, size: int) -> bytes:
    record: Record = doc.metadata["record"]
    text = doc.text.encode()
    heldout = sources.is_heldout(record.group, modulus)
    digest = hashlib.sha256(text).hexdigest()
    row = [record.source, record.line, record.id, heldout, len(text), digest, offset, size]
    return orjson.dumps(row) + b"\n"


def load_parts(parts: Path, tasks: int) -> tuple[list[Entry], list[Dropped]]:
    """What the tasks kept and dropped, in the order of source and line, each under an id of its own."""
    entries, dropped = [], []
    for rank in range(tasks):
        for source, line, id_, heldout, size, digest, offset, length in _rows(parts / STEP / f"{rank:05d}.index.jsonl"):
            entries.append(Entry(source, line, id_, heldout, size, digest, rank, offset, length))
        for source, line, id_, reason, detail in _rows(parts / STEP / f"{rank:05d}.dropped.jsonl"):
            dropped.append(Dropped(source, line, id_, reason, detail))
    new = _unique_ids([(e.source, e.line, e.id) for e in entries] + [(d.source, d.line, d.id) for d in dropped])
    entries = [replace(e, id=new[_place(e)], renamed=True) if _place(e) in new else e for e in entries]
    dropped = [replace(d, id=new[_place(d)]) if _place(d) in new else d for d in dropped]
    return sorted(entries, key=_place), sorted(dropped, key=_place)


def _place(record: Entry | Dropped) -> tuple[str, int]:
    return record.source, record.line


def _rows(path: Path) -> Iterator[list[Any]]:
    with open(path, "rb") as f:
        yield from map(orjson.loads, f)


def _unique_ids(records: list[tuple[str, int, str]]) -> dict[tuple[str, int], str]:
    """New ids for records whose id stood before, in the order of source and line: `id#2`, `id#3` ..."""
    times = Counter(id_ for _, _, id_ in records)
    taken, new, seen = set(times), {}, set()
    for source, line, id_ in sorted(r for r in records if times[r[2]] > 1):
        if id_ not in seen:
            seen.add(id_)
            continue
        n = 2
        while (candidate := f"{id_}#{n}") in taken:
            n += 1
        taken.add(candidate)
        new[source, line] = candidate
    return new


def fetch(parts: Path, entries: list[Entry]) -> Iterator[bytes]:
    """The documents of `entries` as JSON lines of the corpus artifact, in that order."""
    with ExitStack() as files:
        opened: dict[int, IO[bytes]] = {}
        for entry in entries:
            if entry.rank not in opened:
                path = parts / STEP / f"{entry.rank:05d}.kept.jsonl"
                opened[entry.rank] = files.enter_context(open(path, "rb"))
            line = os.pread(opened[entry.rank].fileno(), entry.size, entry.offset)
            yield orjson.dumps({**orjson.loads(line), "id": entry.id}) + b"\n" if entry.renamed else line
