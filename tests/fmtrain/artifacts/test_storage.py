"""Records that a process may have left half written."""

import json
from pathlib import Path

import pytest

from fmtrain.artifacts.storage import append_row, read_left, read_rows


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    rows = [{"n": 0}, {"n": "\u2028\u00fc"}, {"n": 2}]
    for row in rows:
        append_row(path, row)
        with open(path, "ab") as f:
            f.write(b'{"n": "\xc3')  # of a process that was killed in the middle of a letter
    assert read_rows(path) == rows


@pytest.mark.parametrize("text", [None, "", "[", "null", "[]", '{"a": 1}', "\xff", "[" * 100_000])
def test_what_is_left_is_of_the_kind_that_is_asked_for(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "left.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert read_left(path, dict) == (json.loads(text) if text and "a" in text else {})
    assert read_left(path, list) == []
