"""Files that are no JSON lines: what they are is said, and the command that is advised makes JSON lines of them."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest
import zstandard

from fmtrain.artifacts.rows import look
from fmtrain.artifacts.sources import identify
from fmtrain.errors import InputError
from fmtrain.schema.sources import Rows

ROWS = [{"prompt": "q, \u00e9", "completion": "a"}, {"prompt": "r", "completion": "b"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,completion\n"q, é",a\nr,b\n'


def seen(path: Path) -> frozenset[str]:
    return look(Rows(), [identify(str(path), path.name)]).forms  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("is a JSON array", json.dumps(ROWS, indent=1).encode()),
        ("is a JSON array", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("is one JSON object over many lines", json.dumps(ROWS[0], indent=1).encode()),
        ("looks like CSV", CSV.encode("utf-8-sig")),
        ("looks like CSV", CSV.replace("q, é", "q").replace(",", ";").encode()),
        ("looks like tab-separated values", b"prompt\tcompletion\r\nq\ta\r\n"),
        ("is UTF-16, and", JSONL.encode("utf-16")),
        ("is UTF-16LE, and", JSONL.encode("utf-16-le")),
        ("is UTF-16BE, and", JSONL.encode("utf-16-be")),
        ("is UTF-32, and", JSONL.encode("utf-32")),
    ],
)
def test_the_advised_command_makes_rows(tmp_path: Path, what: str, content: bytes) -> None:
    file = tmp_path / "it's [my] rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError) as e:
        seen(file)
    said = str(e.value)
    assert said.startswith(f"{file} {what}"), said
    command = said[said.index("Convert it: ") + len("Convert it: ") :]
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert seen(tmp_path / "rows.jsonl") == {"prompt_completion"}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("r.jsonl", gzip.compress(b"{}", mtime=0), "gzip data and its name does not say so: give it the ending .gz"),
        ("r.jsonl", zstandard.compress(b"{}"), "Zstandard data .* ending .zst"),
        ("r.jsonl", b"PAR1", "is Parquet and its name does not say so: give it the ending .parquet"),
        ("r.jsonl", b"PK\x03\x04", "a ZIP archive: unpack it"),
        ("r.jsonl", b"<!doctype html>", "HTML or XML"),
        ("r.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        ("r.jsonl.GZ", gzip.compress(b'[{"a": 1}]', mtime=0), "JSON array.*Unpack it, then convert"),
        ("r.jsonl", b"", "hold no row at all"),
        ("r.jsonl", b"\n\n", "hold no row at all"),
        ("r.jsonl", b'{"question": "q", "answer": "a"}\n', "none of the 1 rows .*are answer, question.*prompt_key"),
        ("r.jsonl.gz", gzip.compress(JSONL.encode(), mtime=0)[:-9], "is cut short"),
    ],
)  # fmt: skip
def test_what_is_said_of_others(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){what}"):
        seen(tmp_path / name)
