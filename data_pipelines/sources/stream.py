"""A file's bytes, hashed while they are read; decompressed to the last byte; cut into lines. Nothing is trusted.

datatrove's readers lose records silently (half of a truncated .zst, 32 documents around one bad byte), hence our own:
a gzip member and a Zstandard frame are followed to their ends and checksums, and all that decodes before a damage is
given. Memory is bounded by the line limit whatever the file holds.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import zstandard

from data_pipelines.sources.records import RAW_BYTES, Damage, Fault, unwatched
from fmtrain.errors import InputError
from fmtrain.run.sources import changed, check_unchanged, open_input
from fmtrain.run.stage import Source

_CHUNK = 1 << 18  # bytes read at a time
_INFLATED = 1 << 20  # bytes that one call may decompress to
_WINDOW = 1 << 31  # the most that zstd --long=31 looks back; the library by itself stops at 128 MiB
_ZSTD_FRAME, _ZSTD_SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
_BOM = b"\xef\xbb\xbf"
Line = tuple[int, int, bytes]  # its number from 1, where it begins, its bytes without the end


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
            while chunk := self.file.read(_CHUNK):
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
    return InputError(f"{source.path} cannot be read: {error.strerror}. Check data.files and the permissions")


# -------------------------------------------------------------------------------------------------------- decompression


def unpack(chunks: Iterator[bytes], packing: str) -> Iterator[bytes]:
    """The content of a plain (""), .gz or .zst file in chunks; Damage after all that could be decoded."""
    match packing:
        case ".gz":
            return _gunzip(chunks)
        case ".zst":
            return _unzst(chunks)
        case _:
            return chunks


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Member after member; zlib checks each one's CRC and length."""
    member, members = None, 0
    for chunk in chunks:
        while chunk:
            if member is None:
                chunk = chunk.lstrip(b"\0") if members else chunk  # tapes and some tools pad with zeros
                if not chunk:
                    break
                member, members = zlib.decompressobj(wbits=31), members + 1  # 31: gzip's frame
            before = member.copy()
            try:
                data = member.decompress(chunk, _INFLATED)
            except zlib.error as e:
                yield _salvage(before, chunk)
                raise Damage("damaged", f"gzip: {e}") from None
            if data:
                yield data
            chunk, member = (member.unused_data, None) if member.eof else (member.unconsumed_tail, member)
    if member is not None or not members:
        if member is not None:
            yield member.flush()
        raise Damage("truncated", "the gzip data ends early")


def _salvage(member: "zlib._Decompress", chunk: bytes) -> bytes:
    """What decodes before the first bad byte: a call that fails gives nothing of what it had decoded."""
    good = []
    try:
        for i in range(len(chunk)):
            good.append(member.decompress(chunk[i : i + 1], _INFLATED))
    except zlib.error:
        pass
    return b"".join(good)


def _unzst(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Frame after frame and block after block (RFC 8878, 3.1.1): at most 128 KiB come of a block, and none is lost.

    The library alone neither tells a cut frame from a whole one nor bounds what a few bytes of input decompress to.
    """
    take, frames = _taker(chunks), 0
    while magic := take(4):
        frames += 1
        if len(magic) == 4 and magic[1:] == _ZSTD_SKIPPABLE and 0x50 <= magic[0] <= 0x5F:
            left = int.from_bytes(_all(take, 4), "little")
            while left:
                left -= len(_all(take, min(left, _CHUNK)))
        elif magic == _ZSTD_FRAME:
            yield from _zstd_frame(take)
        elif _ZSTD_FRAME.startswith(magic):
            raise Damage("truncated", "the Zstandard data ends early")
        else:
            raise Damage("damaged", f"no Zstandard frame begins with {magic.hex(' ')}")
    if not frames:
        raise Damage("truncated", "the file is empty, and no Zstandard data")


def _zstd_frame(take: Callable[[int], bytes]) -> Iterator[bytes]:
    flags = _all(take, 1)
    single, kind = flags[0] >> 5 & 1, flags[0] >> 6
    size = (0 if single else 1) + (0, 1, 2, 4)[flags[0] & 3] + (single, 2, 4, 8)[kind]
    frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    try:
        frame.decompress(_ZSTD_FRAME + flags + _all(take, size))
        last = 0
        while not last:
            head = _all(take, 3)
            bits = int.from_bytes(head, "little")
            last = bits & 1
            yield frame.decompress(head + _all(take, 1 if bits >> 1 & 3 == 1 else bits >> 3))
        if flags[0] & 4:
            frame.decompress(_all(take, 4))  # the checksum of the content
    except zstandard.ZstdError as e:
        raise Damage("damaged", f"zstd: {e}") from None
    if not frame.eof:
        raise Damage("damaged", "zstd: the frame has no end")


def _taker(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    """take(n): the next n bytes, fewer at the end."""
    chunk, at = b"", 0

    def take(n: int) -> bytes:
        nonlocal chunk, at
        part = chunk[at : at + n]
        at += len(part)
        parts, have = [part], len(part)
        while have < n and (more := next(chunks, b"")):
            chunk, at = more, min(n - have, len(more))
            parts.append(chunk[:at])
            have += at
        return b"".join(parts) if len(parts) > 1 else part

    return take


def _all(take: Callable[[int], bytes], n: int) -> bytes:
    data = take(n)
    if len(data) != n:
        raise Damage("truncated", "the Zstandard data ends early")
    return data


# ---------------------------------------------------------------------------------------------------------------- lines


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
