"""`data.split`: the pieces of a text are the text, however it comes, in bounded memory, under names that stay."""

import codecs
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, Unit
from data_pipelines.sources.pieces import Piece, decoded, pieces
from fmtrain.artifacts.sources import identify
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema import splits
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Local

WORDS = [
    "a",
    "Bcd ",
    "\n",
    "\n\n",
    "\r\n",
    " \t\n",
    "CHAPTER 1\n",
    "é",
    "日本語 ",
    "\u2028",
    "x" * 9,
    ". ",
    "\x1c",
    "😀",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
SPLITS = st.one_of(
    st.just("paragraphs"),
    st.builds("{}:{}".format, st.sampled_from(["paragraphs", "lines", "chars"]), st.integers(1, 20)),
    st.sampled_from(["regex:CHAPTER", "regex:^[A-Z]", "regex:(?=x)", "regex:\\w+", "regex:\n"]),
)


def cut(given_split: str, chunks: list[str], limit: int = 10**6) -> list[Piece]:
    split = splits.parse(given_split)
    assert split is not None
    return list(pieces(split, iter(chunks), limit))


def chunked(text: str, sizes: list[int]) -> list[str]:
    at, found = 0, []
    for size in sizes:
        found.append(text[at : at + size])
        at += size
    return [*found, text[at:]]


@given(TEXTS, SPLITS, st.lists(st.integers(0, 7), max_size=12))
def test_the_pieces_are_the_text_however_it_comes(text: str, split: str, sizes: list[int]) -> None:
    found = cut(split, chunked(text, sizes))
    assert "".join(piece.text for piece in found) == text
    assert all(piece.text for piece in found)
    assert [piece.number for piece in found] == [*range(1, len(found) + 1)]
    encoded = text.encode()
    assert all(encoded[piece.start :].startswith(piece.text.encode()) for piece in found)
    assert found == cut(split, [text])


@given(TEXTS, st.integers(1, 20))
def test_what_each_form_promises(text: str, n: int) -> None:
    for piece in (found := cut(f"lines:{n}", [text]))[:-1]:
        assert piece.text.count("\n") == n and piece.text.endswith("\n")
    assert all(piece.text.count("\n") <= n for piece in found)
    for piece in (found := cut(f"paragraphs:{n}", [text]))[:-1]:
        assert len(piece.text) >= n and piece.text.endswith("\n") and not piece.text.split("\n")[-2].strip()
    assert all(piece.text.split("\n")[0].strip() for piece in found[1:])
    for before, after in zip(found := cut(f"chars:{n}", [text]), found[1:], strict=False):
        assert len(before.text) <= n
        half = (before.text + after.text)[(n + 1) // 2 - 1 : n]
        assert before.text[-1].isspace() or not any(letter.isspace() for letter in half)
    for piece in cut("regex:CHAPTER", [text])[1:]:
        assert piece.text.startswith("CHAPTER") and piece.text.count("CHAPTER") == 1


def test_paragraphs_are_joined_and_a_pattern_sees_lines() -> None:
    play = "First:\nSpeak.\n\nAll:\nSpeak, speak.\n\n\nFirst:\nYou are all resolved?\n"
    whole = [piece.text for piece in cut("paragraphs:1", [play])]
    assert whole == ["First:\nSpeak.\n\n", "All:\nSpeak, speak.\n\n\n", "First:\nYou are all resolved?\n"]
    assert [p.text for p in cut("paragraphs:20", [play])] == [whole[0] + whole[1], whole[2]]
    assert [p.text for p in cut("paragraphs", [play])] == [play]
    assert [p.text for p in cut("regex:^First:$", [play])] == [whole[0] + whole[1], whole[2]]
    assert [p.text for p in cut("regex:\n\n", ["a\n\nb"])] == ["a\n\nb"]  # no line has two ends
    assert [p.text for p in cut("regex:<end>", ["a<end>b\n<end>"])] == ["a", "<end>b\n", "<end>"]


@given(st.lists(st.one_of(TEXTS.map(str.encode), st.sampled_from([b"\xff", b"\xe6\x97", b"\n"])), max_size=12), SPLITS)
def test_bytes_that_are_no_text_cost_their_piece_alone(parts: list[bytes], split: str) -> None:
    content = b"".join(parts)
    found = list(pieces(splits.parse(split) or splits.Split("lines", 1), decoded(iter(parts)), 10**6))
    assert b"".join(p.raw if p.reason else p.text.encode() for p in found) == content
    for piece in found:
        raw = piece.raw if piece.reason else piece.text.encode()
        assert content[piece.start :].startswith(raw)
        assert (piece.reason == "not_utf8") == _broken(raw)


def _broken(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return True
    return False


def read(path: Path, split: str, stride: int = 1, **settings: int) -> list[Document | Fault]:
    source, data = identify(str(path), path.name), Local(split=split, **settings)
    units = [Unit(source, stride, offset, 0) for offset in range(stride)]
    return [record for unit in units for record in sources.read(data, unit)]


def documents(records: list[Document | Fault]) -> list[Document]:
    assert all(isinstance(record, Document) for record in records)
    return [record for record in records if isinstance(record, Document)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_text_file_in_pieces(tmp_path: Path, suffix: str) -> None:
    content = codecs.BOM_UTF8 + "one é\ntwo\nthree\nfour\nfive".encode()
    (path := tmp_path / f"a.txt{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    found = documents(read(path, "lines:2"))
    assert [(d.id, d.text) for d in found] == [
        (f"{path.name}#1", "one é\ntwo\n"), (f"{path.name}#2", "three\nfour\n"), (f"{path.name}#3", "five"),
    ]  # fmt: skip
    assert all(content[d.line :].decode().startswith(d.text) for d in found)
    assert len({d.group for d in found}) == 3 and found[0].group not in (found[0].id, path.name)
    shared = documents(read(path, "lines:2", stride=2))
    assert sorted((d.line, d.id, d.text) for d in shared) == [(d.line, d.id, d.text) for d in found]
    (whole,) = documents(read(path, "none"))
    assert (whole.id, whole.group, whole.line) == (path.name, path.name, 0)


def test_damage_and_what_is_too_long_cost_a_piece(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_bytes(b"good\n\xffbad\ngood\n" + b"y" * 1_200_000 + b"\nlast\n")
    found = read(path, "lines:1", max_line_mb=1)
    assert [r.text if isinstance(r, Document) else r.reason for r in found] == [
        "good\n", "not_utf8", "good\n", "record_too_long", "last\n",
    ]  # fmt: skip
    fault = found[1]
    assert isinstance(fault, Fault) and (fault.offset, fault.data) == (5, b"\xffbad\n")
    packed = gzip.compress(b"".join(b"line %d\n" % n for n in range(50_000)))
    (path := tmp_path / "b.txt.gz").write_bytes(packed[: len(packed) // 2])
    *good, last = read(path, "lines:10")
    assert len(documents(good)) > 100 and isinstance(last, Fault) and last.reason == "truncated"
    assert isinstance(good[-1], Document) and last.offset >= good[-1].line + len(good[-1].text)


def test_rows_in_pieces_keep_what_is_known_of_them(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "text": "a b\nc\nd", "url": "https://x/", "date": "soon"},
        {"text": "e"}, {"id": "empty", "text": ""}, {"id": "x2", "text": "f\ng\n"},
    ]  # fmt: skip
    (lines := tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = documents(read(lines, "lines:1"))
    second = len(json.dumps(rows[0])) + 1
    assert [d.id for d in found] == ["x#1", "x#2", "x#3", f"a.jsonl:{second}#1", "empty#1", "x2#1", "x2#2"]
    assert [d.text for d in found] == ["a b\n", "c\n", "d", "e", "", "f\n", "g\n"]
    assert [d.meta.get("url") for d in found][:4] == ["https://x/"] * 3 + [None]
    assert [d.counts for d in found][:3] == [{"unreadable.date": 1}, {}, {}]
    assert len({d.line for d in found}) == len(found) and [d.line for d in found] == sorted(d.line for d in found)
    table = pa.Table.from_pylist([{"id": r.get("id"), "text": r["text"]} for r in rows])
    pq.write_table(table, path := tmp_path / "a.parquet")
    found = documents(read(path, "lines:1"))
    assert [d.text for d in found] == ["a b\n", "c\n", "d", "e", "", "f\n", "g\n"]
    assert [d.line for d in found] == [0, 1, 2, 1 << 20, 2 << 20, 3 << 20, (3 << 20) + 1]
    pq.write_table(pa.table({"text": ["x\n" * ((1 << 20) + 1)]}), path)
    with pytest.raises(InputError, match="row 0: data.split=lines:1 takes 1,048,576 pieces of a row"):
        read(path, "lines:1")


def test_a_row_s_letters_leave_room_for_its_pieces(tmp_path: Path) -> None:
    (path := tmp_path / "a.jsonl").write_text("".join(f'{{"text":"{"ab" * n}"}}\n' for n in range(1, 30)))
    found = documents(read(path, "chars:1"))
    assert len({d.line for d in found}) == len(found) == sum(range(1, 30)) * 2


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("regex:(", "not a regular expression"),
        ("regex:x*", "every letter would be a document"),
        ("regex:^", "every letter would be a document"),
    ],
)
def test_a_pattern_that_cannot_cut_is_refused(split: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        splits.check(split, "data.split")


MEMORY = """
import resource, sys
from data_pipelines.sources.pieces import decoded, pieces
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema import splits
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.rules import Filter
def content(megabytes):
    for n in range(megabytes * 4):
        yield (b"%07d word\\n" % n) * 10_000 + b"\\n" + (b"%07d word\\n" % n) * 10_000
before = None
for megabytes in (8, 40):
    number = sum(1 for _ in pieces(splits.parse(sys.argv[1]), decoded(content(megabytes)), 64_000_000))
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert number > 8 and (before is None or now < before + 4096), (number, before, now)  # kilobytes
    before = now
"""


@pytest.mark.parametrize("split", ["paragraphs:9", "lines:1000", "chars:5000", "regex:^[0-9]*9 word$"])
def test_memory_does_not_grow_with_the_file(split: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, split], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_stream_is_not_read_ahead() -> None:
    taken = []

    def content() -> Iterator[bytes]:
        for n in range(1000):
            taken.append(n)
            yield b"line\n" * 100

    split = splits.parse("lines:100")
    assert split is not None
    next(iter(pieces(split, decoded(content()), 10**6)))
    assert len(taken) < 5


def test_a_corpus_of_one_file_in_pieces(make_corpus: Any, tmp_path: Path) -> None:
    """The same bytes whatever the number of tasks; every piece accounted for; the text comes back whole."""
    text = "".join(f"paragraph {n} of a book that has many, number {n}\n\n" for n in range(40_000))
    (folder := tmp_path / "in").mkdir()
    (book := folder / "book.txt").write_text(text)
    job = CorpusJob(Local(split="paragraphs:300"), Filter("none", []), Dedup("none", []))
    runs = [make_corpus(job, [book], folder, tasks=n, name=f"run{n}") for n in (1, 3)]
    results = [run.run() for run in runs]
    assert runs[0].files() == runs[1].files()
    counts = results[0].counts
    assert counts["read"] == counts["kept"] > 5000 and counts["heldout_documents"] > 200
    rows = {row["id"]: row["text"] for side in ("train", "heldout") for row in runs[0].rows(side)}
    assert "".join(rows[f"book.txt#{n}"] for n in range(1, len(rows) + 1)) == text
