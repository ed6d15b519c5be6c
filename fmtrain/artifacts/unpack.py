"""Decompression to the last good byte, in bounded memory and to a bounded size, for the planner and the corpus wing.

datatrove's readers lose records silently (half of a truncated .zst, 32 documents around one bad byte), hence our own:
a gzip member and a Zstandard frame are followed to their ends and checksums, and all that decodes before a damage is
given. What a few bytes of input blow up to is cut off (`expands`), so that no small file fills a disk.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zstandard

PACKINGS = (".gz", ".zst")
CHUNK = 1 << 18  # bytes read at a time
EXPANSION = 1000  # bytes out for each byte in, beyond FREE; gzip reaches 1,032 on a single repeated byte
FREE = 64 << 20
_INFLATED = 1 << 20  # bytes that one call may decompress to
_WINDOW = 1 << 31  # the most that zstd --long=31 looks back; the library by itself stops at 128 MiB
_ZSTD_FRAME, _ZSTD_SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"


class Damage(Exception):
    """Content that ends early, does not decode or expands too far; what came before it is good. Readers' own."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def packing_of(name: str) -> str:
    """How a file is packed, by its name: ".gz", ".zst" (in any case) or ""."""
    return next((packing for packing in PACKINGS if name.lower().endswith(packing)), "")


@dataclass
class Allowance:
    """How far content may expand; `take` raises Damage where it went further."""

    bytes_in: int = 0
    bytes_out: int = 0

    def take(self, size: int) -> None:
        self.bytes_out += size
        if self.bytes_out > FREE + EXPANSION * self.bytes_in:
            raise Damage("expands", f"{self.bytes_in} bytes give more than {self.bytes_out - size} of content, which "
                                    "looks like a decompression bomb")  # fmt: skip


def unpack(chunks: Iterator[bytes], packing: str) -> Iterator[bytes]:
    """The content of a plain (""), .gz or .zst file in chunks; Damage after all that could be decoded.

    Empty chunks stand for members and frames without content, so that whoever watches sees that time passes.
    """
    if not packing:
        return chunks
    allowance = Allowance()
    return _bounded((_gunzip if packing == ".gz" else _unzst)(_counted(chunks, allowance)), allowance)


def _counted(chunks: Iterator[bytes], allowance: Allowance) -> Iterator[bytes]:
    for chunk in chunks:
        allowance.bytes_in += len(chunk)
        yield chunk


def _bounded(content: Iterator[bytes], allowance: Allowance) -> Iterator[bytes]:
    for data in content:
        allowance.take(len(data))
        yield data


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
            if data or member.eof:
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
            yield b""
            while left:
                left -= len(_all(take, min(left, CHUNK)))
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
