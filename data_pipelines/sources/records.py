"""What every reader takes and gives: a unit of work in, documents and faults out, a file's SHA-256 at its end.

A fault is a value: what cannot be read is put aside with its place and its bytes, and reading goes on behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from fmtrain.artifacts.lines import RAW_BYTES, Fault
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import unwatched
from fmtrain.artifacts.unpack import Damage
from fmtrain.errors import InputError

__all__ = ["RAW_BYTES", "Damage", "Fault", "Hashes", "OnHash", "Unit", "unwatched"]

OnHash = Callable[[str, str], None]  # (name of the input, SHA-256 of all its bytes)


@dataclass(frozen=True)
class Unit:
    """Part `offset` of the `stride` parts that a source is read in; what a part is, is the reader's affair."""

    source: Source
    stride: int
    offset: int
    size: int  # bytes: what dealing balances
    # called while no record comes: a file that is hashed to its end, or the records of other tasks, take minutes
    alive: Callable[[], None] = field(default=unwatched, compare=False, repr=False)


class Hashes(dict[str, str]):
    """Name -> SHA-256 of the inputs as they were read; pass `add` as `on_hash`."""

    def add(self, name: str, sha256: str) -> None:
        """InputError where two tasks that read the same file did not read the same bytes."""
        if self.setdefault(name, sha256) != sha256:
            raise InputError(
                f"{name} has changed while it was read (SHA-256 {self[name][:12]}.. for one task, {sha256[:12]}.. for "
                "another). Run the same command again once nobody writes to it"
            )
