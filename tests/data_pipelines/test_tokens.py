"""Token shards: every training document once, whole, in order, and ids that are those of its text."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.corpus_reader import Document, batches, documents
from data_pipelines.encoding import Encoder
from data_pipelines.folder import load, marks
from data_pipelines.stages import tokenizer, tokens
from data_pipelines.token_shards import ShardWriter
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import InputError, StoreError
from fmtrain.kinds.tokens import TokensJob, TokensStage
from fmtrain.schema.tokenizers import Bpe, Unigram, WordPiece
from tests.data_pipelines import made

modules, corpus, tokenizer_folder, trained = made.modules, made.corpus, made.tokenizer_folder, made.trained


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
    assert (tmp_path / "said.txt").read_text() == f"{len(want)} training documents: {len(want)} tokenized\n"
    if shard_tokens == 10:
        assert all(s["documents"] == 1 for s in index["shards"])


def test_tokens_by_source_and_licence(tmp_path: Path, tokenizer_folder: Path) -> None:
    rows = [("a", "web", "mit"), ("b", "web", "gpl"), ("c", "code", "mit"), ("d", "code", "mit")]
    texts = [
        Document(i, f"def {i}(): return {i * n}", "g", source, license=lic) for n, (i, source, lic) in enumerate(rows)
    ]
    inputs = {"corpus": made.write_corpus(tmp_path / "corpus", texts), "tokenizer": tokenizer_folder}
    ran = made.run_stage(tokens.run, tmp_path / "ran", TokensJob(), inputs)
    loaded = load(tokenizer_folder)
    found = json.loads((ran.out / "sources.json").read_text())
    for table, name in (("sources", "source"), ("licenses", "license")):
        for value in {getattr(d, name) for d in texts}:
            own = [d.text for d in texts if getattr(d, name) == value]
            size = sum(len(loaded.encode(text, add_special_tokens=False).ids) for text in own)
            expected = {"documents": len(own), "bytes": sum(map(len, own)), "tokens": size}
            assert found[table].pop(value) == expected
        assert found[table] == {}


def test_text_that_spells_special_tokens_and_empty_text(tmp_path: Path, tokenizer_folder: Path) -> None:
    texts = ["<eos><bos>", "", "a <user> b <pad>"]
    small = made.write_corpus(tmp_path / "corpus", [Document(str(i), t, str(i)) for i, t in enumerate(texts)])
    ran = made.run_stage(tokens.run, tmp_path, TokensJob(), {"corpus": small, "tokenizer": tokenizer_folder})
    assert texts_of(ran, tokenizer_folder) == texts


def test_the_same_again_is_the_same_bytes(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    inputs = {"corpus": corpus, "tokenizer": tokenizer_folder}
    assert len({made.run_stage(tokens.run, tmp_path / n, TokensJob(), inputs).digest() for n in "ab"}) == 1


def test_a_vocabulary_over_65536_takes_four_bytes(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint32", 100)
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


def test_shards_carry_their_hashes(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    job = TokensJob(TokensStage(shard_tokens=20_000))
    ran = made.run_stage(tokens.run, tmp_path, job, {"corpus": corpus, "tokenizer": tokenizer_folder})
    for i, shard in enumerate(json.loads((ran.out / "index.json").read_text())["shards"]):
        assert shard["sha256"] == sha256_file(ran.out / f"{i:05d}.tokens")
        assert shard["ends_sha256"] == sha256_file(ran.out / f"{i:05d}.ends")


PIECES = st.lists(
    st.sampled_from(["word", " ", "\n", "\t", "é中", "'s", "12", "...", "\u00a0", "\x1c", "<eos>"]), max_size=40
)


@pytest.mark.parametrize("config", [Bpe(vocab_size=600), WordPiece(vocab_size=600), Unigram(vocab_size=600)])
@settings(max_examples=60, deadline=None)
@given(parts=PIECES, longest=st.integers(1, 12))
def test_a_long_document_has_the_ids_of_the_whole(
    trained: dict[str, Path], config: Bpe | WordPiece | Unigram, parts: list[str], longest: int
) -> None:
    loaded = load(trained[config.name])
    document = Document("a", "".join(parts), "g")
    encoder = Encoder(loaded, marks(trained[config.name], loaded), longest)
    ((_, ids),) = encoder([document])
    whole = loaded.encode(document.text, add_special_tokens=False).ids
    assert ids.tolist() == [0, *whole, 1]
    assert "".join(encoder.pieces(document)) == document.text


def test_zst_and_gz_are_one_corpus_and_a_cut_zst_is_found(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    rows = [
        json.dumps({"id": str(i), "text": "t" * 3000 * i, "group": "g", "source": "s"}).encode() + b"\n"
        for i in range(9)
    ]
    frame = lambda part: zstandard.compress(b"".join(part))  # noqa: E731
    whole = frame(rows[:3]) + frame(rows[3:6])  # two frames, as parallel writers leave them
    (tmp_path / "train/00000.jsonl.zst").write_bytes(whole)
    (tmp_path / "train/00001.jsonl.gz").write_bytes(gzip.compress(b"".join(rows[6:])))
    found = list(documents(tmp_path, "train"))
    assert [d.id for d in found] == [str(i) for i in range(9)]
    assert {d.source for d in found} == {"s"} and [len(d.text) for d in found] == [3000 * i for i in range(9)]
    for size in range(len(whole) - 1, 0, -7):
        if size == len(frame(rows[:3])):
            continue
        (tmp_path / "train/00000.jsonl.zst").write_bytes(whole[:size])
        with pytest.raises(StoreError, match="00000.jsonl.zst is damaged"):
            list(documents(tmp_path, "train"))
