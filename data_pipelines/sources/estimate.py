"""How many records the input holds, roughly and before it is read: what the time left is worked out from."""

import contextlib
from collections.abc import Sequence
from itertools import islice

from data_pipelines.sources.records import Damage
from data_pipelines.sources.stream import unpack
from fmtrain.artifacts.sources import open_input
from fmtrain.artifacts.stage import Source
from fmtrain.schema.formats import form

_SAMPLE = 1 << 18  # bytes at the start of a file, as it is stored
_UNPACKED = 1 << 26  # bytes that the sample may give; of what expands further the number is too low
_FILES = 16  # looked at; more are taken to be like them
_LINES, _WHOLE = (".jsonl", ".json", ".ndjson"), (".txt", ".md")


def records(sources: Sequence[Source]) -> int | None:
    """About as many as there are; None where the kind of file does not say."""
    kinds = {form(source.name, source.path)[0] for source in sources}
    if kinds <= set(_WHOLE):
        return len(sources)
    if not kinds <= set(_LINES) or not sources:
        return None
    step = -(-len(sources) // _FILES)
    sampled = list(islice(sources, 0, None, step))
    found = sum(_in_file(source) for source in sampled)
    size = sum(source.size for source in sampled)
    return round(found * sum(source.size for source in sources) / max(size, 1)) or None


def _in_file(source: Source) -> float:
    """Lines of the file, if all of it is like its start."""
    lines = size = 0
    start = b""
    with contextlib.suppress(OSError), open_input(source.path) as file:  # its reader says what is wrong with a file
        start = file.read(_SAMPLE)
    with contextlib.suppress(Damage):  # the sample ends in the middle of compressed data
        for chunk in unpack(iter([start]), form(source.name, source.path)[1]):
            lines, size = lines + chunk.count(b"\n"), size + len(chunk)
            if size > _UNPACKED:
                break
    return lines * source.size / max(len(start), 1)
