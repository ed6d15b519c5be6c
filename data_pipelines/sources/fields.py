"""One decoded row to a document: which key holds what, and of which type it must be.

Without a text or with an id of another type a row is a fault. What else is known of it (address, date, licence, content
type, source) is optional: a value that cannot be used is left out and counted under `unreadable.FIELD`, since the text
is good.
"""

import datetime
import math
from collections.abc import Callable
from typing import Any

import orjson
import xxhash

from data_pipelines.document import Document
from data_pipelines.sources.records import RAW_BYTES, Fault
from fmtrain.artifacts.mistaken import START, mistaken
from fmtrain.artifacts.unpack import PACKINGS, packing_of
from fmtrain.schema.sources import Keys

_YEAR_9999 = 253_402_300_800  # in seconds since 1970
_ABSENT = object()


class Fields:
    """Makes the documents of one input file."""

    def __init__(self, data: Keys, file: str) -> None:
        self.file, self.source = file, source_of(file)
        self.text, self.id, self.from_row = key(data.text_key), key(data.id_key), key(data.source_key)
        self.text_key, self.id_key = data.text_key, data.id_key
        self.known: list[tuple[str, Callable[[dict[str, Any]], Any], Callable[[Any], Any]]] = [
            ("url", key(data.url_key), _text),
            ("date", key(data.date_key), seconds),
            ("license", key(data.license_key), _text),
            ("content_type", key(data.content_type_key), _text),
        ]

    def json(self, line: int, offset: int, content: bytes) -> Document | Fault:
        """A line of JSON: UTF-8, then JSON (orjson refuses lone surrogates, NaN and raw control characters)."""
        if not content or content.isspace():
            return Fault(self.file, line, offset, "blank_line", "no record stands here", content[:RAW_BYTES])
        try:
            row = orjson.loads(content)
        except orjson.JSONDecodeError as e:
            reason, detail = _why(content, e)
            return Fault(self.file, line, offset, reason, self._other(offset, content) or detail, content[:RAW_BYTES])
        if not isinstance(row, dict) and (other := self._other(offset, content)):
            return Fault(self.file, line, offset, "not_an_object", other, content[:RAW_BYTES])
        return self.document(row, line, offset, lambda: content[:RAW_BYTES])

    def _other(self, offset: int, content: bytes) -> str | None:
        """What a file is that does not begin with a record: the word that helps most."""
        if offset:
            return None
        what = mistaken(content[:START], self.file, bool(packing_of(self.file)))
        return f"the file {what}" if what else None

    def document(self, row: Any, line: int, offset: int, raw: Callable[[], bytes]) -> Document | Fault:
        """The document of a decoded row; `raw` gives its bytes where it has none."""

        def fault(reason: str, detail: str) -> Fault:
            return Fault(self.file, line, offset, reason, detail, raw())

        if not isinstance(row, dict):
            return fault("not_an_object", f"a JSON {type(row).__name__}; one object a line is expected")
        text, given, source, group = self.text(row), self.id(row), self.from_row(row), ""
        if text is _ABSENT:
            return fault("no_text", f"no key {self.text_key!r} (data.text_key)")
        if not isinstance(text, str):
            return fault("text_not_a_string", f"{self.text_key!r} is a {type(text).__name__} (data.text_key)")
        if given is _ABSENT or given is None or given == "":
            given, group = f"{self.file}:{offset}", group_of(text)
        elif not isinstance(given, (str, int)) or isinstance(given, bool):
            return fault("bad_id", f"{self.id_key!r} is a {type(given).__name__}, not a string or whole number")
        document = Document(
            str(given), text, group, source if source and isinstance(source, str) else self.source, self.file, offset
        )
        for name, get, convert in self.known:
            value = get(row)
            if value is not _ABSENT and value is not None and value != "":
                if (used := convert(value)) is None:
                    document.count(f"unreadable.{name}")
                else:
                    document.meta[name] = used
        return document


def group_of(text: str) -> str:
    """The group of a document that nobody named: where it lies must not decide whether it is held out."""
    return xxhash.xxh3_128_hexdigest(text.encode())


def key(name: str) -> Callable[[dict[str, Any]], Any]:
    """Finds a key in a row: the whole name first, then, where it has dots, through nested objects."""
    steps = name.split(".")
    if len(steps) == 1:
        return lambda row: row.get(name, _ABSENT)

    def nested(row: dict[str, Any]) -> Any:
        if name in row:
            return row[name]
        value: Any = row
        for step in steps:
            value = value.get(step, _ABSENT) if isinstance(value, dict) else _ABSENT
        return value

    return nested


def source_of(file: str) -> str:
    """What a file's documents are accounted under: the first folder of its name, else the name without its endings."""
    first, _, rest = file.rpartition("://")[2].partition("/")
    if rest:
        return first
    for packing in PACKINGS:
        first = first[: -len(packing)] if first.lower().endswith(packing) else first
    return first.rpartition(".")[0] or first


def seconds(value: Any) -> int | None:
    """Seconds since 1970 of an ISO 8601 date (UTC where it names no zone) or of a number; None where it is neither."""
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if isinstance(value, datetime.datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return math.floor((zoned - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds())
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _YEAR_9999:
        return None
    return math.floor(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _why(content: bytes, error: ValueError) -> tuple[str, str]:
    try:
        content.decode()
    except UnicodeDecodeError as e:
        return "not_utf8", f"byte {e.start} of the line: {e.reason}"
    return "not_json", str(error)[:120]
