"""Copies inside documents: paragraphs, lines, repeated substrings, over what document deduplication left.

Each step looks at the documents as they were read, and of equal parts the first in the order of preference stays: what
one step cuts stands where another leaves it alone. What goes is all that any step cut. A document of which nothing is
left goes whole. Held-out text that stands in training text goes, and training text never for held-out text; documents
of the earlier corpus are only looked at.

    paragraphs, lines: spans (rank) -> copies (part), by rank; substring: see substring.py; then cuts (rank) -> result
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from data_pipelines.dedup import cuts, substring
from data_pipelines.dedup.cuts import CUT, Cuts, CutsWriter, PerRank, by_row, runs_of, texts, united, without
from data_pipelines.dedup.order import Corpus
from data_pipelines.dedup.result import ROW, Result
from data_pipelines.dedup.runs import Form, Records, Writer, merge, runs_in, starts
from data_pipelines.parts import Parts
from data_pipelines.schedule import Counts, Scheduler, Task
from fmtrain.errors import ConfigError
from fmtrain.schema.dedup import Dedup

__all__ = ["STEPS", "Cuts", "cut"]
STEPS = ("paragraphs", "lines", "substring")
RESULT_STEP = "dedup-spans-result"
SPAN = Form(
    [
        *((name, "<u8") for name in ("key", "check", "ordinal", "row")),
        ("start", "<u4"),
        ("end", "<u4"),
        ("heldout", "u1"),
    ],
    order=("key", "check", "ordinal", "start"),
)
_WHOLE = Form([("row", "<u8"), ("keeper", "<u8"), ("reason", "u1"), ("value", "<f4")], order=("row",))
_FILE = "gone.rows"
_CHUNK = 1 << 18


@dataclass(frozen=True)
class SpanItem:
    """`gone` is the file of result.ROW of document deduplication; `reasons` name its codes, with ours at the end."""

    corpus: Corpus
    config: Dedup
    gone: Path
    reasons: tuple[str, ...]
    step: str = ""

    @property
    def steps(self) -> list[str]:
        return [step for step in self.config.steps if step in STEPS]


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
    reasons = (*result.reasons, *(f"dedup.{step}" for step in wanted))
    item = SpanItem(corpus, config, result.gone, reasons)
    for step in wanted:
        if step == "substring":
            substring.find(scheduler, substring.SubstringItem(corpus, result.gone, config.substring_words, words))
        else:
            items = [replace(item, step=step)] * corpus.parts.tasks
            scheduler.run(f"dedup-{step}-spans", spans_task, items, unit="documents", total=corpus.parts.rows)
            scheduler.run(f"dedup-{step}", copies_task, items, unit="copies")
    done = scheduler.run(cuts.STEP, cuts_task, [item] * corpus.parts.tasks, unit="documents")
    scheduler.run(RESULT_STEP, result_task, [item])
    totals = {name: sum(counts[name] for counts in done) for name in done[0] if name != "documents"}
    path = scheduler.parts / RESULT_STEP / _FILE
    changed = replace(result, gone=path, counts=result.counts | totals, reasons=reasons)
    return changed, Cuts(scheduler.parts / cuts.STEP, corpus.parts)


def _check(config: Dedup) -> None:
    if config.substring_action not in ("cut", "drop"):
        raise ConfigError(f"dedup.substring_action: {config.substring_action!r} is neither 'cut' nor 'drop'")
    for name, least in (("substring_words", 2), ("max_repeats", 1), ("min_paragraph_words", 1)):
        if getattr(config, name) < least:
            raise ConfigError(f"dedup.{name}: {getattr(config, name)} is below {least}; give {least} or more")


# ---------------------------------------------------------------------------------------------- paragraphs and lines


def lines(text: str) -> Iterator[tuple[int, int, int]]:
    """Start and end of every line, and where the next begins."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        stop, start_of_next = (len(text), len(text)) if end < 0 else (end, end + 1)
        yield start, stop, start_of_next
        start = start_of_next


def paragraphs(text: str) -> Iterator[tuple[int, int, int]]:
    """Start and end of every run of lines that are not blank, and where the next begins."""
    begun, last = -1, 0
    for start, end, _ in lines(text):
        if text[start:end].isspace() or start == end:
            continue
        if begun < 0:
            begun = start
        elif text[last:start].count("\n") > 1:
            yield begun, last, start
            begun = start
        last = end
    if begun >= 0:
        yield begun, last, len(text)


def spans_task(task: Task, item: SpanItem) -> Counts:
    """Runs of one rank's paragraphs or lines."""
    parts = paragraphs if item.step == "paragraphs" else lines
    done = 0
    with Writer(task.scratch, f"{task.rank:05d}", SPAN) as runs:
        for text in texts(task.parts, item.corpus, item.gone, task.rank):
            found = [
                (*_key(part), start, after)
                for start, end, after in parts(text.text)
                if len((part := text.text[start:end]).split()) >= item.config.min_paragraph_words
            ]
            if found:
                high, low, start, after = np.array(found, np.uint64).T
                runs.add(
                    SPAN.make(
                        key=high,
                        check=low,
                        ordinal=text.ordinal,
                        row=text.row,
                        start=start,
                        end=after,
                        heldout=text.heldout,
                    )
                )
            done += 1
            task.tick(done)
    return {"documents": done, "spans": runs.rows}


def _key(part: str) -> tuple[int, int]:
    """128 bits of a part's hash; white space around it does not count."""
    found = xxhash.xxh3_128_intdigest(part.strip().encode("utf-8", "surrogatepass"))
    return found >> 64, found & 0xFFFFFFFFFFFFFFFF


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


