"""Token shards: every training document once, whole, in order, and ids that are those of its text."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.corpus_reader import Document, batches, documents
from data_pipelines.stages import tokenizer, tokens
from fmtrain.errors import InputError, StoreError
from fmtrain.run.storage import sha256_file
from fmtrain.schema.corpus import TokensJob, TokensStage
from tests.data_pipelines import made

modules, corpus, tokenizer_folder = made.modules, made.corpus, made.tokenizer_folder


def texts_of(ran: made.Ran, folder: Path) -> list[str]:
    """The documents decoded from the shards, as a reader of the format would."""
    index = json.loads((ran.out / "index.json").read_text())
    loaded, found = tokenizer.load(folder), []
    for i, shard in enumerate(index["shards"]):
        ids = np.fromfile(ran.out / f"{i:05d}.tokens", dtype=np.dtype(index["dtype"]).newbyteorder("<"))
        ends = np.fromfile(ran.out / f"{i:05d}.ends", dtype="<u8")
        assert len(ids) == shard["tokens"] == ends[-1]
        assert len(ends) == shard["documents"]
        for document in np.split(ids, ends[:-1].astype(np.int64)):
            assert document[0] == index["bos_token_id"] == 0
            assert document[-1] == index["eos_token_id"] == 1
            assert document[1:-1].min(initial=26) >= 26
            found.append(loaded.decode(document[1:-1].tolist(), skip_special_tokens=False))
    return found


@pytest.mark.parametrize("shard_tokens", [4_000_000, 20_000, 10])
def test_every_training_document_once_and_whole(
    tmp_path: Path, corpus: Path, tokenizer_folder: Path, shard_tokens: int
) -> None:
    job = TokensJob(TokensStage(shard_tokens=shard_tokens))
    ran = made.run_stage(tokens.run, tmp_path, job, {"corpus": corpus, "tokenizer": tokenizer_folder})
    want = [d.text for d in documents(corpus, "train")]
    assert texts_of(ran, tokenizer_folder) == want
    index = json.loads((ran.out / "index.json").read_text())
    assert index["dtype"] == "uint16" and index["vocab_size"] == 1024
    assert index["tokenizer_sha256"] == sha256_file(tokenizer_folder / "tokenizer.json")
    assert index["total_tokens"] == sum(s["tokens"] for s in index["shards"]) == ran.result.counts["tokens"]
    assert index["documents"] == len(want) == ran.result.counts["documents"]
    assert ran.result.counts["shards"] == len(index["shards"]) == len(list(ran.out.glob("*.tokens")))
    assert ran.result.counts["bytes"] == sum(len(t.encode()) for t in want)
    assert all(s["tokens"] <= shard_tokens or s["documents"] == 1 for s in index["shards"])
    if shard_tokens == 10:
        assert all(s["documents"] == 1 for s in index["shards"])


def test_text_that_spells_special_tokens_and_empty_text(tmp_path: Path, tokenizer_folder: Path) -> None:
    texts = ["<eos><bos>", "", "a <user> b <pad>"]
    small = made.write_corpus(tmp_path / "corpus", [Document(str(i), t, str(i)) for i, t in enumerate(texts)])
    ran = made.run_stage(tokens.run, tmp_path, TokensJob(), {"corpus": small, "tokenizer": tokenizer_folder})
    assert texts_of(ran, tokenizer_folder) == texts


def test_the_same_again_is_the_same_bytes(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    inputs = {"corpus": corpus, "tokenizer": tokenizer_folder}
    assert len({made.run_stage(tokens.run, tmp_path / n, TokensJob(), inputs).digest() for n in "ab"}) == 1


def test_a_vocabulary_over_65536_takes_four_bytes(tmp_path: Path) -> None:
    writer = tokens.ShardWriter(tmp_path, "uint32", 100)
    with writer:
        writer.add(np.asarray([0, 70_000, 1], dtype="uint32"))
    assert np.fromfile(tmp_path / "00000.tokens", dtype="<u4").tolist() == [0, 70_000, 1]


def test_batches_are_bounded_by_number_and_by_size() -> None:
    many = [Document(str(i), "x" * 10, "g") for i in range(600)]
    assert [len(b) for b in batches(iter(many))] == [256, 256, 88]
    large = [Document(str(i), "x" * 3_000_000, "g") for i in range(3)]
    assert [len(b) for b in batches(iter(large))] == [1, 1, 1]


def test_no_document_and_a_damaged_corpus(tmp_path: Path, tokenizer_folder: Path) -> None:
    empty = made.write_corpus(tmp_path / "empty", [])
    with pytest.raises(InputError, match="no training documents"):
        made.run_stage(tokens.run, tmp_path, TokensJob(), {"corpus": empty, "tokenizer": tokenizer_folder})
    cut = made.write_corpus(tmp_path / "cut", [Document("a", "text " * 1000, "a")])
    file = next(p for p in (cut / "train").iterdir() if p.stat().st_size > 40)
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(StoreError, match=f"{file.name} is damaged"):
        made.run_stage(tokens.run, tmp_path, TokensJob(), {"corpus": cut, "tokenizer": tokenizer_folder})
