"""Evaluation sets that settings name, brought to this machine: one JSON lines file each, for rules to read.

The planner has pinned what a name stands for. They are read once for a stage, before its tasks, which may be many and
on machines without a way to the hub. The planner has refused two of one name.
"""

import dataclasses
from pathlib import Path
from typing import Any, cast

import orjson

from data_pipelines.filters.texts import strings
from data_pipelines.sources.hub import load_split, refusals
from fmtrain.artifacts.storage import write_text
from fmtrain.schema.evaluation_sets import parse
from fmtrain.schema.rules import Filter


def fetch(chosen: Filter, folder: Path, key: str) -> Filter:
    """The rules, which stand at `key`, with files in the place of the sets that those applied name: a list of strings a
    row. One that is there already is not read again."""
    for rule, settings in chosen.applied():
        for f in dataclasses.fields(cast(Any, settings)):
            entries, into = getattr(settings, f.name), f.metadata.get("data_sets")
            if into and entries:
                folder.mkdir(exist_ok=True)
                found = [str(_fetch(entry, folder, f"{key}.{rule}.{f.name}")) for entry in entries]
                made = {f.name: [], into: [*getattr(settings, into), *found]}
                chosen = dataclasses.replace(chosen, **{rule: dataclasses.replace(cast(Any, settings), **made)})
    return chosen


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
