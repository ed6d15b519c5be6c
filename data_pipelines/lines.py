"""JSON lines that are written in the order of reading and read back in the order of their keys, in bounded memory.

`NAME.jsonl` holds the lines, `NAME.order` where each stands. A key orders records over all tasks: see `order_key`.
"""

import heapq
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

ORDER = np.dtype([("key", "<u8"), ("offset", "<u8"), ("size", "<u8")])
POSITION_BITS = 44  # 16 TiB a file, 2 ** 20 files


def order_key(file: int, position: int) -> int:
    """The place of a record in the whole input: files in the order of their names, positions within."""
    if position >> POSITION_BITS or file >> (64 - POSITION_BITS):
        raise ValueError(f"file {file}, position {position}: at most 2**20 files of at most 16 TiB")
    return file << POSITION_BITS | position


class LinesWriter:
    """Writes `folder/NAME.jsonl` and, when closed, `folder/NAME.order`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.file = open(folder / f"{name}.jsonl", "wb", buffering=1 << 20)  # noqa: SIM115 - closed by __exit__
        self.path = folder / f"{name}.order"
        self.offset = 0
        self.places = array("Q")  # key, offset, size of each line: 24 bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.file.close()
        if error is None:
            np.sort(np.frombuffer(self.places, ORDER), order="key").tofile(self.path)

    def put(self, key: int, row: dict[str, Any]) -> tuple[int, int]:
        """Write one line; its offset and size."""
        line = orjson.dumps(row) + b"\n"
        self.file.write(line)
        self.places.extend((key, self.offset, len(line)))
        self.offset += len(line)
        return self.offset - len(line), len(line)


def read_sorted(folder: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Key and row of every line of one pair of files, by key."""
    order = folder / f"{name}.order"
    if not order.stat().st_size:
        return
    with open(folder / f"{name}.jsonl", "rb") as file:
        for key, offset, size in np.memmap(order, ORDER, "r"):
            file.seek(int(offset))
            yield int(key), orjson.loads(file.read(int(size)))


def merge_sorted(folder: Path, names: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Key and row of every line of several pairs, by key; one line of each in memory."""
    return heapq.merge(*(read_sorted(folder, name) for name in names), key=lambda pair: pair[0])
