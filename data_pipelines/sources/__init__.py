"""Where documents come from: the table of readers by the name of the data, and how input files are dealt to tasks.

A reader yields documents and unreadable records, each with its place; what becomes of them is not known here. Every
byte of a file is hashed while it is read: a file that changed since the run was planned is an error, not a document.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from data_pipelines.sources import local, stdlib
from data_pipelines.sources.records import Record
from fmtrain.run.stage import Source
from fmtrain.schema.corpus import Data

READERS: dict[str, Callable[[Any, Source, int, int], Iterator[Record]]] = {
    "stdlib": stdlib.read,
    "local": local.read,
}
_UNITS_PER_TASK = 4  # few large files are read by several tasks, each taking every n-th record


@dataclass(frozen=True)
class Unit:
    """The records of `source` whose number is `offset` modulo `stride`."""

    source: Source
    stride: int
    offset: int
    size: int  # bytes of the file, shared among its strides: what dealing balances


def deal(data: Data, sources: list[Source], sizes: dict[str, int], tasks: int) -> list[list[Unit]]:
    """Which units each task reads: the largest first, each to the task with the least to do; ties by name."""
    files = sorted(sources, key=lambda s: (s.name, s.sha256))
    stride = 1 if data.name == "stdlib" else min(tasks, -(-_UNITS_PER_TASK * tasks // max(len(files), 1)))
    units = [Unit(s, stride, offset, sizes[s.path] // stride) for s in files for offset in range(stride)]
    dealt: list[list[Unit]] = [[] for _ in range(tasks)]
    load = [0] * tasks
    for unit in sorted(units, key=lambda u: -u.size):
        rank = load.index(min(load))
        dealt[rank].append(unit)
        load[rank] += unit.size + 1
    return [sorted(part, key=lambda u: (u.source.name, u.offset)) for part in dealt]


def read(data: Data, unit: Unit) -> Iterator[Record]:
    """The records of a unit, in the file's order."""
    return READERS[data.name](data, unit.source, unit.stride, unit.offset)


def is_heldout(group: str, modulus: int) -> bool:
    """Whether a document is set apart for evaluation: by its group alone, so before any filter has looked at it."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest(), "big") % modulus == 0
