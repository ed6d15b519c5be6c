"""WARC: pages with their address and date; a damaged record costs itself alone."""

import gzip
import io
import re
from pathlib import Path

import pytest
import zstandard
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, Unit
from data_pipelines.sources.fields import group_of
from data_pipelines.sources.warc import decode
from fmtrain.artifacts.sources import identify
from fmtrain.schema.sources import Local


def read(path: Path, content: bytes, stride: int = 1, **settings: int) -> list[Document | Fault]:
    path.write_bytes(content)
    source = identify(str(path), path.name)
    return [r for n in range(stride) for r in sources.read(Local(**settings), Unit(source, stride, n, 0))]


def record(
    n: int,
    body: bytes,
    kind: str = "text/html",
    packed: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
    of: str = "response",
) -> bytes:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=packed)
    known = {"WARC-Date": "2024-02-01T00:00:00Z"}
    http = StatusAndHeaders("200 OK", [("Content-Type", kind), *headers], "HTTP/1.1") if of == "response" else None
    writer.write_record(
        writer.create_warc_record(
            f"https://x.org/{n}", of, io.BytesIO(body), warc_headers_dict=known, http_headers=http,
            warc_content_type="" if of == "response" else kind,
        )
    )  # fmt: skip
    return out.getvalue()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("stride", [1, 2])
def test_pages_of_a_crawl(tmp_path: Path, suffix: str, stride: int) -> None:
    records = [
        record(0, b"<p>a", packed=suffix == ".gz"),
        record(1, b"\x89PNG", "image/png", suffix == ".gz"),
        record(2, "<p>ä".encode("latin-1"), "text/html; charset=ISO-8859-1", suffix == ".gz"),
        record(3, b"log", "text/plain", suffix == ".gz", of="resource"),
        record(4, b"plain", "text/plain", suffix == ".gz", of="conversion"),
        record(5, gzip.compress(b"<p>packed"), "text/html", suffix == ".gz", (("Content-Encoding", "gzip"),)),
        record(6, b"4\r\n<p>c\r\n3\r\nhun\r\n0\r\n\r\n", "text/html", suffix == ".gz",
               (("Transfer-Encoding", "chunked"),)),
        record(7, b"<p>r", "text/html", suffix == ".gz", of="resource"),
    ]  # fmt: skip
    content = b"".join(records)
    packed = zstandard.ZstdCompressor().compress(content) if suffix == ".zst" else content
    found = read(tmp_path / f"c.warc{suffix}", packed, stride)
    pages = sorted((p for p in found if isinstance(p, Document)), key=lambda d: d.line)
    assert len(pages) == len(found)
    assert [p.text for p in pages] == ["<p>a", "<p>ä", "plain", "<p>packed", "<p>chun", "<p>r"]
    assert [p.meta["url"] for p in pages] == [f"https://x.org/{n}" for n in (0, 2, 4, 5, 6, 7)]
    assert all(p.meta["date"] == 1_706_745_600 and len(p.id) == 36 and p.source == "c" for p in pages)
    assert [p.meta["content_type"] for p in pages] == [
        "text/plain" if n == 4 else "text/html" for n in (0, 2, 4, 5, 6, 7)
    ]


def test_a_record_without_id_and_a_sign_of_life_for_each(tmp_path: Path) -> None:
    content = b"".join(record(n, b"<p>same" if n else b"", of="response" if n else "metadata") for n in range(3))
    content = re.sub(rb"WARC-Record-ID: [^\r]*\r\n", b"", content)
    signs: list[int] = []
    (tmp_path / "a.warc").write_bytes(content)
    unit = Unit(identify(str(tmp_path / "a.warc"), "a.warc"), 1, 0, 0, lambda: signs.append(1))
    a, b = (r for r in sources.read(Local(), unit) if isinstance(r, Document))
    assert a.id.startswith("a.warc:") and a.id != b.id and a.group == b.group == group_of("<p>same")
    assert len(signs) >= 3


def test_damage_costs_one_record(tmp_path: Path) -> None:
    records = [record(n, b"<p>" + str(n).encode() * 50) for n in range(5)]
    records[1] = records[1].replace(b"Content-Length: ", b"Content-Length: x", 1)
    records[3] = records[3].replace(b"WARC/1.0", b"WERC/1.0")
    found = read(tmp_path / "a.warc", b"".join(records))
    assert [r.text[3] for r in found if isinstance(r, Document)] == ["0", "2", "4"]
    faults = [r for r in found if isinstance(r, Fault)]
    assert [(f.reason, f.offset) for f in faults] == [
        ("bad_record", len(records[0])),
        ("bad_record", sum(map(len, records[:3]))),
    ]
    assert records[1].startswith(faults[0].data.rstrip())


