"""The first step of a corpus: read, set the held-out documents apart, apply the rules. What a task leaves on disk:

    RANK.kept.jsonl, RANK.index, RANK.*.run   the documents that passed (parts.py), and their order (write.py)
    RANK.dropped.*   what a rule dropped, and why        RANK.quarantine.*   what could not be read
    RANK.account.json   the task's account

Copies are not looked for here. An earlier corpus to deduplicate against passes no rule; its documents are only indexed.
"""

import base64
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash

from data_pipelines import corpus_reader, filters, sources
from data_pipelines.account import Account
from data_pipelines.dedup import runs
from data_pipelines.dedup.keys import normalise, normalise_url
from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.lines import POSITION_BITS, LinesWriter, order_key
from data_pipelines.parts import INDEX
from data_pipelines.schedule import Counts, Task, quiet
from data_pipelines.sources.records import Fault
from data_pipelines.write import ORDER
from fmtrain.artifacts.storage import write_json
from fmtrain.errors import InputError
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema import plugins

_META = ("url", "date", "license")  # what a document of the artifact may carry beside what rules say of it
_PENDING = 4096  # index records written at a time
NAMED = 10_000  # unreadable records of each reason that the quarantine holds, the first; all are counted
SHOWN, BRIEF = 100, 1023  # the first of a reason with all bytes that were kept, the others with so many
_EARLY = 1000  # unreadable records of one task from which it may give up before its end


@dataclass(frozen=True)
class ReadItem:
    """What one task reads; `files` is the number of each input file. `earlier`: shards of an earlier corpus instead."""

    job: CorpusJob
    units: list[sources.Unit]
    files: dict[str, int]
    expected: int | None = None  # records of the whole input, roughly
    earlier: tuple[Path, ...] = ()


class _Out:
    """The files that a task writes."""

    def __init__(self, task: Task, job: CorpusJob, files: ExitStack) -> None:
        def lines(what: str) -> LinesWriter:
            return files.enter_context(LinesWriter(task.scratch, f"{task.rank:05d}.{what}"))

        self.kept, self.dropped, self.quarantine = lines("kept"), lines("dropped"), lines("quarantine")
        path = task.scratch / f"{task.rank:05d}.index"
        index: IO[bytes] = files.enter_context(path.open("wb", 1 << 20))
        self.order = files.enter_context(runs.Writer(task.scratch, f"{task.rank:05d}", ORDER))
        self.index, self.job, self.rank, self.sources = index, job, task.rank, dict[str, int]()
        self.number, self.pending = 0, list[tuple[int | None, bytes]]()
        self.faults = Counter[str]()  # of the unit that is read, by reason
        rules = (getattr(job.filter, name) for name in job.filter.known())
        self.meta = [*_META, *(said for rule in rules for said in getattr(rule, "meta", ()))]

    def keep(self, doc: Document, key: int, *, earlier: bool = False) -> None:
        """Write a document and its index record."""
        row = {"id": doc.id, "text": doc.text, "group": doc.group, "source": doc.source}
        offset, size = self.kept.put(key, row | {k: doc.meta[k] for k in self.meta if doc.meta.get(k) is not None})
        text, steps = doc.text.encode(), self.job.dedup.steps
        record = np.zeros((), INDEX)
        record["file"], record["line"] = key >> POSITION_BITS, key & ((1 << POSITION_BITS) - 1)
        record["source"] = self.sources.setdefault(doc.source, len(self.sources))
        record["offset"], record["size"], record["bytes"] = offset, size, len(text)
        record["text"] = _halves(text)
        if "normalised" in steps:
            record["normal"] = _halves(normalise(doc.text).encode())
        if "url" in steps and doc.meta.get("url"):
            record["url"] = xxhash.xxh3_64_intdigest(normalise_url(doc.meta["url"]).encode()) or 1
        record["id"] = xxhash.xxh3_64_intdigest(doc.id.encode())
        record["group"] = xxhash.xxh3_64_intdigest(doc.group.encode())
        record["date"], record["score"] = int(doc.meta.get("date") or 0), float(doc.meta.get("score") or 0.0)
        record["heldout"] = sources.is_heldout(doc.group, self.job.data.heldout_modulus) and not earlier
        record["earlier"] = earlier
        self.pending.append((None if earlier else key, record.tobytes()))
        if len(self.pending) == _PENDING:
            self.flush()

    def flush(self) -> None:
        """Write the index records that have come together, and where their documents stand in the order of all."""
        if not self.pending:
            return
        self.index.write(b"".join(record for _, record in self.pending))
        placed = [(key, n) for n, (key, _) in enumerate(self.pending, self.number) if key is not None]
        if placed:
            keys, numbers = np.array(placed, np.uint64).T
            self.order.add(ORDER.make(key=keys, rank=self.rank, number=numbers))
        self.number += len(self.pending)
        self.pending.clear()

    def drop(self, doc: Document, key: int, drop: Drop) -> None:
        """Write a row for the ledger; the text is what the rule was given, which earlier rules may have changed."""
        row: dict[str, Any] = {
            "id": doc.id, "source": doc.source, "file": doc.file, "position": doc.line, "url": doc.meta.get("url"),
            "rule": drop.rule, "value": drop.value, "threshold": drop.threshold, "bytes": len(doc.text.encode()),
        }  # fmt: skip
        if self.job.stage.keep_dropped:
            row["text"] = doc.text
        self.dropped.put(key, row)

    def fault(self, fault: Fault, key: int) -> None:
        """Quarantine a fault, unless a unit alone has more of its reason than all of them may name."""
        self.faults[fault.reason] += 1
        if (number := self.faults[fault.reason]) > NAMED:
            return
        data = fault.data if number <= SHOWN else fault.data[:BRIEF]
        self.quarantine.put(
            key,
            {
                "file": fault.file, "line": fault.line, "offset": fault.offset, "reason": fault.reason,
                "detail": fault.detail, "bytes": base64.b64encode(data).decode(),
            },
        )  # fmt: skip


