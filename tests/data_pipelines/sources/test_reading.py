"""Reading files that somebody else wrote: every record is read or is a fault with its place, and reading goes on."""

import gzip
import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, Hashes, Unit, local
from data_pipelines.sources.stream import read_lines
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.errors import InputError
from fmtrain.schema.sources import Local, Stdlib

PACK: dict[str, Any] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def source(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    return identify(str(path), path.name)


def read(data: Local | Stdlib, src: Source, stride: int = 1, offset: int = 0) -> list[Document | Fault]:
    return list(sources.read(data, Unit(src, stride, offset, 0)))


def texts(records: list[Document | Fault]) -> list[str]:
    return [r.text for r in records if isinstance(r, Document)]


def faults(records: list[Document | Fault]) -> list[Fault]:
    return [r for r in records if isinstance(r, Fault)]


def lines_of(n: int, start: int = 0) -> bytes:
    """JSON lines that do not compress to nothing."""
    digest = (hashlib.sha256(str(i).encode()).hexdigest() for i in itertools.count(start))
    return b"".join(json.dumps({"text": next(digest) * 3}).encode() + b"\n" for _ in range(n))


BAD = [
    (b'{"text": "cut', "not_json"),
    (b"\xff\xfe", "not_utf8"),
    (b'{"text": "\xff"}', "not_utf8"),
    (b'{"text": "\\ud800"}', "not_json"),
    (b'{"text": "\\udc00x"}', "not_json"),
    (b'["a"]', "not_an_object"),
    (b'"a"', "not_an_object"),
    (b"7", "not_an_object"),
    (b'{"body": "a"}', "no_text"),
    (b'{"text": 5}', "text_not_a_string"),
    (b'{"text": null}', "text_not_a_string"),
    (b'{"text": ["a"]}', "text_not_a_string"),
    (b'{"id": [1], "text": "a"}', "bad_id"),
    (b'{"id": true, "text": "a"}', "bad_id"),
    (b'{"id": 1.5, "text": "a"}', "bad_id"),
    (b'{"text": "a\x00b"}', "not_json"),
    (b'{"text": "a"}\x00', "not_json"),
    (b"\x00" * 40, "not_json"),
    (b'{"text": NaN}', "not_json"),
    (b'{"text": "a"}{"text": "b"}', "not_json"),
    (b"[" * 100_000, "not_json"),
]


@pytest.mark.parametrize("suffix", PACK)
def test_a_bad_line_costs_itself_alone(tmp_path: Path, suffix: str) -> None:
    good = [b'{"text": "%d"}' % i for i in range(len(BAD) + 1)]
    lines = [x for i, (bad, _) in enumerate(BAD) for x in (good[i], bad)] + [good[-1]]
    content = b"\n".join(lines)
    records = read(Local(), source(tmp_path / f"a.jsonl{suffix}", PACK[suffix](content)))
    assert texts(records) == [str(i) for i in range(len(good))]
    assert [(f.data, f.reason) for f in faults(records)] == [(bad[: 64 << 10], reason) for bad, reason in BAD]
    for fault in faults(records):
        assert fault.file == f"a.jsonl{suffix}" and fault.detail
        assert content[fault.offset :].startswith(fault.data)
        assert content[: fault.offset].count(b"\n") == fault.line - 1


def test_what_is_no_fault_and_blank_lines(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"id": "bom", "text": "a"}',
        b"",
        b" \t\r",
        b'{"text": "no id"}\r',
        b'{"id": 7, "text": "number"}',
        b'{"id": "", "text": "empty id"}',
        b'{"id": null, "text": "null id"}',
        b'{"text": "nul \\u0000, \\ud83d\\ude00 and \xf0\x9f\x98\x80"}',
        b'{"id": "last", "text": "", "url": null}',
    ]
    records = read(Local(), source(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert [(f.reason, f.line) for f in faults(records)] == [("blank_line", 2), ("blank_line", 3)]
    documents = [r for r in records if isinstance(r, Document)]
    offsets = [len(b"\n".join(lines[:i])) + 1 for i in (3, 5, 6, 7)]
    assert [d.id for d in documents] == ["bom", *(f"a.jsonl:{o}" if i != 1 else "7" for i, o in
                                         enumerate([offsets[0], 0, *offsets[1:]])), "last"]  # fmt: skip
    assert documents[5].text == "nul \0, 😀 and 😀" and documents[6].text == ""
    assert all(d.file == "a.jsonl" and d.source == "a" for d in documents)
    assert [d.group == d.id for d in documents] == [not d.id.startswith("a.jsonl:") for d in documents]
    assert [d.line for d in documents] == sorted({d.line for d in documents})


def test_keys_nested_keys_and_what_is_known(tmp_path: Path) -> None:
    rows = [
        {"body": {"text": "a"}, "m": {"id": 3, "u": "https://x/", "lic": "MIT"}, "when": "2024-02-01T00:00:00Z"},
        {"body": {"text": "b"}, "when": 1_700_000_000.9, "m": {"src": "web"}},
        {"body.text": "c", "body": {"text": "other"}, "when": "2024-02-01", "m": 5},
        {"body": {"text": "d"}, "when": "soon", "m": {"u": 5, "lic": ["MIT"], "src": 3}},
        {"body": {"text": "e"}, "when": 1e300, "m": {"u": "", "lic": None}},
        {"body": "f"},
    ]
    keys = Local(text_key="body.text", id_key="m.id", url_key="m.u", license_key="m.lic", date_key="when",
                 source_key="m.src")  # fmt: skip
    content = b"".join(json.dumps(r).encode() + b"\n" for r in rows)
    a, b, c, d, e, f = read(keys, source(tmp_path / "a.ndjson", content))
    assert isinstance(a, Document) and (a.id, a.text, a.source) == ("3", "a", "a")
    assert a.meta == {"url": "https://x/", "license": "MIT", "date": 1_706_745_600} and not a.counts
    assert isinstance(b, Document) and b.meta == {"date": 1_700_000_000} and b.source == "web"
    assert isinstance(c, Document) and (c.text, c.meta) == ("c", {"date": 1_706_745_600})
    assert isinstance(d, Document) and d.meta == {} and d.source == "a"
    assert d.counts == {"unreadable.url": 1, "unreadable.license": 1, "unreadable.date": 1}
    assert isinstance(e, Document) and e.counts == {"unreadable.date": 1}
    assert isinstance(f, Fault) and f.reason == "no_text" and "body.text" in f.detail


def test_a_content_type_goes_with_a_row_and_with_markdown(tmp_path: Path) -> None:
    rows = [{"text": "a", "content_type": "text/html"}, {"text": "b", "content_type": 3}, {"text": "c"}]
    content = b"".join(json.dumps(r).encode() + b"\n" for r in rows)
    a, b, c = (d for d in read(Local(), source(tmp_path / "a.jsonl", content)) if isinstance(d, Document))
    assert (a.meta, b.meta, c.meta) == ({"content_type": "text/html"}, {}, {})
    assert b.counts == {"unreadable.content_type": 1}
    (own,) = read(Local(content_type_key="mime"), source(tmp_path / "b.jsonl", b'{"text": "a", "mime": "text/x-rst"}'))
    assert isinstance(own, Document) and own.meta == {"content_type": "text/x-rst"}
    for name, meta in {
        "a.md": {"content_type": "text/markdown"},
        "a.md.gz": {"content_type": "text/markdown"},
        "a.txt": {},
    }.items():
        data = gzip.compress(b"# a") if name.endswith(".gz") else b"# a"
        (one,) = read(Local(), source(tmp_path / name, data))
        assert isinstance(one, Document) and one.meta == meta


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("stride", [1, 3])
def test_several_tasks_read_a_file_together(tmp_path: Path, suffix: str, stride: int) -> None:
    content = b"".join(b'{"text": "%d"}\n' % i if i % 100 else b"bad\n" for i in range(10_000))
    src = source(tmp_path / f"a.jsonl{suffix}", PACK[suffix](content))
    whole = read(Local(), src)
    parts = [read(Local(), src, stride, offset) for offset in range(stride)]
    assert sorted(map(place, itertools.chain(*parts))) == [place(r) for r in whole]
    assert len(whole) == 10_000 and len(faults(whole)) == 100
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def place(record: Document | Fault) -> tuple[int, str]:
    return (record.offset, record.reason) if isinstance(record, Fault) else (record.line, record.id)


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=30), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_ranges_of_a_plain_file(lines: list[bytes], stride: int) -> None:
    """Every line is read by one task, whatever the number of tasks, with its place."""
    import tempfile
    from unittest import mock

    content = b"\n".join(lines)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(local, "RANGES", 0):
        src = source(Path(folder) / "a.jsonl", content)
        hashes = Hashes()
        found = [
            record
            for offset in range(stride)
            for record in sources.read(Local(), Unit(src, stride, offset, 0), hashes.add)
        ]
    expected, at = [], 0
    for i, line in enumerate(lines):
        if i < len(lines) - 1 or line:  # the end of the last line begins no other
            expected.append((at, line.removeprefix(b"\xef\xbb\xbf") if i == 0 else line))
        at += len(line) + 1
    assert [(f.offset, f.data) for f in faults(found)] == expected and len(found) == len(expected)
    assert hashes == {"a.jsonl": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("ranges", [False, True])
def test_blank_lines_are_counted(tmp_path: Path, stride: int, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, whoever reads them; the end of the last line begins no other."""
    monkeypatch.setattr(local, "RANGES", 0 if ranges else 1 << 60)
    src = source(tmp_path / "a.jsonl", b'\n{"text": "a"}\n \t\r\n\n{"text": "b"}\n\n')
    records = [r for offset in range(stride) for r in read(Local(), src, stride, offset)]
    assert sorted(texts(records)) == ["a", "b"]
    assert sorted((f.offset, f.reason) for f in faults(records)) == [(n, "blank_line") for n in (0, 15, 19, 34)]


def test_a_long_window_is_no_damage(tmp_path: Path) -> None:
    """zstd --long=31 looks back 2 GiB; of that the decoder holds what there is."""
    content = lines_of(2000)
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=31, write_checksum=True)
    ).compressobj()  # which does not know the size, and so says the window
    packed = packer.compress(content) + packer.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 1 << 31
    records = read(Local(), source(tmp_path / "a.jsonl.zst", packed))
    assert len(texts(records)) == len(records) == 2000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_several_members(tmp_path: Path, suffix: str) -> None:
    content = PACK[suffix](b'{"text": "a"}\n{"te') + PACK[suffix](b"") + PACK[suffix](b'xt": "b"}\n')
    padding = b"\0" * 512 if suffix == ".gz" else b"\x5a\x2a\x4d\x18\x03\0\0\0abc"  # a skippable frame
    assert texts(read(Local(), source(tmp_path / f"a.jsonl{suffix}", content + padding))) == ["a", "b"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_file_gives_all_that_came_before(tmp_path: Path, suffix: str) -> None:
    content = lines_of(5000)
    whole = PACK[suffix](content)
    for cut in (0, 3, 10, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        records = read(Local(), source(tmp_path / f"a.jsonl{suffix}", whole[:cut]))
        (fault,) = faults(records)
        assert fault.reason == "truncated" and records[-1] is fault
        assert fault.line == len(records)
        assert content[fault.offset :].startswith(fault.data)
        least = plain_prefix(whole[:cut], suffix)
        assert len(texts(records)) == content[: len(least)].count(b"\n")  # every line that the library can decode
        if cut > 10:
            assert len(texts(records)) > 1000


def plain_prefix(data: bytes, suffix: str) -> bytes:
    """What the libraries decode of compressed data that is cut."""
    import zlib

    return zlib.decompressobj(31).decompress(data) if suffix == ".gz" else (
        zstandard.ZstdDecompressor().decompressobj().decompress(data)
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.9, 0.99999])
def test_a_damaged_file_gives_all_that_came_before(tmp_path: Path, suffix: str, where: float) -> None:
    """Two members: what is in the first is kept whatever becomes of the second."""
    first, second = lines_of(3000), lines_of(3000, 10_000)
    damaged = bytearray(PACK[suffix](second))
    at = int(where * (len(damaged) - 1))
    damaged[at : at + 3] = bytes(b ^ 0x55 for b in damaged[at : at + 3])
    records = read(Local(), source(tmp_path / f"a.jsonl{suffix}", PACK[suffix](first) + bytes(damaged)))
    assert texts(records)[:3000] == [json.loads(line)["text"] for line in first.splitlines()]
    last = records[-1]
    assert isinstance(last, Fault) and last.reason in ("damaged", "truncated")
    good = {json.loads(line)["text"] for line in (first + second).splitlines()}
    before = int(where * 3000)
    assert len(good & set(texts(records))) >= 3000 + before - 1300  # a block of 128 KiB is lost at most
    assert all(f.reason in ("damaged", "truncated", "not_json", "not_utf8", "no_text") for f in faults(records))


def test_nothing_good_before_a_damage_is_lost(tmp_path: Path) -> None:
    """gzip: every line that ends before the first bad bit; zlib alone gives nothing of the call that fails."""
    content = lines_of(2000)
    packed = bytearray(gzip.compress(content, 6, mtime=0))
    packed[len(packed) // 2] ^= 0xFF
    records = read(Local(), source(tmp_path / "a.jsonl.gz", bytes(packed)))
    assert len(texts(records)) > 850


def test_the_next_file_is_read_after_a_damaged_one(tmp_path: Path) -> None:
    cut = source(tmp_path / "a.jsonl.zst", PACK[".zst"](lines_of(100))[:-9])
    whole = source(tmp_path / "b.jsonl.zst", PACK[".zst"](lines_of(100)))
    (units,) = sources.deal(Local(), [cut, whole], 1)
    records = [r for unit in units for r in sources.read(Local(), unit)]
    assert (
        len(faults(records)) == 1 and [r.file for r in records if isinstance(r, Document)][-100:] == [whole.name] * 100
    )


@pytest.mark.parametrize("suffix", PACK)
def test_a_long_line_is_a_fault_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """A line of 300 MB between two good ones, of 600 KB where it is compressed."""
    path = tmp_path / f"a.jsonl{suffix}"
    with {"": open, ".gz": gzip.open, ".zst": zstandard.open}[suffix](path, "wb") as f:  # type: ignore[operator]
        f.write(b'{"text": "before"}\n{"text": "')
        for n in range(300):
            f.write(random.Random(n).randbytes(2000).hex().encode() * 250)
        f.write(b'"}\n{"text": "behind"}\n')
    code = """
import sys
from data_pipelines import sources
from fmtrain.artifacts.sources import identify
from fmtrain.schema.sources import Local
peak = lambda: int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])  # ru_maxrss begins at a parent's
before = peak()
unit = sources.Unit(identify(sys.argv[1], "a.jsonl" + sys.argv[2]), 1, 0, 0)
for r in sources.read(Local(max_line_mb=2), unit):
    print(getattr(r, "text", None) or (r.reason, r.line, r.offset, len(r.data), r.detail))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path), suffix], capture_output=True, text=True, check=True)
    *records, grown = done.stdout.splitlines()
    number = 2 if suffix else 0  # a plain file of this size is read in ranges
    expected = ("line_too_long", number, 19, 65536, "300000012 bytes, and data.max_line_mb allows 2000000")
    assert records == ["before", str(expected), "behind"]
    assert int(grown) < 30_000  # KiB


