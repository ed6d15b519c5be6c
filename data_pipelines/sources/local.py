"""Files on this machine: JSON lines (a document a line) and plain text (a document a file), plain, .gz or .zst.

A bad line is a record with its fault, never a crash and never silence; a damaged file is an InputError.
"""

from collections.abc import Iterator
from pathlib import Path

import orjson

from data_pipelines.sources.records import Record, read_decompressed, read_lines
from fmtrain.errors import InputError
from fmtrain.run.stage import Source
from fmtrain.schema.corpus import Local


def read(data: Local, source: Source, stride: int, offset: int) -> Iterator[Record]:
    """The records of a file whose number, from 0, is `offset` modulo `stride`. The whole file is read, and verified."""
    name = Path(source.name.removesuffix(".gz").removesuffix(".zst"))
    match name.suffix:
        case ".jsonl":
            yield from _json_lines(data, source, stride, offset)
        case ".txt":
            yield from _text(source, offset)
        case _:
            raise InputError(f"{source.path}: data.files takes .jsonl and .txt, each also as .gz and .zst")


def _text(source: Source, offset: int) -> Iterator[Record]:
    if offset:
        return
    try:
        text = b"".join(read_decompressed(source)).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        yield Record(source.name, "", source.name, source.name, 0, f"not UTF-8: {e}")
        return
    yield Record(source.name, text, source.name, source.name, 0)


def _json_lines(data: Local, source: Source, stride: int, offset: int) -> Iterator[Record]:
    for number, line in enumerate(read_lines(source)):
        if number % stride == offset and line.strip():  # a blank line holds no record
            yield _record(data, source.name, number + 1, line)


def _record(data: Local, source: str, line: int, content: bytes) -> Record:
    """One line decoded: bytes -> UTF-8 -> JSON -> an object with a text and perhaps an id."""
    place = f"{source}:{line}"
    try:
        text, given = _fields(data, content)
    except ValueError as e:
        return Record(place, "", place, source, line, str(e))
    return Record(given or place, text, given or place, source, line)


def _fields(data: Local, content: bytes) -> tuple[str, str]:
    """Text and id, "" where there is none; ValueError says what is wrong with the line."""
    try:
        row = orjson.loads(content)  # refuses invalid UTF-8, lone surrogates and NaN
    except orjson.JSONDecodeError as e:
        raise ValueError(f"not JSON: {str(e)[:120]}") from e
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}, not an object")
    if data.text_key not in row:
        raise ValueError(f"no key {data.text_key!r} (data.text_key)")
    text, given = row[data.text_key], row.get(data.id_key)
    if not isinstance(text, str):
        raise ValueError(f"{data.text_key!r} is a {type(text).__name__}, not a string")
    if given is not None and (isinstance(given, bool) or not isinstance(given, (str, int))):
        raise ValueError(f"{data.id_key!r} is a {type(given).__name__}, not a string or whole number (data.id_key)")
    return text, "" if given is None else str(given)
