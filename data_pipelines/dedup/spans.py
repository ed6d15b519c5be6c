"""Copies inside documents: paragraphs, lines, repeated substrings, over what document deduplication left.

Each step looks at the documents as they were read, and of equal parts the first in the order of preference stays: what
one step cuts stands where another leaves it alone. What goes is all that any step cut. A document of which nothing is
left goes whole. Held-out text that stands in training text goes, and training text never for held-out text; documents
of the earlier corpus are only looked at.

Who goes whole is decided in the order of preference, and a part counts as a copy only where its keeper, the document
that it first stands in, stays. With `substring_action=drop` that is decided before anything is cut.

    substring: see substring.py; to drop: drops (rank) -> whole; then of what is left
    paragraphs, lines: spans (rank) -> copies (part), by rank; all: empties (rank) -> whole -> cuts (rank)
"""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.dedup import cuts, substring
from data_pipelines.dedup.cuts import (
    CUT,
    Cuts,
    CutsWriter,
    PerRank,
    joined,
    ordinals,
    texts,
    together,
    united,
    without,
)
from data_pipelines.dedup.order import Bits, Corpus
from data_pipelines.dedup.passages import passages
from data_pipelines.dedup.result import ROW, Result
from data_pipelines.dedup.runs import Form, Records, Writer, merge, runs_in, starts
from data_pipelines.parts import Parts
from data_pipelines.schedule import Counts, Scheduler, Task
from data_pipelines.words import SPACE, classes, code_points
from fmtrain.errors import ConfigError
from fmtrain.schema.dedup import Dedup

__all__ = ["STEPS", "Cuts", "cut"]
STEPS = ("paragraphs", "lines", "substring")
RESULT_STEP, EMPTIES = "dedup-spans-result", "dedup-cuts-empties"
DROP_STEP, DROPS = "dedup-substring-drop", "dedup-substring-drops"
SPAN = Form(
    [
        *((name, "<u8") for name in ("key", "check", "ordinal", "row")),
        ("start", "<u4"),
        ("end", "<u4"),
        ("heldout", "u1"),
    ],
    order=("key", "check", "ordinal", "start"),
)
# A document that may go whole: it goes where the spans `start` to `end` of keepers that stay cover all its spans do.
_WHOLE = Form(
    [
        *((name, "<u8") for name in ("ordinal", "row", "keeper")),
        *((name, "<u4") for name in ("start", "end", "place", "size")),
        ("reason", "u1"),
        ("value", "<f4"),
    ],
    order=("ordinal", "start", "place"),
)
_FILE, _KEPT = "gone.rows", "kept.bits"
_CHUNK = 1 << 18


@dataclass(frozen=True)
class SpanItem:
    """`gone` is the file of result.ROW of the steps before; `reasons` name its codes, with ours at the end.

    `step` is the step that is run, or whose runs are looked at; `kept` the bits of rows that must not go.
    """

    corpus: Corpus
    config: Dedup
    gone: Path
    reasons: tuple[str, ...]
    step: str = ""
    kept: Path | None = None

    @property
    def steps(self) -> list[str]:
        """Those that cut."""
        drops = self.config.substring_action == "drop"
        return [step for step in self.config.steps if step in STEPS and not (drops and step == "substring")]


