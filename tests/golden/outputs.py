"""What an artifact holds, as lines that can be kept and compared: NAME -> a hash, or numbers.

Contents are taken, not how they are packed. What was computed in floating point is split: words, whole numbers and
shape go into a hash, the numbers into columns of their own, since other processors give other last bits.
"""

import gzip
import hashlib
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import zstandard
from safetensors.numpy import load_file

from fmtrain.artifacts.manifest import Manifest

Line = str | list[float]
Lines = dict[str, Line]

DIGITS = 4  # decimals of a number that is kept
LEFT_OUT = {  # fields, and why nothing is made of them
    "seconds": "of the clock",
    "step_seconds": "of the clock",
    "data_wait_seconds": "of the clock",
    "tokens_per_second": "of the clock",
    "numerics": "of the machine; versions are kept beside (golden.py)",
    "host_cpus": "of the machine",
}
_COMPUTED = ("metrics.jsonl", "training.json", "reference.jsonl", "evaluation.json")
_EXACT = ("lr", "beta")  # numbers in them that are no sums
_ROUNDING = ("accuracy",)  # of a step: at dpo's first, policy and reference are one, and the last bit says who is ahead
_SENTENCES = ("sentence", "verdicts")  # that say numbers
_RENDERED = ("report.html", "README.md")  # those numbers laid out
_OF_OTHERS = ("payload", "git", "packages")  # of a lineage: what other stages were given, and by which code
_SETTINGS = re.compile(r'\{\n "data": .*?^\}', re.M | re.S)  # of a corpus's card: what it was given
_DECIMAL, _NUMBER = re.compile(r"\d+\.\d+"), re.compile(r"\d[\d.,]*")


def lines(folder: Path, manifest: Manifest, names: dict[str, str]) -> Lines:
    """Of an artifact's files and of what its manifest says beside them. `names` takes the place of what stands in files
    and is no output: fingerprints, paths."""
    found: Lines = {"counts": json.dumps(manifest.counts), **_columns("metrics", manifest.metrics)}
    for name in sorted(manifest.files):
        found |= _file(folder / name, name, names)
    return found


def _file(path: Path, name: str, names: dict[str, str]) -> Lines:
    if path.suffix == ".safetensors":
        return _weights(path, name)
    if path.suffix == ".parquet":
        return {name: _hash(json.dumps(pq.read_table(path).to_pylist()))}
    if path.suffix in (".tokens", ".ends"):
        return {name: _hash(path.read_bytes())}
    text = _unpacked(path).decode()
    for word, name_ in names.items():
        text = text.replace(word, name_)
    if path.name in _COMPUTED:
        rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        return _columns(name, rows)
    if path.name == "lineage.json":
        said = json.loads(text)
        known = [{key: v for key, v in one.items() if key not in _OF_OTHERS} for one in said["ancestors"]]
        return {name: _hash(json.dumps({**said, "ancestors": known}))}
    if path.name == "card.json":
        return {name: _hash(json.dumps({key: v for key, v in json.loads(text).items() if key != "config"}))}
    if path.stem == "card":
        text = _SETTINGS.sub("", html.unescape(text))
    return {name: _hash(_NUMBER.sub("#", text) if path.name in _RENDERED else text)}


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with zstandard.open(path, "rb") as f:
            content: bytes = f.read()
        return content
    return path.read_bytes()


def _weights(path: Path, name: str) -> Lines:
    """Names, shapes and types, and the length of all weights as one vector."""
    found = load_file(path)
    shape = {key: [str(value.dtype), *value.shape] for key, value in sorted(found.items())}
    norm = math.sqrt(sum(float((value.astype("f8") ** 2).sum()) for value in found.values()))
    return {name: _hash(json.dumps(shape)), f"{name} norm": [round(norm, DIGITS)]}


def _columns(name: str, value: Any) -> Lines:
    columns: dict[str, list[float]] = {}
    rest = _split(value, "", columns)
    made: Lines = {name: _hash(json.dumps(rest, ensure_ascii=False))}
    return made | {f"{name} {path}": column for path, column in columns.items()}


def _split(value: Any, path: str, columns: dict[str, list[float]]) -> Any:
    """`value` without its floats, which go to the column of their path: places in lists do not count in it."""
    last = path.rpartition(".")[2]
    if isinstance(value, float) and last not in _EXACT:
        if last not in _ROUNDING:
            columns.setdefault(path, []).append(round(value, DIGITS))
        return None
    if isinstance(value, str):
        return _DECIMAL.sub("#", value) if last in _SENTENCES else value
    if isinstance(value, list):
        return [_split(v, path, columns) for v in value if not _is_left_out(v)]
    if isinstance(value, dict):
        kept = {key: v for key, v in value.items() if key not in LEFT_OUT}
        return {key: _split(v, f"{path}.{key}" if path else key, columns) for key, v in kept.items()}
    return value


def _is_left_out(value: Any) -> bool:
    """A curve of an evaluation over such a quantity."""
    return isinstance(value, dict) and value.get("quantity") in LEFT_OUT


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def differences(was: Lines, now: Lines) -> list[str]:
    """What is not the same, a line of each; a number is where it lies within one in the last digit that is kept."""
    names = [*was, *(name for name in now if name not in was)]
    pairs = ((name, was.get(name), now.get(name)) for name in names)
    return [f"{name}: {_told(old, new)}" for name, old, new in pairs if not _same(old, new)]


def _same(was: Line | None, now: Line | None) -> bool:
    if not (isinstance(was, list) and isinstance(now, list) and len(was) == len(now)):
        return was == now
    return all(abs(a - b) <= 1.5 * 10**-DIGITS * max(1.0, abs(a)) for a, b in zip(was, now, strict=True))


def _told(was: Line | None, now: Line | None) -> str:
    """Of counts those that differ."""
    if isinstance(was, str) and isinstance(now, str) and was.startswith("{"):
        old, new = json.loads(was), json.loads(now)
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in keys)
    return f"{_shown(was)} -> {_shown(now)}"


def _shown(line: Line | None) -> str:
    if line is None:
        return "none"
    return line if isinstance(line, str) else " ".join(map(str, line[:6])) + (" .." if len(line) > 6 else "")