def test_what_expands_too_far_gives_what_came_before(tmp_path: Path) -> None:
    """What is honest at its start ends where it turns into a bomb: 240 MB in 30 KB."""
    line = b'{"text": "' + b"again " * 10_000 + b'"}\n'
    rows, bomb = lines_of(100), line * 4000
    packed = zstandard.compress(rows) + zstandard.compress(bomb)
    assert len(packed) < 200_000
    *good, last = read(Local(), source(tmp_path / "a.jsonl.zst", packed))
    assert texts(good)[:100] == texts(read(Local(), source(tmp_path / "b.jsonl", rows)))
    assert isinstance(last, Fault) and last.reason == "expands" and len(good) < 2500
    assert not faults(good)


def test_a_changed_or_missing_file_is_an_error(tmp_path: Path) -> None:
    src = source(tmp_path / "a.jsonl", b'{"text": "a"}\n')
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "b"}\n')
    with pytest.raises(InputError, match="has changed since"):
        read(Local(), src)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read"):
        read(Local(), src)


@pytest.mark.parametrize("stride", [1, 3])
def test_a_large_file_that_changes_is_an_error(tmp_path: Path, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its middle is another: it is known by the time of its change."""
    monkeypatch.setattr(local, "RANGES", 0 if stride > 1 else 1 << 60)
    content = lines_of(20_000)
    assert len(content) > 3 << 20
    src = source(tmp_path / "a.jsonl", content)
    assert src.sha256 == ""
    hashes = Hashes()
    for offset in range(stride):
        list(sources.read(Local(), Unit(src, stride, offset, 0), hashes.add))
    assert hashes == {"a.jsonl": hashlib.sha256(content).hexdigest()}
    with open(tmp_path / "a.jsonl", "r+b") as f:
        f.seek(len(content) // 2)
        f.write(b"x")
    for offset in range(stride):
        with pytest.raises(InputError, match="has changed since"):
            read(Local(), src, stride, offset)


def test_tasks_that_read_other_bytes_are_an_error() -> None:
    hashes = Hashes()
    hashes.add("a", "1" * 64)
    hashes.add("a", "1" * 64)
    with pytest.raises(InputError, match="a has changed while it was read"):
        hashes.add("a", "2" * 64)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet.gz", "a", "a.jsonl.bz2", "a.gz"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    src = source(tmp_path / name, b"PAR1")
    with pytest.raises(InputError, match=r"\.jsonl, \.json, .*\.parquet"):
        read(Local(), src)


def test_text_file_is_one_document(tmp_path: Path) -> None:
    (record,) = read(Local(), source(tmp_path / "a.txt.gz", gzip.compress("\ufeffä\nb\n".encode())))
    assert isinstance(record, Document)
    assert (record.id, record.group, record.text, record.source) == ("a.txt.gz", "a.txt.gz", "ä\nb\n", "a")
    for content, reason in ((b"ab\xff", "not_utf8"), (b"a" * 1_000_001, "record_too_long")):
        (fault,) = read(Local(max_line_mb=1), source(tmp_path / "b.md", content))
        assert isinstance(fault, Fault) and fault.reason == reason
    (fault,) = read(Local(), source(tmp_path / "c.txt.gz", gzip.compress(lines_of(5000))[:-4000]))
    assert isinstance(fault, Fault) and fault.reason == "truncated" and len(fault.data) == 64 << 10


def test_source_code_declares_its_encoding(tmp_path: Path) -> None:
    src = source(tmp_path / "a.py", "# -*- coding: latin-1 -*-\nx = 'ä'\r\n".encode("latin-1"))
    (record,) = read(Stdlib(), src)
    assert isinstance(record, Document) and record.meta == {"license": "PSF-2.0"} and record.source == "stdlib"
    assert record.text == "# -*- coding: latin-1 -*-\nx = 'ä'\r\n" and record.group == "a"
    for content in (b"# coding: nonesuch\n", b"x = '\xff'\n"):
        (fault,) = read(Stdlib(), source(tmp_path / "b.py", content))
        assert isinstance(fault, Fault) and fault.reason == "not_text"


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=20), st.integers(1, 9))
def test_lines_are_what_split_says(lines: list[bytes], size: int) -> None:
    content = b"\n".join(lines)
    chunks = (content[i : i + size] for i in range(0, len(content), size))
    found = list(read_lines(chunks, "a", 15))
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    at = 0
    for number, (got, line) in enumerate(zip(found, expected, strict=True), 1):
        if len(line) > 15:
            assert isinstance(got, Fault) and (got.line, got.offset, got.data) == (number, at, line)
        else:
            assert got == (number, at, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        at += len(line) + 1
