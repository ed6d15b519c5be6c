"""WARC and WET: the pages among the records of a crawl, as HTML or text; what extracts the main text comes later.

A document is a response or resource whose type is HTML, or a conversion to text (WET). Records are framed here, so that
a damaged one costs itself alone: the next begins where a line starts with `WARC/1.`. warcio reads their HTTP.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterator

from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord, ArcWarcRecordLoader
from warcio.statusandheaders import StatusAndHeadersParserException

from data_pipelines.document import Document
from data_pipelines.sources.fields import group_of, seconds, source_of
from data_pipelines.sources.records import RAW_BYTES, Damage, Fault, Unit

_TYPES = (b"response", b"resource", b"conversion")  # the records that may hold a page
_PAGES = {"text/html", "application/xhtml+xml"}
_MARK = re.compile(rb"\nWARC/1\.")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_AS_BROWSERS = {**dict.fromkeys(("iso-8859-1", "latin-1", "ascii", "us-ascii"), "cp1252"), "gb2312": "gb18030"}
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read(unit: Unit, content: Iterator[bytes], limit: int) -> Iterator[Document | Fault]:
    """Every `stride`-th page or fault; a record over `limit` bytes is a fault."""
    for number, record in enumerate(_records(_Buffer(content), unit.source.name, limit, unit.alive)):
        if number % unit.stride != unit.offset:
            continue
        if isinstance(record, Fault):
            yield record
        elif (page := _page(*record, unit.source.name, limit)) is not None:
            yield page


class _Buffer:
    """The content with what was not yet used of it; `offset` is where that begins in the decompressed file."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self.content, self.held, self.offset = content, bytearray(), 0

    def more(self) -> bool:
        chunk = next(self.content, b"")
        self.held += chunk
        return bool(chunk)

    def drop(self, size: int) -> bytes:
        """Use `size` bytes of those held."""
        part = bytes(self.held[:size])
        del self.held[:size]
        self.offset += len(part)
        return part

    def take(self, size: int) -> bytes:
        while len(self.held) < size and self.more():
            pass
        return self.drop(size)

    def skip(self, size: int) -> int:
        """How many bytes of `size` were there."""
        done = 0
        while done < size and (self.held or self.more()):
            done += len(self.drop(min(size - done, len(self.held))))
        return done

    def blank(self) -> None:
        """Use the empty lines between records."""
        while self.held or self.more():
            rest = self.held.lstrip(b"\r\n")
            self.drop(len(self.held) - len(rest))
            if rest:
                return

    def head(self) -> bytes:
        """Up to the empty line that ends a record's head; all that is held where there is none within 64 KiB."""
        while not (end := _END_OF_HEAD.search(self.held)) and len(self.held) < RAW_BYTES and self.more():
            pass
        return bytes(self.held[: end.end()] if end else self.held[:RAW_BYTES])

    def to_mark(self) -> bytes:
        """Use everything before the next line that begins a record; the first 64 KiB of it."""
        lost = b""
        while True:
            found = _MARK.search(self.held)
            size = found.start() + 1 if found else max(0, len(self.held) - 8)
            lost = (lost + self.drop(size))[:RAW_BYTES]
            if found:
                return lost
            if not self.more():
                return (lost + self.drop(len(self.held)))[:RAW_BYTES]


