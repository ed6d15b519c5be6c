"""Rows by a data set's name on a hub: its config and split, what of it is fetched, and what is said where it is not."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.sources import Rows
from launch.compose import compose
from launch.graph import build, pinned
from launch.hub_rows import hub_rows
from launch.sources import sources
from tests.conftest import fmtrain
from tests.data_pipelines.sources.hub_server import Hub
from tests.launch.test_hub import said

NAME = "some/rows"
CARD = b"""---
license: mit
configs:
- config_name: main
  default: true
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: pairs
  data_files: pairs/*.jsonl
- config_name: away
  data_files: ../*.jsonl
- config_name: table
  data_files: table/*.csv
---
# Rows
"""


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def chats(first: int, count: int = 40) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": str(n)}]}
        for n in range(first, first + count)
    ]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as made:
        pairs = [{"prompt": f"Is {n} even?", "chosen": "it is", "rejected": "who knows"} for n in range(40)]
        made.add(
            NAME,
            {
                "README.md": CARD,
                "main/train-00000-of-00002.parquet": parquet(chats(0)),
                "main/train-00001-of-00002.parquet": parquet(chats(40)),
                "main/test-00000-of-00001.parquet": parquet(chats(900)),
                "pairs/rows.jsonl": "".join(json.dumps(row) + "\n" for row in pairs).encode(),
                "table/rows.csv": b"prompt,completion\na,b\n",
            },
        )
        yield made


def words(tmp_path: Path, *more: str) -> list[str]:
    """The examples alone: what becomes of them nobody asks here."""
    rest = [f"stages.{name}=null" for name in ("sft", "reference", "dpo", "evaluate", "publish")]
    base = ["recipe=finetune", "model.path=/x", "launch=inline", f"store={tmp_path}/store", f"data.path={NAME}"]
    return [*base, *rest, *more]


def manifest(tmp_path: Path, version: int = 1) -> dict[str, Any]:
    path = tmp_path / f"store/artifacts/examples/examples/v{version:04}/manifest.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def cached(hub: Hub) -> set[str]:
    return {p.name for p in (hub.folder / "home").glob("datasets--*/snapshots/*/**/*") if p.is_file()}


def test_from_its_name_to_examples(hub: Hub, tmp_path: Path) -> None:
    """Of large files the plan reads the beginning, the run fetches those of the split, and offline they are there."""
    said(fmtrain("plan", *words(tmp_path), **hub.environment))
    assert cached(hub) == {"README.md"}
    run = said(fmtrain("run", *words(tmp_path), **hub.environment))
    commit = hub.heads[NAME]
    assert f"fetch      {NAME}@{commit[:12]} (" in run and "80 rows: " in run
    train = {f"train-{n:05}-of-00002.parquet" for n in range(2)}
    assert cached(hub) == {"README.md", *train}
    base = manifest(tmp_path)["bases"]["data"]
    assert (base["repo"], base["revision"], base["commit"], base["licence"]) == (NAME, "main", commit, "mit")
    assert base["files"].keys() == {f"main/{name}" for name in train}
    assert [name for name, _, _ in manifest(tmp_path)["payload"]["sources"]] == sorted(train)
    assert all(p.stat().st_mode & 0o044 for p in (hub.folder / "home").glob("datasets--*/blobs/*"))  # as the umask says
    offline = {**hub.environment, "HF_HUB_OFFLINE": "1"}
    again = said(fmtrain("run", *words(tmp_path, "data.config=main"), **offline))
    assert "reuse examples@v1" in again
    assert f"{NAME} is {NAME}@{commit[:12]}, as it is cached: the hub does not answer (HF_HUB_OFFLINE is set)" in again
    missing = said(fmtrain("plan", *words(tmp_path, "data.split=test"), **offline), 3)
    assert "not whole in the cache" in missing and "it lacks main/test-00000-of-00001.parquet" in missing
    assert f"hf download {NAME} --repo-type dataset" in missing


@pytest.mark.long
def test_a_flipped_bit_in_the_cache_is_told(hub: Hub, tmp_path: Path) -> None:
    said(fmtrain("run", *words(tmp_path), **hub.environment))
    (path,) = (hub.folder / "home").glob("datasets--*/snapshots/*/main/train-00001-*")
    content = bytearray(path.read_bytes())
    content[content.index(b"parquet-cpp")] ^= 1  # who wrote it: nobody else would notice
    path.resolve().write_bytes(content)
    error = said(fmtrain("run", *words(tmp_path, "stages.examples.max_sft_rows=7"), **hub.environment), 3)
    assert f"{path.name} in the cache is not what the hub has as {NAME}@" in error and f"rm {path.resolve()}" in error


