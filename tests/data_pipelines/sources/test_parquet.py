"""Parquet: only the columns asked for, row groups shared among tasks, what does not decode quarantined."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, Hashes, Unit
from fmtrain.run.sources import identify
from fmtrain.run.storage import sha256_file
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
