"""Repeated substrings (Lee et al. 2022, section 4.1): spans of so many words that stand elsewhere word for word.

Lee et al. sort all suffixes. Here every window of n words has a hash, and only windows that can be copies are sorted at
all. Winnowing (Schleimer et al. 2003) chooses in each window of n words one of its spans of n/2 words, by the spans'
hashes alone: equal windows choose equal spans. So first the chosen spans are sorted, one for some n/4 words; then the
windows whose span stands elsewhere too. Of equal windows the first in the order of preference, then in the text, stays.
What is cut is compared word by word before. White space between words does not count.

    anchors (rank) -> repeated anchors (part) -> windows (rank) -> copies (part) -> cuts (rank)
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.cuts import CUT, PerRank, by_row, runs_of, texts
from data_pipelines.dedup.order import Corpus
from data_pipelines.dedup.runs import Form, Writer, merge, runs_in, starts
from data_pipelines.grams import grams
from data_pipelines.schedule import Counts, Scheduler, Task
from data_pipelines.words import Words, code_points, splitter

STEP = "dedup-substring"
ANCHOR = Form([("key", "<u8"), ("row", "<u8"), ("at", "<u4"), ("ordinal", "<u8")], order=("key", "row", "at"))
_MARK = Form([("row", "<u8"), ("at", "<u4"), ("ordinal", "<u8")], order=("row", "at"))
WINDOW = Form([("key", "<u8"), ("ordinal", "<u8"), ("at", "<u4"), ("row", "<u8")], order=("key", "ordinal", "at"))
_COPY = Form([("row", "<u8"), ("at", "<u4"), ("keeper", "<u8"), ("there", "<u4")], order=("row", "at"))
_KEPT_TEXTS = 64  # of keepers, split, at hand
_KEPT_CHARACTERS = 8_000_000


@dataclass(frozen=True)
class SubstringItem:
    """`gone` is the file of result.ROW: what document deduplication left is looked at."""

    corpus: Corpus
    gone: Path
    words: int
    splitter: str = "fast"


def find(scheduler: Scheduler, item: SubstringItem) -> str:
    """Run all steps; the step whose folder holds the runs of CUT, by rank."""
    items, rows = [item] * item.corpus.parts.tasks, item.corpus.parts.rows
    scheduler.run(f"{STEP}-anchors", anchors_task, items, unit="documents", total=rows)
    scheduler.run(f"{STEP}-repeated", repeated_task, items, unit="anchors")
    scheduler.run(f"{STEP}-windows", windows_task, items, unit="windows")
    scheduler.run(f"{STEP}-copies", copies_task, items, unit="copies")
    scheduler.run(STEP, cuts_task, items, unit="cuts")
    return STEP


def anchors_task(task: Task, item: SubstringItem) -> Counts:
    """Runs of the spans that winnowing chooses in one rank's documents."""
    split, done = splitter(item.splitter), 0
    with Writer(task.scratch, f"{task.rank:05d}", ANCHOR) as runs:
        for text in texts(task.parts, item.corpus, item.gone, task.rank):
            keys, chosen = anchors(split(text.text).hashes, item.words)
            if len(chosen):
                at = np.unique(chosen)
                runs.add(ANCHOR.make(key=keys[at], row=text.row, at=at, ordinal=text.ordinal))
            done += 1
            task.tick(done)
    return {"documents": done, "anchors": runs.rows}


def repeated_task(task: Task, item: SubstringItem) -> Counts:
    """Of one range of keys the spans that stand more than once, by rank."""
    anchors_ = runs_in(task.parts / f"{STEP}-anchors")
    with PerRank(task.scratch, f"{task.rank:05d}", _MARK, item.corpus.parts) as marks:
        for records in merge(anchors_, ANCHOR, part=task.rank, parts=task.world_size):
            sizes = np.diff(starts(records["key"]))
            again = records[np.repeat(sizes > 1, sizes)]
            marks.add(_MARK.make(row=again["row"], at=again["at"], ordinal=again["ordinal"]))
            task.tick(marks.rows)
    return {"anchors": marks.rows}


def windows_task(task: Task, item: SubstringItem) -> Counts:
    """Runs of the windows of one rank's documents whose chosen span stands more than once."""
    split, paths = splitter(item.splitter), runs_of(task.parts / f"{STEP}-repeated", task.rank)
    rows = (row for row, _ in by_row(paths, _MARK))
    with Writer(task.scratch, f"{task.rank:05d}", WINDOW) as runs:
        documents = item.corpus.parts.fetch(rows)
        for (row, marks), document in zip(by_row(paths, _MARK), documents, strict=True):
            hashes = split(document["text"]).hashes
            _, chosen = anchors(hashes, item.words)
            at = np.flatnonzero(np.isin(chosen, marks["at"]))
            keys = grams(hashes, item.words)[at]
            runs.add(WINDOW.make(key=keys, ordinal=marks["ordinal"][0], at=at, row=row))
            task.tick(runs.rows)
    return {"windows": runs.rows}


def copies_task(task: Task, item: SubstringItem) -> Counts:
    """Of one range of keys the windows that are not the first with theirs, and which is; by rank."""
    windows = runs_in(task.parts / f"{STEP}-windows")
    with PerRank(task.scratch, f"{task.rank:05d}", _COPY, item.corpus.parts) as copies:
        for records in merge(windows, WINDOW, part=task.rank, parts=task.world_size):
            bounds = starts(records["key"])
            first = np.repeat(bounds[:-1], np.diff(bounds))
            goes = np.flatnonzero((first != np.arange(len(records))) & (records["ordinal"] >= item.corpus.earlier))
            kept = records[first[goes]]
            copies.add(
                _COPY.make(row=records["row"][goes], at=records["at"][goes], keeper=kept["row"], there=kept["at"])
            )
            task.tick(copies.rows)
    return {"copies": copies.rows}