# ---------------------------------------------------------------------------------------------- what comes of it


def cuts_task(task: Task, item: SpanItem) -> Counts:
    """One rank's cuts, all steps together, and runs of the documents that go whole."""
    counts = {name: 0 for step in item.steps for name in _names(step)}
    found = _together(task.parts, item.steps, task.rank)
    documents = item.corpus.parts.fetch(row for row, _ in _together(task.parts, item.steps, task.rank))
    done = 0
    with CutsWriter(task.scratch, task.rank) as writer, Writer(task.scratch, f"{task.rank:05d}", _WHOLE) as whole:
        for (row, per_step), document in zip(found, documents, strict=True):
            verdict = _judge(document["text"], row, per_step, item, counts)
            if isinstance(verdict, np.ndarray):
                writer.add(row, verdict)
            else:
                step, keeper, value = verdict
                reason = item.reasons.index(f"dedup.{step}")
                whole.add(_WHOLE.make(row=np.array([row]), keeper=keeper, reason=reason, value=value))
                counts[f"dedup.{step}"] += 1
            done += 1
            task.tick(done)
    return {"documents": done, **counts}


def _names(step: str) -> tuple[str, str, str]:
    """What is counted of a step: documents that went whole, documents cut, bytes cut from them."""
    return f"dedup.{step}", f"{step}.cut_documents", f"{step}.cut_bytes"


def _together(folder: Path, steps: list[str], rank: int) -> Iterator[tuple[int, dict[str, Records]]]:
    """Rows in ascending order, and each one's records of CUT by step."""
    streams = {step: by_row(runs_of(folder / f"dedup-{step}", rank), CUT) for step in steps}
    heads = {step: head for step, stream in streams.items() if (head := next(stream, None))}
    while heads:
        row = min(row for row, _ in heads.values())
        yield row, {step: records for step, (at, records) in heads.items() if at == row}
        for step in [step for step, (at, _) in heads.items() if at == row]:
            if following := next(streams[step], None):
                heads[step] = following
            else:
                del heads[step]


def _judge(
    text: str, row: int, per_step: dict[str, Records], item: SpanItem, counts: dict[str, int]
) -> npt.NDArray[np.int64] | tuple[str, int, float]:
    """The spans to cut; or, where the document goes whole, the step, the row it is a copy of, and the share repeated.

    Only what stands in another document makes a document go.
    """
    spans, added = np.empty((0, 2), np.int64), []
    for step in item.steps:
        if step not in per_step:
            continue
        records = per_step[step]
        others = records[records["keeper"] != row]
        if step == "substring" and len(others):
            share = _share(text, united(_pairs(others)))
            if item.config.substring_action == "drop" or share > item.config.substring_drop_share:
                return step, _keeper(others), share
        if step == "substring" and item.config.substring_action == "drop":
            continue
        own = _joined(text, united(_pairs(records))) if step == "substring" else _pairs(records)
        before, spans = spans, united(np.concatenate([spans, own]))
        left = without(text, spans.tolist())
        if (not left or left.isspace()) and len(others):
            return step, _keeper(others), 1.0
        added.append((step, len(without(text, before.tolist()).encode()) - len(left.encode())))
    for step, size in added:
        counts[f"{step}.cut_documents"] += size > 0
        counts[f"{step}.cut_bytes"] += size
    return spans


def _pairs(records: Records) -> npt.NDArray[np.int64]:
    return np.stack([records["start"], records["end"]], axis=1).astype(np.int64)


def _joined(text: str, spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Disjoint spans, those with nothing but white space between them made one."""
    far = [not text[end:start].isspace() for end, start in zip(spans[:-1, 1], spans[1:, 0], strict=True)]
    first = np.flatnonzero([True, *far])
    return np.stack([spans[first, 0], np.append(spans[first[1:] - 1, 1], spans[-1:, 1])], axis=1)


def _keeper(records: Records) -> int:
    """The document that the longest span stands in; of equals the first in the text."""
    return int(records["keeper"][int(np.argmax(records["end"].astype(np.int64) - records["start"]))])


def _share(text: str, spans: npt.NDArray[np.int64]) -> float:
    """Of a text's code points, white space left out, those in the spans."""
    written = len("".join(text.split()))
    inside = sum(len("".join(text[start:end].split())) for start, end in spans.tolist())
    return inside / max(written, 1)


def result_task(task: Task, item: SpanItem) -> Counts:
    """The file of result.ROW with what goes whole; a keeper that goes is replaced by its own, which stays."""
    path = task.scratch / _FILE
    shutil.copyfile(item.gone, path)
    if not item.corpus.parts.rows:
        return {"removed": 0}
    rows, removed = np.memmap(path, ROW, "r+"), 0
    for records in merge(runs_in(task.parts / cuts.STEP), _WHOLE):
        for name in ROW.names or ():
            rows[name][records["row"].astype(np.int64)] = records[name]
        removed += len(records)
    for start in range(0, len(rows) if removed else 0, _CHUNK):
        chunk = rows[start : start + _CHUNK]
        at = np.flatnonzero(chunk["reason"])
        keepers = chunk["keeper"][at].astype(np.int64)
        while len(lost := np.flatnonzero(rows["reason"][keepers])):
            keepers[lost] = rows["keeper"][keepers[lost]]
        chunk["keeper"][at] = keepers
        task.tick(start)
    rows.flush()
    return {"removed": removed}
