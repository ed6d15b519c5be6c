"""A Hugging Face data set from a folder, offline: its rows, its identity, its faults."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, hub
from data_pipelines.sources.fields import group_of
from fmtrain.errors import InputError, Unavailable
from fmtrain.schema.sources import Hub
from launch.sources import sources as plan


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def dataset(folder: Path, kind: str, shards: int = 3, rows: int = 40) -> Path:
    folder.mkdir()
    for shard in range(shards):
        table = [{"text": f"{shard}.{row}", "id": f"{shard}-{row}", "url": None} for row in range(rows)]
        name = folder / f"train-{shard:05d}-of-{shards:05d}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(table), name)
        else:
            name.write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


def read(data: Hub, tasks: int) -> list[list[Document | Fault]]:
    dealt = sources.deal(data, plan(data), tasks)
    return [[r for unit in units for r in sources.read(data, unit)] for units in dealt]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_every_row_once_whatever_the_number_of_tasks(tmp_path: Path, kind: str) -> None:
    data = Hub(path=str(dataset(tmp_path / "set", kind)))
    seen: list[Any] = []
    for tasks in (1, 2, 5):  # 2 read whole shards, 5 every fifth row of each
        parts = read(data, tasks)
        assert all(parts)
        records = [r for part in parts for r in part]
        assert all(isinstance(r, Document) for r in records)
        seen.append(sorted((r.line, r.id, r.text) for r in records if isinstance(r, Document)))
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 120
    assert [text for _, _, text in seen[0]] == [f"{s}.{r}" for s in range(3) for r in range(40)]
    first = next(r for r in records if isinstance(r, Document))
    assert (first.source, first.file, first.meta) == ("set", "set", {})


def test_a_row_that_is_none_and_a_shard_that_is_cut(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", "jsonl")
    path = folder / "train-00001-of-00003.jsonl"
    path.write_text('{"text": "good", "id": "g"}\n{"text": null, "id": "n"}\n')
    (found,) = read(Hub(path=str(folder)), 1)
    assert [f.reason for f in found if isinstance(f, Fault)] == ["text_not_a_string"]
    path.write_bytes(b'{"text": "cut\n\xff\xfe')
    (found,) = read(Hub(path=str(folder)), 1)
    (fault,) = [f for f in found if isinstance(f, Fault)]
    assert fault.reason == "damaged" and len(found) == 81 and "shard 1" in fault.detail


def test_a_date_that_python_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    dates = pa.array([0, 10**15, 86_400], pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "date": dates}), tmp_path / "set" / "train.parquet")
    for tasks in (1, 2):
        found = [r for part in read(Hub(path=str(tmp_path / "set")), tasks) for r in part if isinstance(r, Document)]
        assert sorted((r.text, r.meta.get("date")) for r in found) == [("a", 0), ("b", None), ("c", 86_400)]
        assert sum(r.counts.get("unreadable.date", 0) for r in found) == 1
        assert all(r.group == group_of(r.text) for r in found)


def test_a_hub_that_does_not_answer_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        num_shards = 1

        def shard(self, num_shards: int, index: int) -> Any:
            yield pa.table({"text": ["a"]})
            raise DatasetGenerationError("reading failed") from ConnectionResetError("cut")

    from datasets.exceptions import DatasetGenerationError

    monkeypatch.setattr(hub, "_open", lambda data, unit: Away())
    data = Hub(path="owner/name", revision="0" * 40)
    with pytest.raises(Unavailable, match=r"data\.path=owner/name: the hub does not answer: ConnectionResetError: cut"):
        read(data, 1)


def test_what_the_cache_holds_is_not_taken_for_another_commit(tmp_path: Path) -> None:
    """Without the hub `datasets` takes the newest commit in its cache, whichever was asked for."""
    import datasets

    wanted, cached = "0" * 40, "f" * 40
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "of another commit"}\n')
    datasets.load_dataset("json", data_files={"train": str(rows)}, cache_dir=str(tmp_path / "made"))
    (made,) = (tmp_path / "made").glob("json/*/*/*/dataset_info.json")
    place = tmp_path / "cache" / "owner___name" / "default" / "0.0.0" / cached
    shutil.copytree(made.parent, place)
    (place / "json-train.arrow").rename(place / "name-train.arrow")
    taken = datasets.load_dataset("owner/name", split="train", revision=wanted)
    assert taken["text"] == ["of another commit"]  # what we guard against
    with pytest.raises(Unavailable, match=rf"data\.path=owner/name: .*cached is not owner/name@{wanted}"):
        read(Hub(path="owner/name", revision=wanted), 1)
    unit = Hub(path="owner/name", revision=cached)
    assert [r.text for r in read(unit, 1)[0] if isinstance(r, Document)] == ["of another commit"]


def test_a_data_set_with_a_script_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "ours.py").write_text("")
    with pytest.raises(InputError, match=r"data\.path=.*scripts are no longer supported.* Check data\.config=None"):
        read(Hub(path=str(tmp_path / "ours")), 1)


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    data = Hub(path=str(dataset(tmp_path / "set", "jsonl")))
    (planned,) = plan(data)
    (folder := tmp_path / "set").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(folder)
    assert plan(data) == [planned]
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("hidden")
    assert plan(data) == [planned]
    with open(folder / "train-00000-of-00003.jsonl", "a") as f:
        f.write('{"text": "more", "id": "m"}\n')
    assert plan(data) != [planned]
    with pytest.raises(InputError, match="has changed since this run was planned"):
        list(sources.read(data, sources.Unit(planned, 1, 0, 0)))


def test_settings_that_fit_no_data_set(tmp_path: Path) -> None:
    data = Hub(path=str(dataset(tmp_path / "set", "jsonl")), split="nosuch")
    with pytest.raises(InputError, match=r"(?s)data\.path=.*nosuch.*data\.split=nosuch"):
        read(data, 1)
    with pytest.raises(InputError, match="neither a folder on this machine nor a name on the hub"):
        plan(Hub(path="/no/such/folder"))


def test_a_name_on_the_hub() -> None:
    sha = "0123456789" * 4
    (source,) = plan(Hub(path="owner/name", revision=sha))
    assert (source.path, source.name, source.stamp) == (f"hf://datasets/owner/name@{sha}", "owner/name", sha)
    with pytest.raises(InputError, match=r"owner/name at 'main' is not whole in .*data\.revision=SHA .*or a folder"):
        plan(Hub(path="owner/name"))
