"""What readers share: a record with its place, and a file's bytes, hashed and decompressed without trusting either.

datatrove's readers lose records silently (half of a truncated .zst, 32 documents around one bad byte), hence our own.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from fmtrain.errors import InputError
from fmtrain.run.stage import Source

_CHUNK = 1 << 16  # bytes read at a time; a compressed chunk may grow a thousandfold
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """A document, or with `fault` set an unreadable record. `line` counts from 1; a whole file is line 0."""

    id: str
    text: str
    group: str
    source: str
    line: int
    fault: str = ""


def read_bytes(source: Source) -> Iterator[bytes]:
    """The file in chunks; InputError at its end when its SHA-256 is not the one the run was planned with."""
    digest = hashlib.sha256()
    try:
        with open(source.path, "rb") as f:
            while chunk := f.read(_CHUNK):
                digest.update(chunk)
                yield chunk
    except OSError as e:
        raise InputError(f"{source.path} cannot be read: {e.strerror}. Check data.files and the permissions") from None
    if digest.hexdigest() != source.sha256:
        raise InputError(
            f"{source.path} has changed since this run was planned (SHA-256 {digest.hexdigest()[:12]}.., expected "
            f"{source.sha256[:12]}..). Run the same command again: it plans with the file as it is now"
        )


def read_decompressed(source: Source) -> Iterator[bytes]:
    """The content of a plain, .gz or .zst file in chunks; InputError where compressed data is damaged or ends early."""
    match Path(source.name).suffix:
        case ".gz":
            return _decompress(source, lambda: zlib.decompressobj(wbits=31))  # 31: gzip's frame, its checksum verified
        case ".zst":
            return _decompress(source, zstandard.ZstdDecompressor().decompressobj)
        case _:
            return read_bytes(source)


def _decompress(source: Source, new: Callable[[], Any]) -> Iterator[bytes]:
    """Frame after frame: neither library says by itself that the last one was cut."""
    frame, frames = None, 0
    try:
        for chunk in read_bytes(source):
            while chunk:
                if frame is None:
                    chunk = chunk.lstrip(b"\0") if frames else chunk  # tapes and some tools pad with zeros
                    if not chunk:
                        break
                    frame, frames = new(), frames + 1
                if data := frame.decompress(chunk):
                    yield data
                if not frame.eof:
                    break
                chunk, frame = frame.unused_data, None
    except (zlib.error, zstandard.ZstdError) as e:
        raise InputError(f"{source.path} is damaged: {e}. Get the file again, or leave it out of data.files") from None
    if frame is not None or not frames:
        raise InputError(f"{source.path} is cut short: its compressed data ends early. Get it again, or leave it out")


def read_lines(source: Source) -> Iterator[bytes]:
    """The lines of a file without their ends; a byte order mark at the start of the file is no content."""
    parts: list[bytes] = []  # of a line that is longer than a chunk
    first = True
    for chunk in read_decompressed(source):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            whole = b"".join([*parts, line]) if parts else line
            yield whole.removeprefix(_BOM) if first else whole
            parts.clear()
            first = False
        if rest:
            parts.append(rest)
    if parts:
        last = b"".join(parts)
        yield last.removeprefix(_BOM) if first else last