def test_a_wrong_length_and_a_cut_end(tmp_path: Path) -> None:
    records = [record(n, b"<p>" + str(n).encode() * 50) for n in range(4)]
    short = records[1].replace(b"Content-Length: ", b"Content-Length: 1#", 1)
    size = short.split(b"1#")[1].split(b"\r\n")[0]
    short = records[1].replace(b"Content-Length: " + size, b"Content-Length: " + str(int(size) - 10).encode())
    found = read(tmp_path / "a.warc", records[0] + short + records[2] + records[3][:-20])
    texts = [r.text[3] for r in found if isinstance(r, Document)]
    assert texts == ["0", "1", "2"]
    assert [f.reason for f in found if isinstance(f, Fault)] == ["bad_record", "truncated"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_crawl(tmp_path: Path, suffix: str) -> None:
    if suffix == ".gz":
        content = b"".join(record(n, b"<p>%d" % n * 500, packed=True) for n in range(20))
    else:
        content = zstandard.compress(b"".join(record(n, b"<p>%d" % n * 500) for n in range(200)))
    found = read(tmp_path / f"a.warc{suffix}", content[: len(content) * 2 // 3])
    assert isinstance(found[-1], Fault) and found[-1].reason == "truncated"
    assert suffix == ".zst" or len(found) >= 13


def test_a_large_record_is_a_fault(tmp_path: Path) -> None:
    content = record(0, b"a" * 1_000_000) + record(1, b"b")
    packed = record(2, gzip.compress(b"c" * 1_100_000), headers=(("Content-Encoding", "gzip"),))
    found = read(tmp_path / "a.warc", content + packed, max_line_mb=1)
    assert [r.reason if isinstance(r, Fault) else r.text for r in found] == ["record_too_long", "b", "record_too_long"]


@pytest.mark.parametrize(
    ("content", "declared", "text"),
    [
        ("ä".encode(), "", "ä"),
        ("ä".encode("latin-1"), "", "ä"),
        ("€".encode("cp1252"), "iso-8859-1", "€"),
        (b'<meta charset="shift_jis">' + "日本".encode("shift_jis"), "", '<meta charset="shift_jis">日本'),
        (b'<META http-equiv="x" content="text/html; charset=koi8-r">' + "д".encode("koi8-r"), "", None),
        ("日".encode("utf-16"), "utf-8", "日"),
        (b"\xef\xbb\xbfa", "latin-1", "a"),
        ("ä".encode(), "ascii", "Ã¤"),
        ("ä".encode(), "nonesuch", "ä"),
        ("ä".encode(), "base64", "ä"),
        ("ä".encode() + b"\xff", "utf-8", "ä\ufffd"),
        ("中".encode("gb18030"), "gb2312", "中"),
        (b"+2AA-", "utf-7", None),
    ],
)
def test_the_charset_of_a_page(content: bytes, declared: str, text: str | None) -> None:
    found = decode(content, declared)
    found.encode()
    assert text is None or found == text
    assert b"koi8" not in content or found.endswith("д")


def test_real_crawls(shared_data: Path, tmp_path: Path) -> None:
    """As many pages as warcio's own iterator finds, with the same bytes."""
    pages = 0
    for path in sorted((shared_data / "web" / "dolma" / "warc").glob("*.warc.gz")):
        found = read(tmp_path / path.name, path.read_bytes())
        assert not [r for r in found if isinstance(r, Fault)]
        with open(path, "rb") as f:
            expected = [
                (r.rec_headers.get_header("WARC-Target-URI").strip("<>"), len(r.content_stream().read()))
                for r in ArchiveIterator(f)
                if r.rec_type == "response" and "html" in (r.http_headers.get_header("Content-Type") or "")
            ]
        assert [d.meta["url"] for d in found if isinstance(d, Document)] == [url for url, _ in expected]
        assert all(d.line > 0 and "<" in d.text for d in found if isinstance(d, Document))
        pages += len(found)
    assert 30 <= pages <= 37
