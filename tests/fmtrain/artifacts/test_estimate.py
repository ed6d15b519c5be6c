"""The number of records is about right before anything is read."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from fmtrain.artifacts.estimate import records
from fmtrain.artifacts.sources import identify

LINES = "".join(json.dumps({"text": f"document {n} " * (n % 40)}) + "\n" for n in range(20_000)).encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_of_the_start_tell_those_of_the_whole(suffix: str, tmp_path: Path) -> None:
    packed = {"": LINES, ".gz": gzip.compress(LINES), ".zst": zstandard.compress(LINES)}[suffix]
    sources = []
    for n in range(3):
        (tmp_path / f"{n}.jsonl{suffix}").write_bytes(packed)
        sources.append(identify(str(tmp_path / f"{n}.jsonl{suffix}"), f"{n}.jsonl{suffix}"))
    found = records(sources)
    assert found is not None and abs(found - 60_000) < 18_000


def test_a_text_file_is_a_document_and_others_do_not_say(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    text = identify(str(tmp_path / "a.txt"), "a.txt")
    assert records([text]) == 1
    (tmp_path / "a.warc").write_text("")
    assert records([identify(str(tmp_path / "a.warc"), "a.warc")]) is None
