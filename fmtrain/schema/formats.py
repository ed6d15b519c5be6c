"""Which files of documents are read, by their names: the planner refuses others, the reader chooses by them."""

from pathlib import PurePosixPath

from fmtrain.errors import InputError
from fmtrain.schema import plugins

FORMATS = (".jsonl", ".json", ".ndjson", ".txt", ".md", ".warc", ".wet", ".parquet")
PACKINGS = (".gz", ".zst")  # of all but Parquet


def form(name: str, path: str) -> tuple[str, str]:
    """What a file holds and how it is packed: (".jsonl", ".zst"); InputError names `path` where nobody reads it."""
    if (own := plugins.reader_of(name)) is not None:
        return own, ""
    last = PurePosixPath(name)
    packing = last.suffix.lower() if last.suffix.lower() in PACKINGS else ""
    kind = (PurePosixPath(last.stem) if packing else last).suffix.lower()
    if kind not in FORMATS or (packing and kind == ".parquet"):
        raise InputError(
            f"{path}: data.files takes {', '.join(k for k in FORMATS if k != '.parquet')}, each also as "
            f"{' and '.join(PACKINGS)}, and .parquet. Make it one of these, or add a reader: docs/corpus/plugins.md"
        )
    return kind, packing
