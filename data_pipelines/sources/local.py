"""Files by path or URL: JSON lines, Parquet, WARC, text; all but Parquet also .gz and .zst.

Plain JSON lines of 64 MiB and more are read in ranges of bytes, Parquet in row groups; of other files every task reads
all bytes and takes each n-th record, since what costs is decoding and filtering. Under `data.split` a piece of a text
is a document (pieces.py); of a text file a record is a piece.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from data_pipelines.document import Document
from data_pipelines.lines import POSITION_BITS
from data_pipelines.sources.fields import Fields, group_of, source_of
from data_pipelines.sources.parquet import read as read_parquet
from data_pipelines.sources.pieces import Piece, decoded, pieces
from data_pipelines.sources.records import RAW_BYTES, Damage, Fault, OnHash, Unit
from data_pipelines.sources.stream import Input, read_lines, unpack
from data_pipelines.sources.warc import read as read_warc
from fmtrain.artifacts.stage import Source
from fmtrain.errors import InputError
from fmtrain.schema import plugins, splits
from fmtrain.schema.formats import form
from fmtrain.schema.sources import Local

RANGES = 64 << 20  # bytes from which plain JSON lines are read in ranges: a fixed size, so that no id depends on tasks
_MB = 1_000_000
# Bits of a piece's place that number the pieces of a row: a row's number leaves no room for them, and the byte at which
# a line of JSON begins is followed by one byte or more for each of its text's letters.
_PIECE_BITS = {".parquet": 20}


def in_ranges(source: Source) -> bool:
    kind, packing = form(source.name, source.path)
    return _READERS.get(kind) is _json_lines and not packing and source.size >= RANGES


def read(data: Local, unit: Unit, on_hash: OnHash) -> Iterator[Document | Fault]:
    """The documents and faults of a unit, in the file's order."""
    kind, packing = form(unit.source.name, unit.source.path)
    if kind in plugins.READERS:
        yield from plugins.READERS[kind](data, unit, on_hash)
        return
    partial = kind == ".parquet" or in_ranges(unit.source)  # then the first unit alone hashes the file
    with Input(unit.source, whole=not partial or unit.offset == 0, alive=unit.alive) as file:
        records, split = _READERS[kind](data, unit, file, packing), splits.parse(data.split)
        yield from records if split is None else _in_pieces(data, split, records, _PIECE_BITS.get(kind, 0))
        if digest := file.finish():
            on_hash(unit.source.name, digest)


def _in_pieces(
    data: Local, split: splits.Split, records: Iterator[Document | Fault], bits: int
) -> Iterator[Document | Fault]:
    """The records with each row's text cut as `data.split` says. Those of a text file are cut where it is read."""
    for record in records:
        if isinstance(record, Fault) or record.piece:
            yield record
            continue
        counts, place = record.counts, record.line << bits
        cut = pieces(split, iter([record.text]), data.max_line_mb * _MB) if record.text else [Piece(1, 0, "")]
        for piece in cut:
            if bits and piece.number >> bits or record.line >> (POSITION_BITS - bits):
                raise InputError(
                    f"{record.file}, row {record.line}: data.split={data.split} takes {2**bits:,} pieces of a row and "
                    f"{2 ** (POSITION_BITS - bits):,} rows of a file; give longer pieces, or several files"
                )
            made = _document(record.id, piece, record, place + piece.number - 1)
            made.counts, counts = counts, {}  # what the row is counted for, once
            yield made


def _document(id: str, piece: Piece, of: Document, place: int) -> Document:
    """A piece as a document: held out or not by its own text, since a text's pieces are all that there may be."""
    return Document(
        f"{id}#{piece.number}", piece.text, group_of(piece.text), of.source, of.file, place, dict(of.meta), piece.number
    )


def _json_lines(data: Local, unit: Unit, file: Input, packing: str) -> Iterator[Document | Fault]:
    fields, limit = Fields(data, unit.source.name), data.max_line_mb * _MB
    if in_ranges(unit.source):
        for line in _range(unit, file, limit):
            if isinstance(line, Fault):
                yield line
            else:
                yield fields.json(0, *line[1:])  # a number would take reading all that comes before
        return
    stride, mine = unit.stride, (unit.offset + 1) % unit.stride
    for line in read_lines(unpack(file.raw(), packing), unit.source.name, limit):
        if isinstance(line, Fault):
            if line.line % stride == mine:
                yield line
        elif line[0] % stride == mine:
            yield fields.json(*line)


def _range(unit: Unit, file: Input, limit: int) -> Iterator[tuple[int, int, bytes] | Fault]:
    """The lines that begin within the unit's part of the file."""
    begin, end = (unit.source.size * n // unit.stride for n in (unit.offset, unit.offset + 1))
    start = max(0, begin - 1)
    lines = read_lines(file.raw(start), unit.source.name, limit, start)
    if begin:
        next(lines, None)  # the end of a line that is another unit's, if only its last byte
    for line in lines:
        at = line.offset if isinstance(line, Fault) else line[1]
        if at >= end:
            return
        if isinstance(line, Fault):
            line = replace(line, line=0)
        yield line


def _text(data: Local, unit: Unit, file: Input, packing: str) -> Iterator[Document | Fault]:
    """A document a file, or each n-th piece of it."""
    if (split := splits.parse(data.split)) is not None:
        yield from _text_pieces(data, split, unit, unpack(file.raw(), packing))
        return
    if unit.offset:
        return
    name, limit = unit.source.name, data.max_line_mb * _MB
    parts: list[bytes] = []
    size = 0
    try:
        for chunk in unpack(file.raw(), packing):
            size += len(chunk)
            if size > limit:
                detail = f"more than data.max_line_mb allows ({limit} bytes)"
                yield Fault(name, 0, 0, "record_too_long", detail, b"".join(parts)[:RAW_BYTES])
                return
            parts.append(chunk)
        text = b"".join(parts).decode("utf-8-sig")
    except Damage as e:
        yield Fault(name, 0, 0, e.reason, e.detail, b"".join(parts)[:RAW_BYTES])
    except UnicodeDecodeError as e:
        yield Fault(name, 0, 0, "not_utf8", f"byte {e.start}: {e.reason}", b"".join(parts)[:RAW_BYTES])
    else:
        meta = {"content_type": "text/markdown"} if form(name, unit.source.path)[0] == ".md" else {}
        yield Document(name, text, source=source_of(name), file=name, meta=meta)


def _text_pieces(data: Local, split: splits.Split, unit: Unit, content: Iterator[bytes]) -> Iterator[Document | Fault]:
    name = unit.source.name
    whole = Document(name, "", source=source_of(name), file=name)
    for piece in pieces(split, decoded(content), data.max_line_mb * _MB, is_file=True):
        if (piece.number - 1) % unit.stride != unit.offset:
            continue
        if piece.reason:
            yield Fault(name, 0, piece.start, piece.reason, piece.detail, piece.raw)
        else:
            yield _document(name, piece, whole, piece.start)


def _warc(data: Local, unit: Unit, file: Input, packing: str) -> Iterator[Document | Fault]:
    yield from read_warc(unit, unpack(file.raw(), packing), data.max_line_mb * _MB)


def _parquet(data: Local, unit: Unit, file: Input, packing: str) -> Iterator[Document | Fault]:
    yield from read_parquet(data, unit, file.file)


_READERS: dict[str, Callable[[Local, Unit, Input, str], Iterator[Document | Fault]]] = {
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".ndjson": _json_lines,
    ".txt": _text,
    ".md": _text,
    ".warc": _warc,
    ".wet": _warc,
    ".parquet": _parquet,
}
