"""Reading token shards: rows across shard boundaries, damaged files named."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmtrain.data.shards import TokenRows, read_index, token_counts
from fmtrain.errors import InputError, StoreError
from tests.fmtrain.fixtures import TEXT, make_tokenizer, make_tokens


def stream(folder: Path) -> np.ndarray:
    return np.concatenate([np.fromfile(p, "<u2") for p in sorted(folder.glob("*.tokens"))]).astype(np.int64)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 400))
def test_rows_run_on_across_shards(tokens_folder: Path, length: int) -> None:
    everything, rows = stream(tokens_folder), TokenRows([tokens_folder], length)
    assert len(rows) == (len(everything) - 1) // length
    for i in range(len(rows)):
        assert rows[i].dtype == np.int64
        assert rows[i].tolist() == everything[i * length : (i + 1) * length + 1].tolist()
    assert rows.counts["left_over_tokens"] == len(everything) - 1 - len(rows) * length


def test_out_of_range(tokens_folder: Path) -> None:
    rows = TokenRows([tokens_folder], 16)
    with pytest.raises(IndexError):
        rows[len(rows)]
    with pytest.raises(IndexError):
        rows[-1]


def test_counts_of_tokens(tokens_folder: Path) -> None:
    index = read_index(tokens_folder)
    counts = token_counts(tokens_folder)
    assert counts.shape == (index.vocab_size,)
    assert counts.tolist() == np.bincount(stream(tokens_folder), minlength=index.vocab_size).tolist()
    assert counts[index.eos_token_id] == index.documents == 40


def test_wide_tokens(tmp_path: Path) -> None:
    np.array([0, 70_000, 5, 1], "<u4").tofile(tmp_path / "00000.tokens")
    np.array([4], "<u8").tofile(tmp_path / "00000.ends")
    index = {"dtype": "uint32", "vocab_size": 70_001, "bos_token_id": 0, "eos_token_id": 1, "tokenizer_sha256": ""}
    index |= {"total_tokens": 4, "documents": 1, "shards": [{"tokens": 4, "documents": 1}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert TokenRows([tmp_path], 3)[0].tolist() == [0, 70_000, 5, 1]
    assert token_counts(tmp_path)[70_000] == 1


def test_fewer_tokens_than_a_row(tokens_folder: Path) -> None:
    with pytest.raises(InputError, match="fewer than one row of 100000"):
        TokenRows([tokens_folder], 100_000)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return make_tokens(tmp_path / "tokens", make_tokenizer(), TEXT)


def test_truncated_shard(copy: Path) -> None:
    path = copy / "00000.tokens"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(StoreError, match=r"00000\.tokens has \d+ bytes; index\.json says"):
        TokenRows([copy], 8)


def test_missing_files(copy: Path) -> None:
    (copy / "00001.ends").unlink()
    with pytest.raises(StoreError, match=r"00001\.ends is missing"):
        TokenRows([copy], 8)
    (copy / "index.json").unlink()
    with pytest.raises(StoreError, match=r"index\.json is missing"):
        TokenRows([copy], 8)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("dtype", "int8", "KeyError 'int8'"), ("shards", None, "TypeError"), ("total_tokens", 3, "total_tokens is 3")],
)
def test_damaged_index(copy: Path, key: str, value: object, message: str) -> None:
    index = json.loads((copy / "index.json").read_text())
    index[key] = value
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(StoreError, match=message):
        TokenRows([copy], 8)


def test_a_token_beyond_the_vocabulary(copy: Path) -> None:
    np.full_like(np.fromfile(copy / "00000.tokens", "<u2"), 60_000).tofile(copy / "00000.tokens")
    with pytest.raises(StoreError, match="token 60000"):
        token_counts(copy)
