"""A file's bytes, hashed while they are read, and cut into lines: one reader for the planner and the corpus wing.

Nothing is trusted: memory is bounded by the line limit whatever the file holds. What cannot be read is a value, a
`Fault`, with its place and its first bytes, and reading goes on behind it.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fmtrain.artifacts.remote import plain
from fmtrain.artifacts.sources import changed, check_unchanged, open_input
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.storage import unwatched
from fmtrain.artifacts.unpack import CHUNK, Damage
from fmtrain.errors import InputError

RAW_BYTES = 64 << 10  # of what could not be read, kept with the fault
_BOM = b"\xef\xbb\xbf"
Line = tuple[int, int, bytes]  # its number from 1, where it begins, its bytes without the end


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


class Input:
    """An input file while it is read: `raw` gives its bytes; `finish` its SHA-256, where it is the planned one.

    With `whole` unset only a part of it is read: the unit that reads the file's first part hashes all of it. `alive` is
    called once a chunk.
    """

    def __init__(self, source: Source, whole: bool = True, alive: Callable[[], None] = unwatched) -> None:
        self.source, self.whole, self.alive = source, whole, alive
        self._digest, self._hashed = hashlib.sha256(), 0
        try:
            self.file = open_input(source.path)
        except OSError as e:
            raise _unreadable(source, e) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.file.close()

    def raw(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` to the end, in chunks."""
        try:
            self.file.seek(start)
            while chunk := self.file.read(CHUNK):
                self.alive()
                if self.whole and start == self._hashed:
                    self._digest.update(chunk)
                    self._hashed += len(chunk)
                start += len(chunk)
                yield chunk
        except OSError as e:
            raise _unreadable(self.source, e) from None

    def finish(self) -> str:
        """The SHA-256 of all bytes ("" for a part); InputError where the file is not the one that was planned."""
        if not self.whole:
            check_unchanged(self.source)
            return ""
        for _ in self.raw(self._hashed):
            pass
        digest = self._digest.hexdigest()
        if self._hashed != self.source.size:
            raise changed(self.source, f"{self._hashed} bytes, planned with {self.source.size}")
        if not self.source.sha256:
            check_unchanged(self.source)
        elif digest != self.source.sha256:
            raise changed(self.source, f"SHA-256 {digest[:12]}.., planned with {self.source.sha256[:12]}..")
        return digest


def _unreadable(source: Source, error: OSError) -> InputError:
    return InputError(f"{plain(source.path)} cannot be read: {error.strerror}. Check data.files and the permissions")


def read_lines(content: Iterator[bytes], name: str, limit: int, start: int = 0) -> Iterator[Line | Fault]:
    """The lines of a file's content, which begins at byte `start`; a byte order mark at the file's start is no content.

    A line over `limit` bytes is a Fault, and so is what is left of a file whose compressed data is damaged.
    """
    number, offset = 1, start
    # of the line that the last chunk ended in: its parts, or its beginning where it is too long; its bytes so far
    parts: list[bytes] = []
    held = 0

    def line(piece: bytes) -> Line | Fault:
        size = held + len(piece)
        if size > limit:
            detail = f"{size} bytes, and data.max_line_mb allows {limit}"
            return Fault(name, number, offset, "line_too_long", detail, b"".join([*parts, piece])[:RAW_BYTES])
        whole = b"".join([*parts, piece]) if held else piece
        return number, offset, whole.removeprefix(_BOM) if offset == 0 else whole

    try:
        for chunk in content:
            *pieces, rest = chunk.split(b"\n")
            for piece in pieces:
                if held or not offset or len(piece) > limit:
                    yield line(piece)
                else:
                    yield number, offset, piece
                offset += held + len(piece) + 1
                number += 1
                if held:
                    parts, held = [], 0
            if rest:
                held += len(rest)
                parts = [b"".join([*parts, rest])[:RAW_BYTES]] if held > limit else [*parts, rest]
    except Damage as e:
        yield Fault(name, number, offset, e.reason, e.detail, b"".join(parts)[:RAW_BYTES])
        return
    if held:
        yield line(b"")