@pytest.mark.long
def test_a_small_file_is_there_once_it_is_planned(hub: Hub, tmp_path: Path) -> None:
    """The same file by its path is the same rows; the branch moves on, and its commit stays."""
    pairs = ["data.config=pairs"]
    said(fmtrain("run", *words(tmp_path, *pairs), **hub.environment))
    first = hub.heads[NAME]
    (path,) = (hub.folder / "home").glob("datasets--*/snapshots/*/pairs/rows.jsonl")
    by_path = [word for word in words(tmp_path) if not word.startswith("data.path")]
    assert "examples  reuse" in said(fmtrain("plan", *by_path, f"data.files={path}", **hub.environment))
    hub.add(NAME, {"README.md": CARD, "pairs/rows.jsonl": b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n'})
    assert "input files: 1 changed" in said(fmtrain("plan", *words(tmp_path, *pairs), **hub.environment))
    hub.requests.clear()
    for old in ([f"data.path={NAME}@{first}"], [f"data.revision={first}"]):
        plan = said(fmtrain("plan", *words(tmp_path, *pairs, *old), **hub.environment))
        assert "examples  reuse" in plan, plan
    assert hub.requests == []  # a commit that is cached needs no one's answer


def test_what_is_said_of_what_it_has_not(hub: Hub, tmp_path: Path) -> None:
    hub.add("some/gated", {"README.md": CARD})
    hub.gated.add("some/gated")
    wrong = {
        "data.path=some/nothing": "the hub has no data set some/nothing, or a private one, which needs HF_TOKEN",
        "data.path=some/gated": "/datasets/some/gated; and give its token in HF_TOKEN",
        "data.config=other": "there is no config 'other'; it has main, pairs, away, table; e.g. data.config=main",
        "data.split=dev": "there is no split 'dev'; it has train, test; e.g. data.split=train",
        "data.config=away": "its card names ../*.jsonl, which is no file of its own",
        "data.config=table": "its split 'train' is table/rows.csv, and rows are read from JSON lines and Parquet",
        "data.revision=v7": f"{NAME} has no branch, tag or commit 'v7'",
    }
    for override, message in wrong.items():
        done = fmtrain("plan", *words(tmp_path, override), **hub.environment)
        assert done.returncode == 3 and message in done.stderr, done.stdout + done.stderr
        assert done.stderr.startswith("error: data.path=some/") and len(done.stderr.splitlines()) == 1


def test_a_folder_of_a_data_set(tmp_path: Path) -> None:
    """Without a card its files' names say which split they are; a name that no config has is refused."""
    for name, row in (("train.jsonl", "a"), ("test.jsonl", "b")):
        (tmp_path / name).write_text(json.dumps({"prompt": row, "completion": row}) + "\n")
    (one,) = hub_rows(Rows(path=str(tmp_path)))
    assert one.name == "train.jsonl" and one.path == str(tmp_path / "train.jsonl")
    (one,) = hub_rows(Rows(path=str(tmp_path), split="test"))
    assert one.name == "test.jsonl"
    with pytest.raises(InputError, match="its card names no configs; leave out data.config=x"):
        hub_rows(Rows(path=str(tmp_path), config="x"))
    with pytest.raises(ConfigError, match=r"data.files and data.path=.*: rows come from one of the two"):
        sources(Rows(path=str(tmp_path), files=["x"]))
    with pytest.raises(InputError, match=r"^data.path=nosuch: neither a folder on this machine nor a name on the hub"):
        sources(Rows(path="nosuch"))
    with pytest.raises(ConfigError, match="two revisions"):
        sources(Rows(path="a/b@c", revision="d"))


def test_a_queue_job_is_told_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached of a commit needs no hub, and this process is told to stay offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    snapshot = tmp_path / "datasets--some--rows" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "train.jsonl").write_text('{"prompt": "p", "completion": "c"}\n{"prompt": "q", "completion": "d"}\n')
    (tmp_path / "datasets--some--rows" / "refs").mkdir()
    (tmp_path / "datasets--some--rows" / "refs" / "main").write_text(commit)
    graph = build(compose([word for word in words(tmp_path) if not os.fspath(word).startswith("store")]))
    assert pinned(graph) == [f"data.path='{NAME}@{commit}'", "data.revision=null"]
    (snapshot / "train.jsonl").rename(snapshot / "train-00000-of-00002.jsonl")
    with pytest.raises(InputError, match=r"not whole in the cache .* it lacks files of that split"):
        sources(Rows(path=NAME))  # of which another tool has fetched a part
    assert compose([*words(tmp_path), *pinned(graph)]).data.path == f"{NAME}@{commit}"  # type: ignore[attr-defined]
