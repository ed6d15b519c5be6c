"""What every reader takes and gives: a unit of work in, documents and faults out, a file's SHA-256 at its end.

A fault is a value: what cannot be read is put aside with its place and its bytes, and reading goes on behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from fmtrain.errors import InputError
from fmtrain.run.stage import Source

RAW_BYTES = 64 << 10  # of what could not be read, kept with the fault
OnHash = Callable[[str, str], None]  # (name of the input, SHA-256 of all its bytes)


def unwatched() -> None:
    """The sign of life of a unit that nobody watches."""


@dataclass(frozen=True)
class Unit:
    """Part `offset` of the `stride` parts that a source is read in; what a part is, is the reader's affair."""

    source: Source
    stride: int
    offset: int
    size: int  # bytes: what dealing balances
    # called while no record comes: a file that is hashed to its end, or the records of other tasks, take minutes
    alive: Callable[[], None] = field(default=unwatched, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """What could not be read, and where.

    `offset` is where it begins in the decompressed file, in bytes (in Parquet and on the hub: the row's number), and is
    unique in its file; `line` counts from 1, 0 where it is not known. `data` holds its first 64 KiB. `records` is how
    many records are lost with it, 1 where nobody knows.
    """

    file: str
    line: int
    offset: int
    reason: str  # not_utf8, not_json, not_an_object, no_text, text_not_a_string, bad_id, line_too_long, truncated ...
    detail: str
    data: bytes = b""
    records: int = 1


class Damage(Exception):
    """Compressed data that ends early or does not decode; what came before it is good. Never leaves the readers."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Hashes(dict[str, str]):
    """Name -> SHA-256 of the inputs as they were read; pass `add` as `on_hash`."""

    def add(self, name: str, sha256: str) -> None:
        """InputError where two tasks that read the same file did not read the same bytes."""
        if self.setdefault(name, sha256) != sha256:
            raise InputError(
                f"{name} has changed while it was read (SHA-256 {self[name][:12]}.. for one task, {sha256[:12]}.. for "
                "another). Run the same command again once nobody writes to it"
            )
