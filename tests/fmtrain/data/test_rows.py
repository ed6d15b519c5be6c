"""Selecting rows of an examples artifact: too long, refused and not needed are counted."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from fmtrain.data.rows import check_refused, preference_rows, require, sft_rows
from fmtrain.errors import InputError, StoreError
from tests.fmtrain.fixtures import make_examples, sft_row, write_jsonl


def test_counts(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sft.train.jsonl"
    refused = {"id": "bad", "group": "g", "messages": [{"role": "user", "content": "x"}]}
    write_jsonl(path, [sft_row(0), sft_row(1, "y" * 500), refused, sft_row(2)])
    rows = sft_rows(path, tokenizer, 64)
    assert [r.id for r in rows.rows] == ["sft-0", "sft-2"]
    assert rows.counts == {"rows": 2, "too_long": 1, "refused": 1, "not_needed": 0}
    assert "row 'bad' left out: a chat without an assistant turn" in capsys.readouterr().err


def test_a_share_of_refused_rows_ends_it(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "sft.train.jsonl"
    refused = {"id": "bad", "group": "g", "messages": [{"role": "user", "content": "x"}]}
    write_jsonl(path, [sft_row(0), sft_row(1, "y" * 500), refused, sft_row(2)])
    rows = sft_rows(path, tokenizer, 64)
    check_refused(rows, 0.25, "stages.sft.max_refused_fraction")
    with pytest.raises(InputError, match=r"refuses 1 of 4 rows .25.0%.*e.max_refused_fraction=0.2 .*fraction=0\.25$"):
        check_refused(rows, 0.2, "stage.max_refused_fraction")


def test_the_limit_is_inclusive(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "sft.train.jsonl"
    write_jsonl(path, [sft_row(0)])
    length = len(sft_rows(path, tokenizer, 999)[0].encoded.ids)
    assert len(sft_rows(path, tokenizer, length)) == 1
    assert len(sft_rows(path, tokenizer, length - 1)) == 0


def test_max_rows_is_a_sample_that_ignores_the_file_s_order(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    forward, back = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_jsonl(forward, [sft_row(i) for i in range(20)])
    write_jsonl(back, [sft_row(i) for i in reversed(range(20))])
    few = [r.id for r in sft_rows(forward, tokenizer, 64, 5).rows]
    assert len(few) == 5 and few == [r.id for r in reversed(sft_rows(back, tokenizer, 64, 5).rows)]
    assert set(few) < {r.id for r in sft_rows(forward, tokenizer, 64, 8).rows}
    assert sft_rows(forward, tokenizer, 64, 5).counts["not_needed"] == 15


def test_none_usable(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = make_examples(tmp_path) / "preference.train.jsonl"
    rows = preference_rows(path, tokenizer, 4)
    with pytest.raises(InputError, match="no usable row: 12 longer than sequence_length=4, 0 refused"):
        require(rows, path, 4)


def test_damaged_files(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "sft.train.jsonl"
    with pytest.raises(StoreError, match="is missing"):
        sft_rows(path, tokenizer, 64)
    path.write_text('{"id": "a"\n')
    with pytest.raises(StoreError, match=r"sft\.train\.jsonl:1 is damaged"):
        sft_rows(path, tokenizer, 64)
    path.write_text('{"id": "a"}\n')
    with pytest.raises(StoreError, match="row 'a' lacks 'messages'"):
        sft_rows(path, tokenizer, 64)


def test_real_rows(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, shared_data: Path) -> None:
    """GSM8K through the template: the ids are the template's, what is learnt is the answer and its end token."""
    with gzip.open(shared_data / "sft" / "gsm8k_train__train.jsonl.gz", "rt", encoding="utf-8") as f:
        raw = [json.loads(line) for line in itertools.islice(f, 200)]
    chats = [[{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}] for r in raw]
    path = tmp_path / "sft.train.jsonl"
    write_jsonl(path, [{"id": str(i), "group": "g", "messages": chat} for i, chat in enumerate(chats)])
    rows = sft_rows(path, tokenizer, 100_000).rows
    assert len(rows) == len(chats)
    for row, chat in zip(rows, chats, strict=True):
        assert row.encoded.ids == tokenizer.apply_chat_template(chat)["input_ids"]
        learnt = [i for i, loss in zip(row.encoded.ids, row.encoded.loss, strict=True) if loss]
        assert tokenizer.decode(learnt) == chat[1]["content"] + "<eos>"
