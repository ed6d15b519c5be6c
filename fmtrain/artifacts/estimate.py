"""How much files of documents hold, roughly and before they are read: for the plan, and for the time that is left.

Looks at the beginnings of some files and takes the rest to be like them. What a file's reader makes of it is not known
here.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from fmtrain.artifacts.sources import open_input
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.unpack import Damage, unpack
from fmtrain.schema.formats import form

_SAMPLE = 1 << 18  # bytes at the start of a file, as it is stored
_UNPACKED = 1 << 26  # bytes that the sample may give; of what expands further the number is too low
_FILES = 16  # looked at; more are taken to be like them
LINES, TEXTS = (".jsonl", ".json", ".ndjson"), (".txt", ".md")


@dataclass(frozen=True)
class Content:
    """What is in a file if all of it is like its start: ends of lines, and bytes of content."""

    lines: float
    bytes: float


def records(sources: Sequence[Source], *, looked_at: int = _FILES) -> int | None:
    """About as many as there are, a text file one; None where the kind of file does not say."""
    kinds = {form(source.name, source.path)[0] for source in sources}
    if kinds <= set(TEXTS):
        return len(sources)
    if not kinds <= set(LINES) or not sources:
        return None
    sampled = _some(sources, looked_at)
    found = sum(content(source).lines for source in sampled)
    size = sum(source.size for source in sampled)
    return round(found * sum(source.size for source in sources) / max(size, 1)) or None


def unpacked(sources: Sequence[Source], *, looked_at: int = _FILES) -> float:
    """About as many bytes of content as the files hold."""
    sampled = _some(sources, looked_at)
    size = sum(source.size for source in sampled)
    return sum(content(one).bytes for one in sampled) * sum(source.size for source in sources) / max(size, 1)


def content(source: Source) -> Content:
    """What a file holds, by its first 256 KiB as it is stored."""
    lines = size = 0
    start = b""
    with contextlib.suppress(OSError), open_input(source.path) as file:  # its reader says what is wrong with a file
        start = file.read(_SAMPLE)
    with contextlib.suppress(Damage):  # the sample ends in the middle of compressed data
        for chunk in unpack(iter([start]), form(source.name, source.path)[1]):
            lines, size = lines + chunk.count(b"\n"), size + len(chunk)
            if size > _UNPACKED:
                break
    more = source.size / max(len(start), 1)
    return Content(lines * more, size * more)


def _some(sources: Sequence[Source], most: int) -> list[Source]:
    return list(islice(sources, 0, None, max(1, -(-len(sources) // most))))
