"""Megatron's .bin/.idx, both ways, beside a reader written from the published format alone."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import megatron
from data_pipelines.corpus_reader import documents
from data_pipelines.stages import tokens
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.tokens import TokensJob, TokensStage
from tests.data_pipelines import made

modules, corpus, tokenizer_folder = made.modules, made.corpus, made.tokenizer_folder
IDS = st.lists(st.lists(st.integers(0, 65_535), min_size=1, max_size=9), min_size=1, max_size=9)


def published(prefix: Path) -> list[list[int]]:
    """The documents as Megatron-LM's indexed_dataset.py reads them, field by field, with none of our code."""
    with open(f"{prefix}.idx", "rb") as f:
        assert f.read(9) == b"MMIDIDX\x00\x00"
        assert struct.unpack("<Q", f.read(8)) == (1,)
        dtype = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}[f.read(1)[0]]
        sequences, documents = struct.unpack("<QQ", f.read(16))
        lengths = np.frombuffer(f.read(4 * sequences), np.int32)
        pointers = np.frombuffer(f.read(8 * sequences), np.int64)
        indices = np.frombuffer(f.read(8 * documents), np.int64)
        assert not f.read()
    data = Path(f"{prefix}.bin").read_bytes()
    found = [
        np.frombuffer(data, dtype, n, p).tolist() for n, p in zip(lengths.tolist(), pointers.tolist(), strict=True)
    ]
    return [sum(found[a:b], []) for a, b in zip(indices[:-1], indices[1:], strict=True)]


def write(prefix: Path, sets: list[list[int]], dtype: str = "<u2") -> Path:
    with megatron.Writer(prefix, np.dtype(dtype)) as writer:
        for ids in sets:
            writer.add(np.array(ids, dtype))
    return prefix


@settings(max_examples=30, deadline=None)
@given(sets=IDS, wide=st.booleans())
def test_written_as_published_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, sets: list[list[int]], wide: bool
) -> None:
    prefix = tmp_path_factory.mktemp("m") / "a.b_document"
    write(prefix, sets, "<u4" if wide else "<u2")
    assert published(prefix) == sets
    assert [ids.tolist() for ids in megatron.read(prefix.with_name(prefix.name + ".bin"))] == sets
    assert sorted(p.name for p in prefix.parent.iterdir()) == ["a.b_document.bin", "a.b_document.idx"]


def test_documents_of_several_sequences_and_other_integers(tmp_path: Path) -> None:
    """What Megatron's sentence-split data look like: two sequences a document; ids of 8 bytes; modes at the end."""
    np.arange(10, dtype="<i8").tofile(tmp_path / "x.bin")
    head = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 5, 3, 3)
    body = [np.array(a, d).tobytes() for a, d in (([4, 3, 3], "<i4"), ([0, 32, 56], "<i8"), ([0, 2, 3], "<i8"))]
    (tmp_path / "x.idx").write_bytes(head + b"".join(body) + b"\0\0\0")
    assert [ids.tolist() for ids in megatron.read(tmp_path / "x")] == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.with_suffix(".bin").write_bytes(b"12"), "do not lie inside"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "has .* bytes; 2 sequences"),
        (lambda p: p.write_bytes(b"TNTIDX\0\0" + p.read_bytes()[8:]), "does not begin with MMIDIDX"),
        (lambda p: p.write_bytes(p.read_bytes()[:17] + b"\x06" + p.read_bytes()[18:]), "dtype code 6"),
        (lambda p: p.unlink(), "is missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:-8] + b"\x01" + bytes(7)), "do not run from sequence 0 to 2"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    damage(write(tmp_path / "x", [[1, 2], [3]]).with_suffix(".idx"))
    with pytest.raises(InputError, match=message):
        megatron.read(tmp_path / "x")


def test_out_of_the_stage_and_in_again(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> None:
    inputs = {"corpus": corpus, "tokenizer": tokenizer_folder}
    job = TokensJob(TokensStage(megatron=True, shard_tokens=20_000))
    ran = made.run_stage(tokens.run, tmp_path / "a", job, inputs)
    prefix = ran.out / tokens.MEGATRON_PREFIX
    assert len(published(prefix)) == len(list(documents(corpus, "train")))
    back = TokensJob(TokensStage(from_megatron=[f"{prefix}.bin", f"{prefix}.idx"], shard_tokens=20_000))
    again = made.run_stage(tokens.run, tmp_path / "b", back, {"tokenizer": tokenizer_folder})
    for name in ("index.json", "00000.tokens", "00000.ends", "00001.tokens"):
        assert (again.out / name).read_bytes() == (ran.out / name).read_bytes()
    command = [sys.executable, "-m", "data_pipelines.megatron", str(prefix), str(tmp_path / "c")]
    done = subprocess.run([*command, "--tokenizer", str(tokenizer_folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c" / "00000.tokens").stat().st_size == ran.result.counts["tokens"] * 2


def test_the_index_is_to_be_named_too(tmp_path: Path, tokenizer_folder: Path) -> None:
    prefix = write(tmp_path / "x", [[5]])
    job = TokensJob(TokensStage(from_megatron=[f"{prefix}.bin"]))
    with pytest.raises(ConfigError, match="PREFIX.bin and PREFIX.idx of each"):
        made.run_stage(tokens.run, tmp_path / "a", job, {"tokenizer": tokenizer_folder})


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    write(tmp_path / "x", [[5, 1024]])
    with pytest.raises(InputError, match="ids from 5 to 1024, and the tokenizer .* has 1024 tokens"):
        megatron.convert([tmp_path / "x"], tmp_path / "out", tokenizer_folder, 100)