def _halves(data: bytes) -> tuple[int, int]:
    digest = xxhash.xxh3_128_intdigest(data)
    return digest >> 64, digest & ((1 << 64) - 1)


def read_task(task: Task, item: ReadItem) -> Counts:
    """Read and filter the documents of some units."""
    quiet()
    plugins.verify(item.job.plugins)
    account = Account()
    with ExitStack() as files:
        out = _Out(task, item.job, files)
        if item.earlier:
            _index_earlier(task, item, out)
        else:
            _read(task, item, out, account)
        out.flush()
    write_json(task.scratch / f"{task.rank:05d}.sources.json", list(out.sources))
    write_json(task.scratch / f"{task.rank:05d}.account.json", account.as_json())
    return {"documents": account.records, "bytes": account.bytes}


def _read(task: Task, item: ReadItem, out: _Out, account: Account) -> None:
    chain = filters.Chain(item.job.filter, account)
    for record in _records(task, item, account, out.faults):
        if isinstance(record, Fault):
            account.faults[record.reason] += record.records
            out.fault(record, order_key(item.files[record.file], record.offset))
            _give_up_early(account, record, item)
            continue
        key = order_key(item.files[record.file], record.line)
        size = len(record.text.encode())
        account.documents += 1
        account.bytes += size
        source = account.source(record.source)
        source.documents += 1
        source.bytes += size
        drop = chain(record, size)
        account.counts.update(record.counts)
        if drop is not None:
            source.dropped += 1
            out.drop(record, key, drop)
            continue
        out.keep(record, key)
    account.reports.update(chain.reports())


def _records(task: Task, item: ReadItem, account: Account, faults: Counter[str]) -> Iterator[Document | Fault]:
    for unit in item.units:
        faults.clear()
        unit = replace(unit, alive=lambda: task.tick(account.records, account.bytes))
        for record in sources.read(item.job.data, unit, on_hash=account.hashes.add):
            account.records += record.records if isinstance(record, Fault) else 1
            task.tick(account.records, account.bytes)
            yield record


def bad(account: Account) -> int:
    """Records that could not be read and should have been; blank lines are only counted."""
    return account.faults.total() - account.faults["blank_line"]


def _give_up_early(account: Account, fault: Fault, item: ReadItem) -> None:
    """Where one task alone has met more than is allowed of the whole input, the rest need not be read."""
    allowed, met = item.job.data.max_bad_fraction, bad(account)
    if item.expected is not None and met >= _EARLY and met > 2 * allowed * item.expected:
        place = f"{fault.file} at {fault.offset}: {fault.reason} {fault.detail}"
        raise InputError(too_many(account, allowed, [place]))


def too_many(account: Account, allowed: float, places: list[str]) -> str:
    """What to say where more records are unreadable than data.max_bad_fraction allows."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in account.faults.most_common())
    shown = "\n  ".join(places)
    share = bad(account) / max(account.records, 1)
    mend = "Mend the files, or leave them out of data.files"
    if share <= 0.5:
        enough = f"data.max_bad_fraction={_enough(share)}"
        mend = f"Mend the files, leave them out of data.files, or say that so many may be left out: {enough}"
    elif account.faults.most_common(1)[0][0] == "no_text":
        mend = "Say which key holds the text: data.text_key=KEY"
    return (
        f"{bad(account)} of {account.records} records cannot be read ({share:.2%}; {reasons}), more than "
        f"data.max_bad_fraction={allowed} allows:\n  {shown}\n{mend}"
    )


def _enough(share: float) -> float:
    """A round number at least `share`."""
    return min(1.0, next(n for n in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0) if n >= share))


def _index_earlier(task: Task, item: ReadItem, out: _Out) -> None:
    """Documents of an earlier corpus: they stay, whatever copies them."""
    number = 0
    for shard in item.earlier:
        for found in corpus_reader.read_shard(shard):
            out.keep(Document(found.id, found.text, found.group, meta=_of_earlier(found)), number, earlier=True)
            number += 1
            task.tick(number)


def _of_earlier(found: corpus_reader.Document) -> dict[str, Any]:
    return {"url": found.url} if found.url else {}


def place_of(fault: dict[str, Any]) -> str:
    """A quarantined record's place and reason, for messages."""
    line = f" line {fault['line']}," if fault["line"] else ""
    return f"{fault['file']}{line} at {fault['offset']}: {fault['reason']} {fault['detail']}"
