"""Reading files that somebody else wrote: every record is read or named, and a damaged file is an error."""

import gzip
import hashlib
import itertools
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import sources
from data_pipelines.sources.records import Record, read_lines
from fmtrain.errors import InputError
from fmtrain.run.stage import Source
from fmtrain.run.storage import sha256_file
from fmtrain.schema.corpus import Local, Stdlib

PACK = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def source(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    return Source(str(path), path.name, sha256_file(path))


def read(data: Local | Stdlib, src: Source, stride: int = 1, offset: int = 0) -> list[Record]:
    return list(sources.read(data, sources.Unit(src, stride, offset, 0)))


def test_lines_that_hold_no_document_are_named(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + json.dumps({"id": "bom", "text": "a"}).encode(),
        b"",
        b'{"text": "no id"}\r',
        b'{"id": 7, "text": "number"}',
        b'{"text": "cut',
        b"\xff\xfe",
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'["a"]',
        b'{"body": "a"}',
        b'{"text": 5}',
        b'{"text": null}',
        b'{"id": [1], "text": "a"}',
        b'{"text": "a\x00b"}',
        b'{"id": "last", "text": "no line end"}',
    ]
    records = read(Local(), source(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert [r.id for r in records if not r.fault] == ["bom", "a.jsonl:3", "7", "last"]
    assert [r.line for r in records if r.fault] == list(range(5, 15))
    assert all(r.id == f"a.jsonl:{r.line}" for r in records if r.fault)


@pytest.mark.parametrize("suffix", PACK)
def test_several_tasks_read_a_file_together(tmp_path: Path, suffix: str) -> None:
    content = b"".join(b'{"text": "%d"}\n' % i for i in range(10_000))
    src = source(tmp_path / f"a.jsonl{suffix}", PACK[suffix](content))
    parts = [read(Local(), src, 3, offset) for offset in range(3)]
    assert sorted(int(r.text) for part in parts for r in part) == list(range(10_000))
    assert [len(p) for p in parts] == [3334, 3333, 3333]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_several_members(tmp_path: Path, suffix: str) -> None:
    content = PACK[suffix](b'{"text": "a"}\n{"te') + PACK[suffix](b'xt": "b"}\n')
    assert [r.text for r in read(Local(), source(tmp_path / f"a.jsonl{suffix}", content))] == ["a", "b"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_or_damaged_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    lines = (hashlib.sha256(str(i).encode()).hexdigest() for i in itertools.count())
    content = b"".join(json.dumps({"text": next(lines)}).encode() + b"\n" for _ in range(5000))
    whole = PACK[suffix](content)
    for cut in (0, 3, 10, len(whole) // 2, len(whole) - 1):
        with pytest.raises(InputError, match=f"a.jsonl{suffix}"):
            read(Local(), source(tmp_path / f"a.jsonl{suffix}", whole[:cut]))
    damaged = bytearray(whole)
    damaged[0] ^= 0xFF
    with pytest.raises(InputError, match="damaged"):
        read(Local(), source(tmp_path / f"a.jsonl{suffix}", bytes(damaged)))


def test_a_changed_or_missing_file_is_an_error(tmp_path: Path) -> None:
    src = source(tmp_path / "a.jsonl", b'{"text": "a"}\n')
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "b"}\n')
    with pytest.raises(InputError, match="has changed since"):
        read(Local(), src)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read"):
        read(Local(), src)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.jsonl and \.txt"):
        read(Local(), source(tmp_path / "a.parquet", b"PAR1"))


def test_text_file_is_one_document(tmp_path: Path) -> None:
    (record,) = read(Local(), source(tmp_path / "a.txt.gz", gzip.compress("ä\nb\n".encode())))
    assert (record.id, record.group, record.text) == ("a.txt.gz", "a.txt.gz", "ä\nb\n")
    assert read(Local(), source(tmp_path / "b.txt", b"\xff"))[0].fault


def test_source_code_declares_its_encoding(tmp_path: Path) -> None:
    src = source(tmp_path / "a.py", "# -*- coding: latin-1 -*-\nx = 'ä'\r\n".encode("latin-1"))
    (record,) = read(Stdlib(), src)
    assert record.text == "# -*- coding: latin-1 -*-\nx = 'ä'\r\n" and record.group == "a"
    assert read(Stdlib(), source(tmp_path / "b.py", b"# coding: nonesuch\n"))[0].fault
    assert read(Stdlib(), source(tmp_path / "c.py", b"x = '\xff'\n"))[0].fault


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=20))
def test_lines_are_what_split_says(lines: list[bytes]) -> None:
    import tempfile

    content = b"\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        found = list(read_lines(source(Path(folder) / "a.jsonl", content)))
    expected = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert found + [b""] == expected or found == expected


def test_dealing_covers_every_record_once(tmp_path: Path) -> None:
    files = [Source(str(i), f"f{i}", "0") for i in range(5)]
    sizes = {str(i): 10**i for i in range(5)}
    for tasks in (1, 2, 7):
        dealt = sources.deal(Local(), files, sizes, tasks)
        assert len(dealt) == tasks
        units = [u for part in dealt for u in part]
        for file in files:
            mine = [u for u in units if u.source == file]
            assert sorted(u.offset for u in mine) == list(range(mine[0].stride)) and len(mine) == mine[0].stride
    assert sources.deal(Local(), files, sizes, 3) == sources.deal(Local(), files[::-1], sizes, 3)


def test_heldout_is_by_group() -> None:
    groups = [f"module{i}" for i in range(2000)]
    held = [g for g in groups if sources.is_heldout(g, 20)]
    assert held == [g for g in groups if int(hashlib.sha256(g.encode()).hexdigest(), 16) % 20 == 0]
    assert 60 < len(held) < 140
