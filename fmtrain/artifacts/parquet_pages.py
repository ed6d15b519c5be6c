"""The pages of a Parquet file as they are read: what one would expand to is known before Arrow makes room for it.

Arrow takes the sizes in a page's header at their word, and gives each row of a batch its own copy of what one entry of
a dictionary, or one shared prefix, stands for: 37 kB become 5 GB. A header is a Thrift struct (parquet.thrift,
PageHeader); only its sizes are looked at here, and of lists how many values they have: those are free in the file.
"""

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

from fmtrain.artifacts.unpack import EXPANSION, FREE, Damage

BUDGET = 256 << 20  # bytes that the rows of a batch may hold, if each holds as much as a page
MOST_VALUES = 1 << 24  # of lists in a column of a row group: Arrow may have to hold them all as one row
_HEADER = 16 << 20  # bytes of a header; Arrow reads no longer one either
_DEPTH = 16
_VALUES = -1  # what stands for the number of values among a header's fields


class LargePage(OSError):
    """A page that is too large for batches of so many rows; `rows` is how many it is not too large for."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"a page for batches of at most {rows} rows")
        self.rows = rows


class Bomb(OSError):
    """A page that expands further than anything honest does."""


@dataclass
class _Chunk:
    """A column's pages in a row group: where the next header begins, and where the last page ends."""

    at: int
    end: int
    values: int | None = None  # of lists, those that its pages have had so far; None where a row has one


class Pages:
    """A file that Arrow reads, which looks at each page's header on its way."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.chunks, self.rows = file, list[_Chunk](), 1

    def begin(self, group: Any, columns: list[str], rows: int, lists: frozenset[str] = frozenset()) -> None:
        """What is read next: these columns of a row group, in batches of `rows`; `lists` are those that hold lists."""
        self.chunks, self.rows = [], rows
        for column in (group.column(n) for n in range(group.num_columns)):
            if column.path_in_schema in columns:
                starts, values = [column.data_page_offset], 0 if column.path_in_schema in lists else None
                if column.has_dictionary_page and column.dictionary_page_offset:
                    starts.append(column.dictionary_page_offset)
                self.chunks.append(_Chunk(min(starts), min(starts) + column.total_compressed_size, values))

    def read(self, size: int = -1) -> bytes:
        begin = self.file.tell()
        data = self.file.read(size)
        for chunk in self.chunks:
            while begin <= chunk.at < begin + len(data) and chunk.at < chunk.end:
                self._look(chunk, data, chunk.at - begin)
        return data

    def _look(self, chunk: _Chunk, data: bytes, offset: int) -> None:
        try:
            header = _sizes(data, offset)
        except IndexError:  # it goes on behind what was read
            header = self._ahead(chunk.at)
        length, size, packed, values = header
        if size > FREE + EXPANSION * packed:
            raise Bomb(f"a page of {packed} bytes says that it expands to {size}")
        if size * self.rows > BUDGET and self.rows > 1:
            raise LargePage(max(1, BUDGET // size))
        if chunk.values is not None:
            chunk.values += values
            if chunk.values > MOST_VALUES:
                raise Bomb(f"a row group with more than {MOST_VALUES} values in a column of lists")
        chunk.at += length + packed

    def _ahead(self, offset: int) -> tuple[int, int, int, int]:
        back = self.file.tell()
        try:
            for size in (1 << 12, 1 << 20, _HEADER):
                self.file.seek(offset)
                try:
                    return _sizes(self.file.read(size), 0)
                except IndexError:
                    continue
            raise OSError(f"the page header at {offset} has no end")
        finally:
            self.file.seek(back)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """Whoever opened the file closes it."""


def footer(file: BinaryIO, most: int) -> None:
    """Damage where the file's end is no Parquet footer of at most `most` bytes: in memory it takes many times that."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    if len(tail) < 8 or tail[4:] not in (b"PAR1", b"PARE"):
        raise Damage("damaged", "no Parquet file: its end is not a Parquet file's")
    if (length := int.from_bytes(tail[:4], "little")) > most:
        raise Damage("damaged", f"no Parquet file: its footer says it has {length} bytes, and {most} are the most")
    file.seek(0)


def _sizes(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Length of the header at `at`, its uncompressed_page_size (field 2) and compressed_page_size (3), in bytes, and
    how many values a page of data has: the first field of its data_page_header (5), or of that of version 2 (8).

    IndexError where the data ends before the header does.
    """
    found, begin, field = dict[int, int](), at, 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            field += kind >> 4
        else:
            field, at = _number(data, at)
        if kind & 15 == 5 and field in (2, 3):
            found[field], at = _number(data, at)
        elif kind & 15 == 12 and field in (5, 8) and data[at] == 0x15:  # the number of the next field
            found[_VALUES], _ = _number(data, at + 1)
            at = _skip(data, at, 12, _DEPTH)
        else:
            at = _skip(data, at, kind & 15, _DEPTH)
    if min(found.get(2, -1), found.get(3, -1)) < 0:
        raise OSError(f"a page header without sizes: {data[begin : begin + 16].hex(' ')}")
    return at + 1 - begin, found[2], found[3], found.get(_VALUES, 0)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at
        if shift > 63:
            raise OSError("a number in a page header has no end")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A signed number (zigzag) and where it ends."""
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    """Where a value of Thrift's compact protocol ends."""
    if not depth:
        raise OSError("a page header is nested too deeply")
    match kind:
        case 1 | 2:  # true, false
            return at
        case 3:
            return _within(data, at + 1)
        case 4 | 5 | 6:
            return _varint(data, at)[1]
        case 7:
            return _within(data, at + 8)
        case 8:
            size, at = _varint(data, at)
            return _within(data, at + size)
        case 12:
            while inner := data[at]:
                at = at + 1 if inner >> 4 else _varint(data, at + 1)[1]
                at = _skip(data, at, inner & 15, depth - 1)
            return at + 1
        case _:
            raise OSError(f"a page header holds a value of kind {kind}, which no Parquet file has")


def _within(data: bytes, at: int) -> int:
    """IndexError where the data ends before `at`."""
    if at > len(data):
        raise IndexError
    return at
