"""What a stage announces is shown once, and all of it, also what it said in its last moment."""

import io
import json
from pathlib import Path

import pytest

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.worker import announce
from launch.terminal import Live, progress_text, read_progress, table


def test_announcements_are_passed_on(tmp_path: Path) -> None:
    stage = Stage("tokens", "tokens", "tokens", "f", "r", {}, {}, {}, [], "", folder=tmp_path)
    out = io.StringIO()
    live = Live("tokens", tmp_path / "progress.json", out)
    live.poll()
    announce(stage, "source  planned\nweb     5,000")
    live.poll()
    live.poll()
    announce(stage, "warning: the last word")
    live.hear()
    live.close("  tokens     tokens@v1 in 1 s")
    assert out.getvalue() == (
        "    source  planned\n    web     5,000\n    warning: the last word\n  tokens     tokens@v1 in 1 s\n"
    )


def test_progress_in_words(tmp_path: Path) -> None:
    state = {"done": 12345, "total": 50000, "unit": "documents", "rate": 1234.5, "seconds_left": 31.0}
    assert progress_text(state | {"mb_per_second": 5.61}) == "12,345/50,000 documents, 1,234/s, 5.6 MB/s, 31 s left"
    assert progress_text(json.loads(json.dumps({"done": 3, "unit": "steps", "rate": 2.1}))) == "3 steps, 2.1/s"


@pytest.mark.parametrize("text", ["", "[1]", '{"done": 1', "null"])
def test_progress_that_is_none_is_not_shown(text: str, tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(text)
    assert read_progress(tmp_path / "progress.json") is None


def test_the_last_column_of_a_table_is_wrapped_to_the_terminal() -> None:
    rows = [("setting", "what"), ("warmup_steps", "where epochs make fewer steps, a tenth of these")]
    lines = table(rows, 40).splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 40 and lines[2].startswith(" " * 14)
    assert " ".join(line[14:].strip() for line in lines[1:]) == rows[1][1]
    assert table(rows) == table(rows, None) and len(table(rows).splitlines()) == 2
    below = table(rows, 30).splitlines()
    assert below[:4] == ["setting", "    what", "warmup_steps", "    where epochs make fewer"] and len(below) == 5