def cut(
    scheduler: Scheduler, config: Dedup, parts: Parts, result: Result, words: str = "fast"
) -> tuple[Result, Cuts | None]:
    """The result of `deduplicate` with the documents that go whole besides, and what is cut from others; None where no
    step is on. `words` names the splitter of substrings."""
    wanted = [step for step in config.steps if step in STEPS]
    if not wanted:
        return result, None
    _check(config)
    corpus = Corpus(parts, sum(int(parts.index(rank)["earlier"].sum()) for rank in range(parts.tasks)))
    item = SpanItem(corpus, config, result.gone, (*result.reasons, *(f"dedup.{step}" for step in wanted)))
    counts = {name: 0 for step in wanted for name in _names(step)}
    if "substring" in wanted:
        substring.find(scheduler, substring.SubstringItem(corpus, result.gone, config.substring_words, words))
    if "substring" not in item.steps and "substring" in wanted:
        scheduler.run(DROPS, drops_task, [item] * parts.tasks, unit="documents")
        [dropped] = scheduler.run(DROP_STEP, whole_task, [replace(item, step=DROPS)])
        counts |= dropped
        folder = scheduler.parts / DROP_STEP
        item = replace(item, gone=folder / _FILE, kept=folder / _KEPT)
    for step in item.steps:
        if step != "substring":
            items = [replace(item, step=step)] * parts.tasks
            scheduler.run(f"dedup-{step}-spans", spans_task, items, unit="documents", total=parts.rows)
            scheduler.run(f"dedup-{step}", copies_task, items, unit="copies")
    scheduler.run(EMPTIES, empties_task, [item] * parts.tasks, unit="documents")
    [emptied] = scheduler.run(RESULT_STEP, whole_task, [replace(item, step=EMPTIES)])
    path = scheduler.parts / RESULT_STEP / _FILE
    for found in [emptied, *scheduler.run(cuts.STEP, cuts_task, [replace(item, gone=path)] * parts.tasks)]:
        counts = {name: count + found.get(name, 0) for name, count in counts.items()}
    changed = replace(result, gone=path, counts=result.counts | counts, reasons=item.reasons)
    return changed, Cuts(scheduler.parts / cuts.STEP, parts)


def _check(config: Dedup) -> None:
    if config.substring_action not in ("cut", "drop"):
        raise ConfigError(f"dedup.substring_action: {config.substring_action!r} is neither 'cut' nor 'drop'")
    for name, least in (("substring_words", 2), ("max_repeats", 1), ("min_paragraph_words", 1)):
        if getattr(config, name) < least:
            raise ConfigError(f"dedup.{name}: {getattr(config, name)} is below {least}; give {least} or more")


# ---------------------------------------------------------------------------------------------- paragraphs and lines


def spans_task(task: Task, item: SpanItem) -> Counts:
    """Runs of one rank's paragraphs or lines."""
    done = 0
    with Writer(task.scratch, f"{task.rank:05d}", SPAN) as runs:
        for text in texts(task.parts, item.corpus, item.gone, task.rank):
            found = passages(text.text, item.step == "paragraphs", item.config.min_paragraph_words)
            columns = dict(zip(("key", "check", "start", "end"), found, strict=True))
            runs.add(SPAN.make(**columns, ordinal=text.ordinal, row=text.row, heldout=text.heldout))
            done += 1
            task.tick(done)
    return {"documents": done, "spans": runs.rows}


def copies_task(task: Task, item: SpanItem) -> Counts:
    """Of one range of keys the parts that are one too many, by rank."""
    spans = runs_in(task.parts / f"dedup-{item.step}-spans")
    with PerRank(task.scratch, f"{task.rank:05d}", CUT, item.corpus.parts) as copies:
        for records in merge(spans, SPAN, part=task.rank, parts=task.world_size):
            bounds = starts(records["key"], records["check"])
            first = np.repeat(bounds[:-1], np.diff(bounds))
            number = np.arange(len(records)) - first
            heldout = records["heldout"] > 0
            goes = (number >= item.config.max_repeats) | (heldout & ~heldout[first])
            goes &= records["ordinal"] >= item.corpus.earlier
            gone = records[goes]
            keeper = records["row"][first[goes]]
            copies.add(CUT.make(row=gone["row"], start=gone["start"], end=gone["end"], keeper=keeper))
            task.tick(copies.rows)
    return {"copies": copies.rows}


# ---------------------------------------------------------------------------------------------- who goes whole


