"""What artifacts of text hold, as dicts: their files are read as they stand, row by row.

No more than a row's text is in memory, and of tokens where the documents of one shard end.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from fmtrain.artifacts.lines import Fault, read_lines
from fmtrain.artifacts.storage import read_jsonl
from fmtrain.artifacts.unpack import CHUNK, packing_of, unpack
from fmtrain.errors import ConfigError, StoreError

SPLITS = ("train", "heldout")
FORMS = ("sft", "preference")
_LONGEST = 1 << 40  # bytes of a line: it is our own, and whatever was taken in is given out
Rows = Iterator[dict[str, Any]]


def check_split(ref: str, kind: str, split: str | None) -> None:
    if split is None or (split in SPLITS and kind != "tokens"):
        return
    if kind == "tokens":
        raise ConfigError(f"{ref}: tokens are of training documents alone; rows() without a split")
    raise ConfigError(f"{ref}: split={split!r} is not one of {', '.join(SPLITS)}")


def documents(corpus: Path, split: str | None) -> Rows:
    for name in _splits(split):
        for path in sorted([*(corpus / name).glob("*.jsonl.gz"), *(corpus / name).glob("*.jsonl.zst")]):
            with open(path, "rb") as raw:
                chunks = iter(partial(raw.read, CHUNK), b"")
                for line in read_lines(unpack(chunks, packing_of(path.name)), path.name, _LONGEST):
                    if isinstance(line, Fault):
                        raise StoreError(f"{path} is damaged: {line.detail}; remove the artifact and run again")
                    yield {"split": name, **orjson.loads(line[2])}


def examples(folder: Path, split: str | None) -> Rows:
    for name in _splits(split):
        for form in FORMS:
            for row in read_jsonl(folder / f"{form}.{name}.jsonl"):
                yield {"split": name, "form": form, **row}


def tokens(folder: Path, split: str | None) -> Rows:
    import numpy as np

    from fmtrain.data.shards import read_index

    number = 0
    for shard, ids in enumerate(read_index(folder).shards):
        start = 0
        for end in np.fromfile(folder / f"{shard:05d}.ends", "<u8").tolist():
            yield {"document": number, "shard": shard, "tokens": ids[start:end].tolist()}
            number, start = number + 1, end


def _splits(split: str | None) -> tuple[str, ...]:
    return SPLITS if split is None else (split,)


READERS: dict[str, Callable[[Path, str | None], Rows]] = {"corpus": documents, "examples": examples, "tokens": tokens}
