"""Data sets by their names on a hub: resolved, streamed and decontaminated against, over its real HTTP interface."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from string import ascii_lowercase

import pytest

from data_pipelines.corpus_reader import documents
from tests.conftest import fmtrain
from tests.data_pipelines.sources.hub_server import Hub

CORPUS, ROWS = "some/corpus", 40
QUESTION = "Janet keeps sixteen ducks and every one of them lays an egg a day, so how many are there in a week?"
CARD = b"---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test.jsonl\n---\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as made:
        made.add("openai/gsm8k", {"README.md": CARD, "main/test.jsonl": json.dumps({"question": QUESTION}).encode()})
        yield made


def add_corpus(hub: Hub, first: int = 0) -> str:
    """A commit of two shards with `ROWS` rows each, one of which holds the evaluation row."""
    letters = Random(first)
    texts = [" ".join("".join(letters.choices(ascii_lowercase, k=6)) for _ in range(30)) for _ in range(2 * ROWS)]
    texts[3] += f" {QUESTION}"
    lines = [json.dumps({"id": f"r{first + n}", "text": text}).encode() + b"\n" for n, text in enumerate(texts)]
    shards = {"one.jsonl": b"".join(lines[:ROWS]), "two.jsonl.gz": gzip.compress(b"".join(lines[ROWS:]))}
    return hub.add(CORPUS, {f"data/train-{name}": content for name, content in shards.items()})


def run(hub: Hub, store: Path, *overrides: str) -> str:
    base = ["recipe=corpus_web", "launch=inline", "filter=none", "data=hub", f"data.path={CORPUS}", f"store={store}"]
    done = fmtrain("run", *base, *overrides, **hub.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ids(store: Path, version: str = "v0001") -> list[str]:
    return sorted(d.id for d in documents(store / "artifacts/corpus/corpus_web" / version, "train"))


def test_from_its_name_to_a_corpus(hub: Hub, tmp_path: Path) -> None:
    commit = add_corpus(hub)
    run(hub, tmp_path, "filter.rules=[decontaminate]", "filter.decontaminate.sets=[gsm8k]")
    assert ids(tmp_path) == sorted({f"r{n}" for n in range(2 * ROWS)} - {"r3"})
    why = fmtrain("corpus", "why", "r3", f"--store={tmp_path}").stdout
    assert "decontaminate.n_gram" in why and "openai--gsm8k:main:test.jsonl:1" in why
    manifest = (tmp_path / "artifacts/corpus/corpus_web/v0001/manifest.json").read_text()
    assert commit in manifest and hub.heads["openai/gsm8k"] in manifest


@pytest.mark.long
def test_a_name_is_read_at_its_commit_though_the_hub_moves_on(hub: Hub, tmp_path: Path) -> None:
    first = add_corpus(hub)
    run(hub, tmp_path)
    add_corpus(hub, first=1000)
    hub.requests.clear()
    assert "reuse corpus_web@v1" in run(hub, tmp_path, f"data.revision={first}")
    assert hub.requests == []  # a commit needs no one's answer
    run(hub, tmp_path)
    assert ids(tmp_path) == sorted(f"r{n}" for n in range(2 * ROWS))
    assert ids(tmp_path, "v0002") == sorted(f"r{1000 + n}" for n in range(2 * ROWS))


@pytest.mark.long
def test_answers_that_break_off_lose_nothing(hub: Hub, tmp_path: Path) -> None:
    add_corpus(hub)
    hub.cuts += ["train-one.jsonl", "train-two.jsonl.gz"] * 2
    run(hub, tmp_path)
    assert hub.cuts == []
    assert ids(tmp_path) == sorted(f"r{n}" for n in range(2 * ROWS))


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    add_corpus(hub)
    wrong = {
        "data.path=some/nothing": "error: data.path=some/nothing: the hub has no data set some/nothing, or a private",
        "data.revision=v7": "data.path=some/corpus: some/corpus has no branch, tag or commit 'v7'",
        "data.split=test": "Check data.config=None and data.split=test",
    }
    for override, message in wrong.items():
        given = [f"data.path={CORPUS}", override, f"store={tmp_path}", "launch=inline", "filter=none"]
        done = fmtrain("run", "recipe=corpus_web", "data=hub", *given, **hub.environment)
        assert done.returncode == 3 and message in done.stderr + done.stdout, done.stdout + done.stderr
