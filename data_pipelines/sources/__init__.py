"""Where documents come from: the table of readers by the name of the data, and how input files are dealt to tasks.

A reader yields documents and faults, each with its place in its file; what becomes of them is not known here. Every
byte of a file is hashed while it is read: a file that changed since the run was planned is an error, not a document.
"""

from collections.abc import Callable, Iterator
from typing import Any

from data_pipelines.document import Document
from data_pipelines.sources import hub, local, stdlib
from data_pipelines.sources.records import Fault, Hashes, OnHash, Unit
from fmtrain.artifacts.stage import Source
from fmtrain.schema.sources import Data, is_heldout

__all__ = ["READERS", "Document", "Fault", "Hashes", "Unit", "deal", "is_heldout", "read"]

READERS: dict[str, Callable[[Any, Unit, OnHash], Iterator[Document | Fault]]] = {
    "stdlib": stdlib.read,
    "local": local.read,
    "hub": hub.read,
}
_UNITS_PER_TASK = 4  # few large files are read by several tasks, each taking a part
_PART = 1 << 20  # bytes of a file below which it is not worth another part


def deal(data: Data, sources: list[Source], tasks: int) -> list[list[Unit]]:
    """Which units each task reads: the largest first, each to the task with the least to do; ties by name."""
    files = sorted(sources, key=lambda s: (s.name, s.stamp))
    units = [unit for source in files for unit in _parts(data, source, tasks, len(files))]
    dealt: list[list[Unit]] = [[] for _ in range(tasks)]
    load = [0] * tasks
    for unit in sorted(units, key=lambda u: -u.size):
        rank = load.index(min(load))
        dealt[rank].append(unit)
        load[rank] += unit.size + 1
    return [sorted(part, key=lambda u: (u.source.name, u.offset)) for part in dealt]


def _parts(data: Data, source: Source, tasks: int, files: int) -> list[Unit]:
    """The units of one source."""
    if data.name == "stdlib":
        stride = 1
    elif data.name == "hub":
        stride = tasks
    else:
        stride = max(1, min(tasks, -(-_UNITS_PER_TASK * tasks // files), source.size // _PART))
    return [Unit(source, stride, offset, source.size // stride) for offset in range(stride)]


def read(data: Data, unit: Unit, on_hash: OnHash = lambda name, sha256: None) -> Iterator[Document | Fault]:
    """The documents and faults of a unit, in the file's order; at the end of a file `on_hash` is told its SHA-256.

    A document's `line` is its place: where its record begins in the decompressed file, in bytes, in Parquet and on the
    hub its row; unique in its file and the same however many tasks read it.
    """
    return READERS[data.name](data, unit, on_hash)
