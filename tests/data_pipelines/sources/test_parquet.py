"""Parquet: only the columns asked for, row groups shared among tasks, what does not decode quarantined."""

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, Hashes, Unit
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.storage import sha256_file
from fmtrain.schema.sources import Local


def read(path: Path, stride: int = 1, data: Local | None = None, **kinds: Any) -> list[Document | Fault]:
    hashes = Hashes()
    units = [Unit(identify(str(path), path.name), stride, n, 0) for n in range(stride)]
    found = [record for unit in units for record in sources.read(data or Local(), unit, hashes.add)]
    assert hashes == {path.name: sha256_file(path)}
    return found


@pytest.mark.parametrize("stride", [1, 3])
def test_rows_become_documents(tmp_path: Path, stride: int) -> None:
    when = datetime.datetime(2024, 2, 1, tzinfo=datetime.UTC)
    rows = [
        {"text": f"t{i}", "id": i, "date": when, "meta": {"lic": "MIT", "deep": {"x": [1, 2]}}, "unused": "u" * 100}
        for i in range(1000)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=90)
    found = read(tmp_path / "a.parquet", stride, Local(license_key="meta.lic"))
    assert all(isinstance(r, Document) for r in found)
    documents = sorted((r for r in found if isinstance(r, Document)), key=lambda d: d.line)
    assert [(d.id, d.text, d.line) for d in documents] == [(str(i), f"t{i}", i) for i in range(1000)]
    assert documents[5].meta == {"date": 1_706_745_600, "license": "MIT"} and documents[5].source == "a"


def test_rows_that_are_none(tmp_path: Path) -> None:
    texts = [b"a", None, b"b\xff", b"c"]
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column, "id": pa.array(["x", "y", "z", ""])}), tmp_path / "a.parquet")
    a, none, bad, c = read(tmp_path / "a.parquet")
    assert isinstance(a, Document) and a.id == "x"
    assert isinstance(none, Fault) and (none.reason, none.offset) == ("text_not_a_string", 1)
    assert isinstance(bad, Fault) and (bad.reason, bad.offset, bad.data) == ("not_utf8", 2, b"b\xff")
    assert isinstance(c, Document) and c.id == "a.parquet:3"


@pytest.mark.parametrize(
    ("table", "reason"),
    [({"body": ["a", "b"]}, "no_text"), ({"text": [1, 2]}, "text_not_a_string"),
     ({"text": ["a", "b"], "id": [1.5, 2.5]}, "bad_id")],
)  # fmt: skip
def test_columns_of_another_kind(tmp_path: Path, table: dict[str, list[Any]], reason: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [r.reason for r in found if isinstance(r, Fault)] == [reason] * 2 and len(found) == 2


def test_damage_costs_its_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{i:06d}" * 20 for i in range(3000)]})
    pq.write_table(table, path, row_group_size=1000, compression="zstd", use_dictionary=False,
                   write_page_checksum=True)  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    found = read(path, 2)
    (fault,) = [r for r in found if isinstance(r, Fault)]
    assert (fault.reason, fault.offset) == ("damaged", 1000) and "1000 rows of row group 1" in fault.detail
    assert fault.records == 1000
    assert sorted(r.line for r in found if isinstance(r, Document)) == [*range(1000), *range(2000, 3000)]


def test_a_date_that_python_does_not_have(tmp_path: Path) -> None:
    """It is left out and counted, also within a struct; its row and the others are read."""
    far = pa.array([0, 10**15, None, 86_400], pa.timestamp("s"))
    seen = pa.array([1, 2, 3, 2**31 - 1], pa.int32()).view(pa.date32())
    meta = pa.StructArray.from_arrays([seen, pa.array(["u0", "u1", "u2", "u3"])], ["seen", "url"])
    table = pa.table({"text": ["a", "b", "c", "d"], "date": far, "meta": meta})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [(r.text, r.meta, r.counts) for r in found if isinstance(r, Document)] == [
        ("a", {"date": 0}, {}),
        ("b", {}, {"unreadable.date": 1}),
        ("c", {}, {}),
        ("d", {"date": 86_400}, {}),
    ]
    found = read(tmp_path / "a.parquet", data=Local(date_key="meta.seen", url_key="meta.url"))
    assert [r.meta for r in found if isinstance(r, Document)] == [
        {"url": "u0", "date": 86_400}, {"url": "u1", "date": 172_800}, {"url": "u2", "date": 259_200}, {"url": "u3"},
    ]  # fmt: skip
    assert found[3].counts == {"unreadable.date": 1}  # type: ignore[union-attr]


def test_a_zone_that_nobody_knows_and_an_id_that_is_no_value(tmp_path: Path) -> None:
    when = pa.array([5, 6], pa.timestamp("s", "Nowhere/Else"))
    ids = pa.array([10**15, 1], pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b"], "date": when}), tmp_path / "a.parquet")
    assert [r.counts for r in read(tmp_path / "a.parquet") if isinstance(r, Document)] == [{"unreadable.date": 1}] * 2
    pq.write_table(pa.table({"text": ["a", "b"], "id": ids}), tmp_path / "b.parquet")
    assert [r.reason for r in read(tmp_path / "b.parquet") if isinstance(r, Fault)] == ["bad_id"] * 2


@pytest.mark.parametrize("cut", [0, 3, 300, -1])
def test_a_cut_file_is_a_fault(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 100] * 1000}), path)
    path.write_bytes(path.read_bytes()[:cut])
    (fault,) = read(path, 2)
    assert isinstance(fault, Fault) and fault.reason == "damaged" and "no Parquet file" in fault.detail


