"""Rows out of Parquet are the rows of the same JSON lines; what a hostile file says of itself is not believed."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmtrain.artifacts.parquet_pages import MOST_VALUES
from fmtrain.artifacts.rows import look, read_rows
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.errors import InputError
from fmtrain.schema.sources import Rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT})


def source(path: Path) -> Source:
    return identify(str(path), path.name, full=True)


def written(path: Path, rows: list[dict[str, Any]], **how: Any) -> Source:
    pq.write_table(pa.Table.from_pylist(rows), path, **how)
    return source(path)


def read(one: Source, data: Rows | None = None) -> list[Any]:
    return list(read_rows(one, data or Rows()))


CHATS = st.lists(MESSAGE, min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"messages": CHATS}), min_size=1, max_size=90))
def test_the_same_rows_as_of_json_lines(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    table = written(folder / "a.parquet", rows, row_group_size=7)
    (folder / "a.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert read(table) == read(source(folder / "a.jsonl")) == [(n, row, "") for n, row in enumerate(rows, 1)]
    assert look(Rows(), [table]).forms == {"messages"}


def test_only_the_columns_of_a_form_are_read(tmp_path: Path) -> None:
    """The others are named where a row fits none."""
    rows = [{"q": f"q{n}", "a": f"a{n}", "vector": [0.5] * 100} for n in range(3)]
    table = written(tmp_path / "a.parquet", rows)
    answers = Rows(prompt_key="q", completion_key="a")
    assert read(table, answers)[1] == (2, {"q": "q1", "a": "a1", "vector": None}, "")
    assert look(answers, [table]).forms == {"prompt_completion"}
    with pytest.raises(InputError, match="a.parquet has the columns q, a, vector. Expected one of the forms"):
        look(Rows(), [table])
    with pytest.raises(InputError, match="none of the 3 rows .* keys are a, q, vector"):
        look(Rows(prompt_key="q"), [table])


def test_a_list_without_end_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """Nulls cost nothing in the file, and four bytes and more each in memory."""
    count = MOST_VALUES + 1
    column = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.string()))
    pq.write_table(pa.table({"messages": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(InputError, match=f"more than {MOST_VALUES} values in a column of lists"):
        look(Rows(), [source(tmp_path / "a.parquet")])


def test_a_row_over_the_limit_is_none_and_its_neighbours_stay(tmp_path: Path) -> None:
    rows = [{"prompt": "p" * size, "completion": "c"} for size in (1, 2_000_000, 3)]
    found = read(written(tmp_path / "a.parquet", rows), Rows(max_line_mb=1))
    assert [reason.partition(":")[0] for _, _, reason in found] == ["", "line_too_long", ""]


@pytest.mark.parametrize("cut", [3, 200, -9])
def test_damage_names_the_file(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.parquet"
    written(path, [{"prompt": str(n), "completion": "c"} for n in range(500)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="a.parquet: .*Get the file again"):
        read(source(path))


def test_a_file_that_changed_since_it_was_planned(tmp_path: Path) -> None:
    planned = written(tmp_path / "a.parquet", [{"prompt": "p", "completion": "c"}])
    written(tmp_path / "a.parquet", [{"prompt": "q", "completion": "c"}])
    with pytest.raises(InputError, match="has changed since this run was planned"):
        read(planned)
