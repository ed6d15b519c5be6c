"""Evaluation rows found in documents, and named."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters import texts
from data_pipelines.filters.base import Counting
from data_pipelines.filters.decontaminate import Decontaminate
from data_pipelines.grams import Sequences, grams, plain_words
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema import rules

LONG = "Janet's ducks lay sixteen eggs per day and she eats three for breakfast every single morning before work"
SHORT = "Which muscle moves the human jaw?"


def rule(folder: Path, *rows: Any, **settings: Any) -> Decontaminate:
    path = folder / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Decontaminate(rules.Decontaminate(files=[str(path)], **settings))


def verdict(ours: Decontaminate, text: str) -> tuple[str, Any] | None:
    drop = ours(Document("a", text))
    return (drop.rule, drop.value) if drop else None


def test_n_grams(tmp_path: Path) -> None:
    ours = rule(tmp_path, {"question": "Something else of five words"}, {"question": LONG, "answer": "six"})
    thirteen = " ".join(LONG.split()[2:15])
    assert verdict(ours, f"He wrote: {thirteen.upper()}, or so.") == ("decontaminate.n_gram", "eval.jsonl:2")
    assert verdict(ours, thirteen.replace(" eggs", ",\n*eggs*!")) == ("decontaminate.n_gram", "eval.jsonl:2")
    assert verdict(ours, " ".join(LONG.split()[2:14])) is None  # twelve
    assert verdict(ours, thirteen.replace("three", "four")) is None
    assert verdict(ours, "") is None


def test_short_rows_are_found_whole(tmp_path: Path) -> None:
    row = {"query": SHORT, "choices": ["the masseter muscle", "a muscle of the neck"]}
    ours = rule(tmp_path, row, {"query": "Too short"})
    assert verdict(ours, f"A quiz: {SHORT.lower()} Think.") == ("decontaminate.short_row", "eval.jsonl:1")
    assert verdict(ours, "It is a muscle of the neck.") is None  # an answer alone proves nothing
    assert verdict(ours, SHORT.replace("jaw", "leg")) is None


def test_min_hits_counts_distinct_n_grams(tmp_path: Path) -> None:
    ours = rule(tmp_path, LONG, min_hits=2)
    thirteen = " ".join(LONG.split()[:13])
    assert verdict(ours, f"{thirteen}. {thirteen}.") is None
    assert verdict(ours, " ".join(LONG.split()[:14])) == ("decontaminate.n_gram", "eval.jsonl:1")


def test_every_row_that_was_met_is_counted(tmp_path: Path) -> None:
    other = LONG.replace("ducks", "hens") + " at the old mill"
    ours = rule(tmp_path, LONG, other, SHORT)
    assert isinstance(ours, Counting)
    assert verdict(ours, f"{other} {SHORT}") == ("decontaminate.n_gram", "eval.jsonl:2")  # the row with most of it
    assert verdict(ours, SHORT) == ("decontaminate.short_row", "eval.jsonl:3")
    assert verdict(ours, "nothing of the kind") is None
    assert ours.counts() == {"eval.jsonl:1": 1, "eval.jsonl:2": 1, "eval.jsonl:3": 2}


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.txt").write_text(f"{folder} {LONG}\n")
    files = [str(tmp_path / folder / "test.txt") for folder in ("a", "b")]
    ours = Decontaminate(rules.Decontaminate(files=files))
    assert verdict(ours, f"b {LONG}") == ("decontaminate.n_gram", f"{files[1]}:1")


def test_forms_of_files(tmp_path: Path) -> None:
    lines = b'{"q": ["one", {"a": "two"}], "n": 3}\n\n"three"\n'
    whole = json.dumps({"name": "x", "train": ["one", "two"], "test": [{"a": "three"}]}).encode()
    cases = {
        "a.jsonl": (lines, [(1, ["one", "two"]), (3, ["three"])]),
        "a.json": (whole, [(1, ["x"]), (2, ["one"]), (3, ["two"]), (4, ["three"])]),
        "b.json": (b'["one", "two"]', [(1, ["one"]), (2, ["two"])]),
        "a.txt": (b"\xef\xbb\xbfone\n\ntwo words\n", [(1, ["one"]), (3, ["two words"])]),
        "a.tsv": (b"id\ttext\n1\tone\r\n", [(1, ["id", "text"]), (2, ["1", "one"])]),
    }
    for name, (data, expected) in cases.items():
        for ending, pack in (("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".zst", zstandard.compress)):
            (tmp_path / f"{name}{ending}").write_bytes(pack(data))
            assert list(texts.rows(tmp_path / f"{name}{ending}")) == expected


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text of 5 words"):
        rule(tmp_path, "too short")
    for name, data, message in (
        ("a.parquet", b"", "ends in"),
        ("a.jsonl", b"{", "a.jsonl:1: not JSON"),
        ("a.txt.gz", gzip.compress(b"words" * 99, mtime=0)[:-9], "cannot be read"),
        ("a.txt.zst", b"no zstandard", "cannot be read"),
        ("a.txt", b"\xff\xfe\xff", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            Decontaminate(rules.Decontaminate(files=[str(tmp_path / name)]))


@given(st.text("abcd", max_size=30).map(list), st.lists(st.text("abcd", min_size=1, max_size=4).map(list)))
def test_sequences_are_found_where_they_stand(text: list[str], wanted: list[list[str]]) -> None:
    words, kinds = plain_words(" ".join(text)), sorted({tuple(w) for w in wanted})
    hashes = {kind: int(grams(plain_words(" ".join(kind)), len(kind))[0]) for kind in kinds}
    unique = np.array(sorted(hashes.values()), np.uint64)
    numbers, starts, lengths = Sequences(unique, [len(kind) for kind in kinds]).find(words)
    found = {(int(unique[n]), int(s), int(k)) for n, s, k in zip(numbers, starts, lengths, strict=True)}
    assert found == {
        (hashes[kind], i, len(kind))
        for kind in kinds
        for i in range(len(text) - len(kind) + 1)
        if tuple(text[i : i + len(kind)]) == kind
    }


def test_a_known_overlap(shared_data: Path) -> None:
    """The model solutions answer the test's questions; the training set's do not."""
    ours = Decontaminate(rules.Decontaminate(files=[str(shared_data / "eval/gsm8k_test.jsonl.gz")]))
    with gzip.open(shared_data / "preference/gsm8k_model_solutions.jsonl.gz") as lines:
        solutions = [json.loads(line)["question"] for line in lines]
    assert [verdict(ours, text) for text in solutions] == [
        ("decontaminate.n_gram", f"gsm8k_test.jsonl.gz:{i}") for i in range(1, len(solutions) + 1)
    ]
    with gzip.open(shared_data / "sft/gsm8k_train__train.jsonl.gz") as lines:
        clean = [verdict(ours, " ".join(texts.strings(json.loads(line)))) for line in lines]
    assert sum(v is not None for v in clean) < 0.02 * len(clean)
