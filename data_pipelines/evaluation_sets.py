"""Evaluation sets that settings name, brought to this machine: one JSON lines file each, for rules to read.

The planner has pinned what a name stands for. They are read once for a stage, before its tasks, which may be many and
on machines without a way to the hub. The planner has refused two of one name.
"""

from collections.abc import Sequence
from pathlib import Path

import orjson

from data_pipelines.filters.texts import strings
from data_pipelines.sources.hub import load_split, refusals
from fmtrain.artifacts.storage import write_text
from fmtrain.schema.evaluation_sets import parse


def fetch(entries: Sequence[str], folder: Path, key: str) -> list[str]:
    """The paths of the files, each a list of strings a row; one that is there already is not read again."""
    folder.mkdir(exist_ok=True)
    return [str(_fetch(entry, folder, key)) for entry in entries]


def _fetch(entry: str, folder: Path, key: str) -> Path:
    wanted = parse(entry, key)
    target = folder / f"{wanted.label.replace('/', '--')}.jsonl"
    if not target.exists():
        check = f"the configuration and the split of {entry}"
        with refusals(key, check, on_hub=not wanted.is_folder):
            found = load_split(wanted.path, wanted.config, wanted.split, wanted.revision, key, check)
            rows = [orjson.dumps(list(strings(row))).decode() for row in found]
        write_text(target, "\n".join(rows) + "\n")
    return target