def drops_task(task: Task, item: SpanItem) -> Counts:
    """Of one rank the documents with a repeated substring: they go where all keepers stay."""
    with Writer(task.scratch, f"{task.rank:05d}", _WHOLE) as runs:
        done = 0
        for row, ordinal, per_step, text in _documents(task, item, ["substring"]):
            records = per_step["substring"]
            others = records[records["keeper"] != row]
            if len(others):
                share = _share(text, united(_pairs(others)))
                number = np.arange(len(others))  # spans end to end: not one may be missing
                runs.add(_whole(row, ordinal, others, number, number + 1, item.reasons.index("dedup.substring"), share))
            done += 1
            task.tick(done)
    return {"documents": done}


def empties_task(task: Task, item: SpanItem) -> Counts:
    """Of one rank the documents of which nothing would be left, with their spans, white space not counted."""
    with Writer(task.scratch, f"{task.rank:05d}", _WHOLE) as runs:
        done = 0
        for row, ordinal, per_step, text in _documents(task, item, item.steps):
            spans = np.empty((0, 2), np.int64)
            for step in [step for step in item.steps if step in per_step]:
                spans = united(np.concatenate([spans, _pairs(per_step[step])]))
                if not without(text, spans.tolist()).strip():
                    records = np.concatenate([per_step[step] for step in item.steps if step in per_step])
                    written = np.append(0, np.cumsum(classes()[code_points(text)] != SPACE))
                    starts_, ends = written[_pairs(records)].T
                    runs.add(_whole(row, ordinal, records, starts_, ends, item.reasons.index(f"dedup.{step}"), 1.0))
                    break
            done += 1
            task.tick(done)
    return {"documents": done}


def _documents(task: Task, item: SpanItem, steps: list[str]) -> Iterator[tuple[int, int, dict[str, Records], str]]:
    """Row, ordinal, records of CUT by step, and text of one rank's documents that have copies in them."""
    folder, rank = task.parts, task.rank
    found, *rows = itertools.tee(together(folder, steps, rank), 3)
    numbers = ordinals(folder, item.corpus, rank, (row for row, _ in rows[0]))
    documents = item.corpus.parts.fetch(row for row, _ in rows[1])
    for (row, per_step), ordinal, document in zip(found, numbers, documents, strict=True):
        yield row, ordinal, per_step, document["text"]


def _whole(row: int, ordinal: int, records: Records, start: Any, end: Any, reason: int, value: float) -> Records:
    return _WHOLE.make(
        ordinal=ordinal,
        row=row,
        keeper=records["keeper"],
        start=start,
        end=end,
        place=np.arange(len(records)),
        size=records["end"] - records["start"],
        reason=reason,
        value=value,
    )


def whole_task(task: Task, item: SpanItem) -> Counts:
    """The file of result.ROW with what goes whole, how many by reason; and the bits of rows that others went for.

    Two bits a document in memory. A document that went before in favour of one that goes now gets that one's keeper.
    """
    path = task.scratch / _FILE
    shutil.copyfile(item.gone, path)
    documents = item.corpus.parts.rows
    kept = Bits(np.fromfile(item.kept, np.uint8)) if item.kept else Bits.none(documents)
    counts = {name: 0 for name in item.reasons if name.removeprefix("dedup.") in STEPS}
    if documents:
        rows, gone = np.memmap(path, ROW, "r+"), Bits.none(documents)
        for start in range(0, documents, _CHUNK):
            gone.set(start + np.flatnonzero(rows["reason"][start : start + _CHUNK]))
        for records in merge(runs_in(task.parts / item.step), _WHOLE):
            goes = np.zeros(len(records), np.bool_)
            columns = [np.ascontiguousarray(records[name]) for name in ("row", "keeper", "start", "end", "size")]
            _walk(*columns, gone.octets, kept.octets, goes)
            some = records[goes]
            for name in ROW.names or ():
                rows[name][some["row"].astype(np.int64)] = some[name]
            for code, number in zip(*np.unique(some["reason"], return_counts=True), strict=True):
                counts[item.reasons[code]] += int(number)
            task.tick(sum(counts.values()))
        _rename(rows)
        rows.flush()
    kept.octets.tofile(task.scratch / _KEPT)
    return counts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(row: Any, keeper: Any, start: Any, end: Any, size: Any, gone: Any, kept: Any, goes: Any) -> None:
    """Mark of each document that goes its longest span with a keeper that stays. All spans of one come together."""
    one, three, seven, first = np.uint8(1), np.uint64(3), np.uint64(7), 0
    while first < len(row):
        after, total, reach, named = first, 0, 0, -1
        while after < len(row) and row[after] == row[first]:
            total = max(total, end[after])
            after += 1
        for i in range(first, after):
            if (gone[keeper[i] >> three] >> (keeper[i] & seven)) & one:
                continue
            if start[i] > reach:
                break
            reach = max(reach, end[i])
            if keeper[i] != row[i] and (named < 0 or size[i] > size[named]):
                named = i
        needed = (kept[row[first] >> three] >> (row[first] & seven)) & one
        if reach == total and named >= 0 and not needed:
            goes[named] = True
            gone[row[first] >> three] |= one << (row[first] & seven)
            for i in range(first, after):
                kept[keeper[i] >> three] |= one << (keeper[i] & seven)
        first = after