def _peak(path: Path) -> tuple[str, int]:
    """What a process of its own makes of a file: a count of each reason, and its peak memory in MB."""
    code = (
        "import collections, re, sys; from data_pipelines import sources;"
        "from fmtrain.artifacts.sources import identify; from fmtrain.schema.sources import Local;"
        "unit = sources.Unit(identify(sys.argv[1], 'a.parquet'), 1, 0, 0);"
        "found = collections.Counter(getattr(r, 'reason', 'document') for r in sources.read(Local(), unit));"
        "print(sorted(found.items()), re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    found, _, peak = done.stdout.strip().rpartition(" ")
    return found, int(peak) // 1000


def _rows(path: Path, column: pa.Array, **options: Any) -> None:
    pq.write_table(pa.table({"text": column}), path, compression="zstd", **options)


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("one text of 50 MB, 64 times", "[('document', 5), ('expands', 1)]"),
        ("one text of 90 MB, 64 times", "[('expands', 1)]"),
        ("prefixes", "[('expands', 1)]"),
        ("nulls", "[('expands', 1), ('text_not_a_string', 11"),
        ("an endless list", "[('text_not_a_string', 1)]"),
        ("a footer", "[('damaged', 1)]"),
    ],
)
def test_a_small_file_does_not_grow(tmp_path: Path, case: str, found: str) -> None:
    """Some kilobytes took 5 GB: a batch held a copy of what the file holds once for each of its rows."""
    path = tmp_path / "a.parquet"
    match case.split()[0]:
        case "one":
            text = pa.array(["a" * (int(case.split()[3]) * 1_000_000)])
            _rows(path, pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), text),
                  dictionary_pagesize_limit=1 << 30)  # fmt: skip
        case "prefixes":
            _rows(path, pa.array(["a" * 10_000_000] * 64), use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY",
                  data_page_size=1)  # fmt: skip
        case "nulls":
            _rows(path, pa.nulls(4_000_000, pa.string()))
        case "an":
            _rows(path, pa.array([["a" * 1000] * 300_000]))
        case "a":
            path.write_bytes(b"PAR1" + bytes(1000) + (1 << 30).to_bytes(4, "little") + b"PAR1")
    assert path.stat().st_size < 200_000
    said, peak = _peak(path)
    assert said.startswith(found) and peak < 900, (said, peak)


def test_a_row_over_the_limit_is_a_fault_and_large_pages_lose_nothing(tmp_path: Path) -> None:
    texts = [f"{i}" * 20_000 for i in range(300)] + ["é" * 3_000_000] + [f"z{i}" for i in range(100)]
    pq.write_table(pa.table({"text": texts, "id": [f"{i}" for i in range(401)]}), tmp_path / "a.parquet",
                   row_group_size=350, write_batch_size=350, use_dictionary=False, data_page_size=1 << 30)  # fmt: skip
    found = read(tmp_path / "a.parquet", 2, Local(max_line_mb=4))
    (fault,) = [r for r in found if isinstance(r, Fault)]
    assert (fault.reason, fault.offset) == ("record_too_long", 300) and "data.max_line_mb" in fault.detail
    assert {r.id: r.text for r in found if isinstance(r, Document)} == {
        f"{i}": text for i, text in enumerate(texts) if i != 300
    }
