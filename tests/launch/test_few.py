"""What a plan says where documents are too few or too large to be parted, and that it looks at little for it."""

import gzip
import json
from pathlib import Path

import pytest

from fmtrain.artifacts.sources import identify
from fmtrain.errors import ConfigError
from fmtrain.kinds import few
from fmtrain.schema.load import identity
from fmtrain.schema.rules import Filter, GopherQuality, Length
from fmtrain.schema.sources import Local, is_heldout
from launch.compose import compose
from launch.graph import build

KEYS = {"data": "data", "filter": "filter"}
TOKENS = ["recipe=tokens", "data=local"]


def said(*overrides: str) -> str:
    return " ".join(build(compose([*TOKENS, *overrides])).said)


def text(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_text("word " * (size // 5))
    return path


def rows(path: Path, number: int, words: int = 40) -> Path:
    lines = "".join(json.dumps({"id": f"r{n}", "text": f"word{n} " * words}) + "\n" for n in range(number))
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


def test_one_document_cannot_have_both_sides(tmp_path: Path) -> None:
    files = f"data.files={text(tmp_path, 'a.txt', 100)}"
    with pytest.raises(ConfigError, match=r"one document, a\.txt: it would be trained on.*Cut it.*data\.split=para"):
        build(compose([*TOKENS, files]))
    assert "one document" not in said(files, "data.split=paragraphs")
    assert "one document" not in said(files, "data.heldout_modulus=0")


def test_files_of_text_are_parted_by_their_names(tmp_path: Path) -> None:
    names = [f"{n}.txt" for n in range(200)]
    held = next(name for name in names if is_heldout(name, 20))
    trained = [name for name in names if not is_heldout(name, 20)][:3]
    for name in (held, *trained):
        text(tmp_path, name, 300 if name == held else 100)
    with pytest.raises(ConfigError, match=r"3 documents, a file each: all would be trained on"):
        build(compose([*TOKENS, f"data.files=[{','.join(f'{tmp_path}/{name}' for name in trained)}]"]))
    with pytest.raises(ConfigError, match=r"it would be held out"):
        build(compose([*TOKENS, f"data.files={tmp_path}/{held}"]))
    found = said(f"data.files={tmp_path}/*.txt")
    assert f"one document, {held}, is 50% of the text and held out whole" in found
    assert "1 more such. data.split=paragraphs makes many documents of each" in found


def test_a_large_document_beside_others(tmp_path: Path) -> None:
    text(tmp_path, "book.txt", 900_000)
    rows(tmp_path / "rows.jsonl.gz", 5000)
    found = said(f"data.files=[{tmp_path}/book.txt,{tmp_path}/rows.jsonl.gz]")
    assert "one document, book.txt, is " in found and "% of the text" in found
    assert "would be dropped by filter.gopher_quality.max_doc_words=100000, and it has some 150,000 words" in found
    share = int(found.split("% of the text")[0].rpartition(" ")[2])
    whole = 900_000 + len(gzip.decompress((tmp_path / "rows.jsonl.gz").read_bytes()))
    assert abs(share - 100 * 900_000 / whole) < 5
    found = said(f"data.files=[{tmp_path}/book.txt,{tmp_path}/rows.jsonl.gz]", "filter=none")
    assert "of the text and trained on whole. data.split=paragraphs" in found
    text(tmp_path, "small.txt", 2000)
    assert "one document" not in said(f"data.files=[{tmp_path}/small.txt,{tmp_path}/rows.jsonl.gz]")


def test_what_is_lost_whole_is_told(tmp_path: Path) -> None:
    files = [text(tmp_path, "a.txt", 1_200_000), rows(tmp_path / "b.jsonl", 3000)]
    sources = [identify(str(path), path.name) for path in files]

    def told(chosen: Filter, **settings: int) -> str:
        return " ".join(few.told(Local(**settings), chosen, sources, KEYS))

    assert "is not read, being over data.max_line_mb=1" in told(Filter("none"), max_line_mb=1)
    assert "filter.code.max_length=1000000, and it has some 1,200,000 char" in told(Filter("code", ["code"]))
    own = Filter("x", ["length"], length=Length(max_words=99))
    assert "dropped by filter.length.max_words=99, and it has some 200,000 words" in told(own)
    quality = Filter("x", ["gopher_quality"], gopher_quality=GopherQuality(max_doc_words=900_000))
    assert "dropped" not in told(quality)


def test_few_rows(tmp_path: Path) -> None:
    assert "some 7 documents, of which one in 20 is held out: maybe none" in said(
        f"data.files={rows(tmp_path / 'a.jsonl', 7)}"
    )
    assert "documents, of which" not in said(f"data.files={rows(tmp_path / 'a.jsonl', 70)}")


def test_pages_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"data\.split=lines:5 cuts text files, JSON lines and Parquet.*a\.warc"):
        build(compose([*TOKENS, f"data.files={tmp_path}/a.warc", "data.split=lines:5"]))


@pytest.mark.parametrize("given", ["lines", "lines:0", "chars:x", "words:5", "paragraphs:-1", "regex:"])
def test_a_form_that_is_none(given: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.split: .* is not none, paragraphs, .* or regex:PATTERN; e\.g\. "):
        compose([*TOKENS, "data.files=x.txt", f"data.split={given}"])


def test_what_was_made_before_there_was_a_split_is_known_still() -> None:
    assert "split" not in identity(Local())
    assert identity(Local(split="lines:5"))["split"] == "lines:5"