def _rename(rows: npt.NDArray[Any]) -> None:
    """Put for each keeper that goes its own, which stays: only document deduplication names such."""
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        at = np.flatnonzero(chunk["reason"])
        keepers = chunk["keeper"][at].astype(np.int64)
        lost = np.flatnonzero(rows["reason"][keepers])
        keepers[lost] = rows["keeper"][keepers[lost]]
        chunk["keeper"][at] = keepers


# ---------------------------------------------------------------------------------------------- what is cut


def cuts_task(task: Task, item: SpanItem) -> Counts:
    """One rank's cuts, all steps together, in documents that stay and in favour of documents that stay."""
    counts = {name: 0 for step in item.steps for name in _names(step)}
    gone = np.memmap(item.gone, ROW, "r")["reason"] if item.corpus.parts.rows else np.empty(0, np.uint8)
    with CutsWriter(task.scratch, task.rank) as writer:
        for done, (row, _, per_step, text) in enumerate(_documents(task, item, item.steps), 1):
            if not gone[row]:
                stand = {
                    step: records[gone[records["keeper"].astype(np.int64)] == 0] for step, records in per_step.items()
                }
                writer.add(row, _cuts(text, stand, item, counts))
            task.tick(done)
    return counts


def _cuts(text: str, per_step: dict[str, Records], item: SpanItem, counts: dict[str, int]) -> npt.NDArray[np.int64]:
    """The spans to cut; none where that would leave nothing, of a document that must not go."""
    spans, added = np.empty((0, 2), np.int64), []
    for step in item.steps:
        if step in per_step and len(per_step[step]):
            own = united(_pairs(per_step[step]))
            own = joined(text, own) if step == "substring" else own
            before, spans = spans, united(np.concatenate([spans, own])) if len(spans) else own
            added.append(
                (step, len(without(text, before.tolist()).encode()) - len(without(text, spans.tolist()).encode()))
            )
    if not without(text, spans.tolist()).strip():
        return np.empty((0, 2), np.int64)
    for step, size in added:
        counts[f"{step}.cut_documents"] += size > 0
        counts[f"{step}.cut_bytes"] += size
    return spans


def _names(step: str) -> tuple[str, str, str]:
    """What is counted of a step: documents that went whole, documents cut, bytes cut from them."""
    return f"dedup.{step}", f"{step}.cut_documents", f"{step}.cut_bytes"


def _pairs(records: Records) -> npt.NDArray[np.int64]:
    return np.stack([records["start"], records["end"]], axis=1).astype(np.int64)


def _share(text: str, spans: npt.NDArray[np.int64]) -> float:
    """Of a text's code points, white space left out, those in the spans."""
    written = len("".join(text.split()))
    inside = sum(len("".join(text[start:end].split())) for start, end in spans.tolist())
    return inside / max(written, 1)