def cuts_task(task: Task, item: SubstringItem) -> Counts:
    """Runs of CUT for one rank, from its windows that are copies: compared, and joined to spans."""
    paths = runs_of(task.parts / f"{STEP}-copies", task.rank)
    library = _Library(item)
    with PerRank(task.scratch, f"{task.rank:05d}", CUT, item.corpus.parts) as cuts:
        for done, (row, copies) in enumerate(by_row(paths, _COPY), 1):
            words, codes = library.split(library.text(row))
            for keeper in np.unique(copies["keeper"]).tolist():
                some = copies[copies["keeper"] == keeper]
                there, there_codes = (words, codes) if keeper == row else library.words(keeper)
                same = _equal_windows(words, codes, some["at"], there, there_codes, some["there"], item.words)
                spans = _spans(words, some[same], item.words, keeper == row)
                if len(spans):
                    cuts.add(CUT.make(row=row, start=spans[:, 0], end=spans[:, 1], keeper=keeper))
            task.tick(done)
    return {"cuts": cuts.rows}


def _spans(words: Words, copies: npt.NDArray[Any], n: int, itself: bool) -> npt.NDArray[np.int64]:
    """(spans, 2) code points of windows that are copies; what the first of two in one text covers stays."""
    at, there = copies["at"].astype(np.int64), copies["there"].astype(np.int64)
    first = np.maximum(at, there + n) if itself else at
    some = first < at + n
    first, last = first[some], (at + n - 1)[some]
    joined = np.flatnonzero(first[1:] > last[:-1] + 1) + 1  # at ascends, and first and last with it
    begins, ends = np.concatenate([[0], joined]), np.concatenate([joined, [len(first)]]) - 1
    if not len(first):
        return np.empty((0, 2), np.int64)
    return np.stack([words.starts[first[begins]], words.ends[last[ends]]], axis=1).astype(np.int64)


class _Library:
    """Texts by row; the words of the keepers that were last asked for stay at hand."""

    def __init__(self, item: SubstringItem) -> None:
        self.parts, self._split = item.corpus.parts, splitter(item.splitter)
        self._known: OrderedDict[int, tuple[Words, npt.NDArray[np.uint32]]] = OrderedDict()

    def text(self, row: int) -> str:
        [document] = self.parts.fetch([row])
        return str(document["text"])

    def split(self, text: str) -> tuple[Words, npt.NDArray[np.uint32]]:
        return self._split(text), code_points(text)

    def words(self, row: int) -> tuple[Words, npt.NDArray[np.uint32]]:
        if row not in self._known:
            self._known[row] = self.split(self.text(row))
            while len(self._known) > 1 and (
                len(self._known) > _KEPT_TEXTS or sum(len(c) for _, c in self._known.values()) > _KEPT_CHARACTERS
            ):
                self._known.popitem(last=False)
        self._known.move_to_end(row)
        return self._known[row]


def _equal_windows(
    words: Words, codes: Any, at: Any, there: Words, there_codes: Any, there_at: Any, n: int
) -> npt.NDArray[np.bool_]:
    """(windows,) whether the words of each window are those of the window at `there_at`, code point by code point."""
    equal = _equal(
        codes, words.starts, words.ends, at.astype(np.int64),
        there_codes, there.starts, there.ends, there_at.astype(np.int64), n,
    )  # fmt: skip
    return np.asarray(equal, np.bool_)


def anchors(hashes: npt.NDArray[np.uint64], n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Hashes of all spans of n // 2 words, (spans,), and the span that each window of n words chooses, (windows,)."""
    k = max(n // 2, 1)
    keys = grams(hashes, k)
    if len(hashes) < n:
        return keys, np.empty(0, np.int64)
    return keys, _winnow(keys, n - k + 1)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _winnow(keys: Any, w: int) -> Any:
    """(len(keys) - w + 1,) the place of the least of every w keys, the rightmost of equals."""
    out = np.empty(len(keys) - w + 1, np.int64)
    best = -1
    for i in range(len(out)):
        if best < i:
            best = i
            for j in range(i + 1, i + w):
                if keys[j] <= keys[best]:
                    best = j
        elif keys[i + w - 1] <= keys[best]:
            best = i + w - 1
        out[i] = best
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _equal(a: Any, a_starts: Any, a_ends: Any, a_at: Any, b: Any, b_starts: Any, b_ends: Any, b_at: Any, n: int) -> Any:
    """Windows that run on together from the window before are compared by their last word alone."""
    out = np.zeros(len(a_at), np.bool_)
    for i in range(len(a_at)):
        first = 0
        if i and out[i - 1] and a_at[i] == a_at[i - 1] + 1 and b_at[i] == b_at[i - 1] + 1:
            first = n - 1
        same = a_at[i] + n <= len(a_starts) and b_at[i] + n <= len(b_starts)
        for word in range(first, n):
            if not same:
                break
            x, y = a_starts[a_at[i] + word], b_starts[b_at[i] + word]
            size = a_ends[a_at[i] + word] - x
            same = size == b_ends[b_at[i] + word] - y
            for c in range(size):
                if not same or a[x + c] != b[y + c]:
                    same = False
                    break
        out[i] = same
    return out
