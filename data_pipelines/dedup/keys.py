"""Copies by an equal key: of the text as it is, of the text normalised, of the normalised address.

The read step leaves the keys' hashes in INDEX, made from `normalise` and `normalise_url`. Of documents with one key the
first in the order of preference stays. Which documents are still there, and in which order, comes from `order`.
"""

import functools
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
import numpy.typing as npt

from data_pipelines.dedup.order import GONE, KEPT, REASONS, Corpus, chunks
from data_pipelines.dedup.runs import Form, Writer, merge, runs_in, starts
from data_pipelines.schedule import Counts, Task
from data_pipelines.words import code_points

KEYS = Form([("high", "<u8"), ("low", "<u8"), ("ordinal", "<u8")], order=("high", "low", "ordinal"))
FIELDS = {"exact": "text", "normalised": "normal", "url": "url"}  # of INDEX, by step
_PORTS = {"http": 80, "https": 443}
_TRACKING = re.compile(
    r"(utm_\w+|gclid|fbclid|msclkid|dclid|yclid|mc_[ce]id|igshid|_ga|ref_src|sessionid|phpsessid|jsessionid|sid)$", re.I
)
_LETTER, _SPACE, _OTHER = 1, 2, 0


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """(0x110000,) of every code point: a letter (or mark within a word), white space, or neither."""
    kinds = np.zeros(0x110000, np.uint8)
    every = "".join(map(chr, range(0x110000)))
    for found, kind in ((re.finditer(r"[^\W\d_]+", every), _LETTER), (re.finditer(r"\s+", every), _SPACE)):
        for match in found:
            kinds[match.start() : match.end()] = kind
    return kinds


def normalise(text: str) -> str:
    """The letters of a text, lower case; all but its white space where letters are less than half of the rest.

    Tables, logs and numbers differ in what the first form leaves out (after CCNet, Wenzek et al. 2020, section 3.1).
    """
    codes = code_points(text.lower())
    kinds = _kinds()[codes]
    letters = kinds == _LETTER
    written = kinds != _SPACE
    kept = codes[letters if 2 * np.count_nonzero(letters) >= np.count_nonzero(written) else written]
    return str(kept.tobytes(), "utf-32-le", "surrogatepass")


def normalise_url(url: str) -> str:
    """An address without what does not change the page: scheme, www., default port, fragment, tracking, last slash.

    RFC 3986 section 6.2; the query's parts are sorted. An address that cannot be taken apart is only stripped.
    """
    url = url.strip()
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = (parts.hostname or "").removeprefix("www.").rstrip("."), parts.port
    except ValueError:
        return url
    if not host:
        return url
    if port and port != _PORTS.get(parts.scheme.lower(), 80):
        host = f"{host}:{port}"
    path = re.sub(r"/(index\.(html?|php|aspx?))?$", "", parts.path, flags=re.I)
    query = sorted((k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.match(k))
    return host + path + (f"?{urlencode(query)}" if query else "")


@dataclass(frozen=True)
class KeyItem:
    """What one task looks for equal keys in; `before` is the step that left what is gone."""

    corpus: Corpus
    step: str
    before: str | None


def keys_task(task: Task, item: KeyItem) -> Counts:
    """Sorted runs of the keys of one rank's documents that are still there."""
    with Writer(task.scratch, f"{task.rank:05d}", KEYS) as runs:
        for index, ordinals, there in chunks(task.parts, item.corpus, task.rank, item.before):
            key = index[FIELDS[item.step]]
            high, low = (key[:, 0], key[:, 1]) if key.ndim == 2 else (key, np.zeros_like(key))
            some = there & (key != 0) if key.ndim == 1 else there  # no address is no key
            runs.add(KEYS.make(high=high[some], low=low[some], ordinal=ordinals[some]))
            task.tick(runs.rows)
    return {"keys": runs.rows}


def equal_task(task: Task, item: KeyItem) -> Counts:
    """Runs of what goes, from one range of the keys."""
    code = REASONS.index(f"dedup.{item.step}")
    keys = runs_in(task.parts / f"dedup-{item.step}-keys")
    with Writer(task.scratch, f"{task.rank:05d}", GONE) as runs:
        for records in merge(keys, KEYS, part=task.rank, parts=task.world_size):
            bounds = starts(records["high"], records["low"])
            ordinals = records["ordinal"]
            keepers = np.repeat(ordinals[bounds[:-1]], np.diff(bounds))
            goes = (keepers != ordinals) & (ordinals >= item.corpus.earlier)
            runs.add(GONE.make(ordinal=ordinals[goes], keeper=keepers[goes], reason=code, value=KEPT))
            task.tick(runs.rows)
    return {"removed": runs.rows}
