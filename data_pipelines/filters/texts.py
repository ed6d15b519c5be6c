"""Files that settings give by path, read whole or line by line: word lists and evaluation rows, plain or compressed.

Small local files that a user chose: a fault in one is an error for the user, never a quarantine. Corpora are read by
data_pipelines/sources.
"""

import bz2
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmtrain.artifacts.unpack import CHUNK, Damage, packing_of, unpack
from fmtrain.errors import InputError

ROWS = (".jsonl", ".json", ".txt", ".tsv")  # what `rows` reads, each also with one of PACKED
PACKED = (".gz", ".bz2", ".zst")
_MOST = 1 << 30  # bytes of a file's content


def text(path: str | Path) -> str:
    """The whole file, unpacked by its ending, as UTF-8."""
    path = Path(path)
    try:
        data = bytearray()
        for chunk in _chunks(path):
            data += chunk
            if len(data) > _MOST:
                raise InputError(f"{path} holds more than {_MOST >> 20} MiB; lists and evaluation rows are smaller")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is not there; give the path of a file on this machine") from None
    except (OSError, EOFError, Damage, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read ({e}); expected UTF-8 text, plain or as {', '.join(PACKED)}") from e


def _chunks(path: Path) -> Iterator[bytes]:
    """The file's content, unpacked, a piece at a time."""
    with bz2.open(path) if path.suffix == ".bz2" else open(path, "rb") as file:
        yield from unpack(iter(lambda: file.read(CHUNK), b""), packing_of(path.name))


def entries(path: str | Path) -> list[str]:
    """The lines of a list, stripped; empty ones and comments (#) left out."""
    return [line for raw in text(path).splitlines() if (line := raw.strip()) and not line.startswith("#")]


def rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """(number from 1, every string) of each row of an evaluation file; the number is the line's, in .json the item's.

    .jsonl and .txt: a row a line. .tsv: the same, its fields apart. .json: a list's items, or its lists' items.
    """
    path = Path(path)
    kind = next((k for k in reversed(path.suffixes) if k not in PACKED), "")
    if kind not in ROWS:
        raise InputError(f"{path}: an evaluation file ends in {', '.join(ROWS)}, also with {', '.join(PACKED)}")
    content = text(path)
    if kind == ".json":
        for number, item in enumerate(_items(_parsed(path, 0, content)), 1):
            yield number, list(strings(item))
        return
    for number, line in enumerate(content.split("\n"), 1):
        if not (line := line.strip()):
            continue
        if kind == ".jsonl":
            yield number, list(strings(_parsed(path, number, line)))
        else:
            yield number, line.split("\t") if kind == ".tsv" else [line]


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict) and any(isinstance(item, list) for item in value.values()):
        for item in value.values():
            yield from item if isinstance(item, list) else [item]
    else:
        yield value


def _parsed(path: Path, number: int, content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as e:  # deep nesting; a number of thousands of digits
        at = f"{path}:{number}" if number else str(path)
        raise InputError(f"{at}: not JSON ({e}); rows that are plain text belong in a .txt file") from e