def _records(buffer: _Buffer, name: str, limit: int, alive: Callable[[], None]) -> Iterator[tuple[int, bytes] | Fault]:
    """(where it begins, its bytes) of each record that may hold a page, and what is wrong with others."""
    begin = 0
    try:
        while True:
            alive()
            buffer.blank()
            begin, head = buffer.offset, buffer.head()
            if not head:
                return
            length = re.search(rb"(?im)^content-length:\s*(\d{1,15})\s*$", head)
            kind = re.search(rb"(?im)^warc-type:\s*(\w+)", head)
            if not head.startswith(b"WARC/1.") or not _END_OF_HEAD.search(head) or not length or not kind:
                lost = buffer.to_mark()
                detail = f"no WARC record begins here; {buffer.offset - begin} bytes to the next one"
                yield Fault(name, 0, begin, "bad_record", detail, lost)
                continue
            size = len(head) + int(length[1])
            if kind[1].lower() not in _TYPES:
                if buffer.skip(size) < size:
                    yield Fault(name, 0, begin, "truncated", "the last record ends early", head[:RAW_BYTES])
            elif size > limit:
                raw = buffer.take(RAW_BYTES)
                buffer.skip(size - len(raw))
                detail = f"{size} bytes, and data.max_line_mb allows {limit}"
                yield Fault(name, 0, begin, "record_too_long", detail, raw)
            elif len(record := buffer.take(size)) < size:
                yield Fault(name, 0, begin, "truncated", "the last record ends early", record[:RAW_BYTES])
            else:
                yield begin, record
    except Damage as e:
        yield Fault(name, 0, begin, e.reason, e.detail, buffer.drop(RAW_BYTES))


def _page(offset: int, raw: bytes, name: str, limit: int) -> Document | Fault | None:
    """The page in a record, or None where it holds something else."""
    try:
        record: ArcWarcRecord = ArcWarcRecordLoader().parse_record_stream(io.BytesIO(raw))
        headers = record.http_headers if record.rec_type == "response" else record.rec_headers
        kind, _, parameters = ((headers and headers.get_header("Content-Type")) or "").lower().partition(";")
        if kind.strip() not in _PAGES and record.rec_type != "conversion":
            return None
        content = record.content_stream().read(limit + 1)
    except (ArchiveLoadFailed, StatusAndHeadersParserException, ValueError, OSError, EOFError) as e:
        return Fault(name, 0, offset, "bad_record", f"{type(e).__name__}: {e}"[:200], raw[:RAW_BYTES])
    if len(content) > limit:
        detail = f"its content is over the {limit} bytes that data.max_line_mb allows"
        return Fault(name, 0, offset, "record_too_long", detail, raw[:RAW_BYTES])
    given = {key: (record.rec_headers.get_header(key) or "").strip("<> ") for key in
             ("WARC-Record-ID", "WARC-Target-URI", "WARC-Date")}  # fmt: skip
    known = {"url": given["WARC-Target-URI"], "date": seconds(given["WARC-Date"]), "content_type": kind.strip()}
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters)
    text, id = decode(content, charset[1] if charset else ""), given["WARC-Record-ID"].removeprefix("urn:uuid:")
    return Document(
        id or f"{name}:{offset}",
        text,
        group="" if id else group_of(text),
        source=source_of(name),
        file=name,
        line=offset,
        meta={key: value for key, value in known.items() if value},
    )


def decode(content: bytes, declared: str) -> str:
    """A page's text: by its byte order mark, else the charset of its header, else that of its meta tag, else UTF-8.

    What does not decode so is read as UTF-8 where it is, else as declared, or as Windows-1252 by default, with U+FFFD
    in the place of bad bytes.
    """
    mark = next((name for bom, name in _BOMS.items() if content.startswith(bom)), "")
    meta = _META.search(content[:4096])
    named = [_codec(n) for n in (mark, declared, meta[1].decode("ascii", "ignore") if meta else "")]
    first = next((n for n in named if n), "")
    for name in (first, "utf-8"):
        try:
            text = content.decode(name) if name else ""
            text.encode()  # some codecs give lone surrogates
        except UnicodeError:
            continue
        if name:
            return text
    return content.decode(first or "cp1252", "replace").encode("utf-8", "replace").decode()


def _codec(name: str) -> str:
    """The codec that browsers use for a charset; "" for one that is none."""
    try:
        known = codecs.lookup(_AS_BROWSERS.get(name.strip().lower(), name.strip()))
    except (LookupError, ValueError):
        return ""
    return _AS_BROWSERS.get(known.name, known.name) if known._is_text_encoding else ""
