"""The tokenizer: exact on any text, special tokens out of text's reach, a folder that transformers loads as it is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.corpus_reader import Document
from data_pipelines.stages import tokenizer
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.corpus import Bpe, TokenizerJob
from tests.data_pipelines import made

modules, corpus, tokenizer_folder = made.modules, made.corpus, made.tokenizer_folder

RESERVED = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<cls>", "<sep>", "<user>", "<assistant>", "<system>"]


def test_ids_of_the_special_tokens(tokenizer_folder: Path) -> None:
    loaded = tokenizer.load(tokenizer_folder)
    want = RESERVED + [f"<spare_{i}>" for i in range(16)]
    assert [loaded.id_to_token(i) for i in range(26)] == want
    assert loaded.get_vocab_size() == 1024
    assert sorted(loaded.get_vocab().values()) == list(range(1024))


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(tokenizer_folder: Path, text: str) -> None:
    loaded = tokenizer.load(tokenizer_folder)
    assert loaded.decode(loaded.encode(text).ids, skip_special_tokens=False) == text


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.sampled_from([*RESERVED, "<spare_3>", "\r\n", "  ", "\x00", "é", "a ", "\t'"]), max_size=12))
def test_text_that_spells_special_tokens_is_text(tokenizer_folder: Path, parts: list[str]) -> None:
    loaded = tokenizer.load(tokenizer_folder)
    ids = loaded.encode("".join(parts)).ids
    assert all(i >= 26 for i in ids)
    assert loaded.decode(ids, skip_special_tokens=True) == "".join(parts)


def test_the_same_corpus_gives_the_same_files(tmp_path: Path, corpus: Path) -> None:
    job = TokenizerJob(Bpe(vocab_size=700))
    first, second = (made.run_stage(tokenizer.run, tmp_path / n, job, {"corpus": corpus}) for n in "ab")
    assert first.digest() == second.digest()
    assert first.result == second.result


def test_ties_do_not_depend_on_the_order_of_documents() -> None:
    words = [f"{a}{b}{c}{d}" for a in "abc" for b in "def" for c in "ghi" for d in "jkl"]
    orders = (words, words[::-1], words[40:] + words[:40])
    made_of = {tokenizer.train(iter([w + " " + w for w in order]), Bpe(vocab_size=330)).to_str() for order in orders}
    assert len(made_of) == 1


def test_counts(tmp_path: Path, corpus: Path, modules: list[Document]) -> None:
    ran = made.run_stage(tokenizer.run, tmp_path, TokenizerJob(Bpe(vocab_size=1024)), {"corpus": corpus})
    counts = ran.result.counts
    trained = [d for d in modules if d.group not in ("argparse", "logging", "textwrap")]
    assert counts["documents"] == len(trained)
    assert counts["bytes"] == sum(len(d.text.encode()) for d in trained)
    assert ran.result.metrics["bytes_per_token"] == pytest.approx(
        counts["heldout_bytes"] / counts["heldout_tokens"], abs=1e-3
    )
    assert 2 < ran.result.metrics["bytes_per_token"] < 5
    assert ran.result.metrics["tokenizer_sha256"] == made.sha256_file(ran.out / "tokenizer.json")
    assert ran.result.metrics["chat_template_sha256"] == made.sha256_file(ran.out / "chat_template.jinja")


def test_a_small_corpus_gives_fewer_merges(tmp_path: Path) -> None:
    small = made.write_corpus(tmp_path / "corpus", [Document("a", "abc abc", "a")])
    ran = made.run_stage(tokenizer.run, tmp_path, TokenizerJob(Bpe()), {"corpus": small})
    assert 282 < ran.result.counts["vocab_size"] < 290
    assert ran.result.counts["vocab_size_asked"] == 4096
    assert ran.result.metrics["bytes_per_token"] is None  # nothing is held out


def test_a_vocabulary_too_small_for_bytes_is_refused(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size: 281 .* at least 282"):
        made.run_stage(tokenizer.run, tmp_path, TokenizerJob(Bpe(vocab_size=281)), {"corpus": corpus})


def test_no_training_document_is_an_input_error(tmp_path: Path) -> None:
    empty = made.write_corpus(tmp_path / "corpus", [], [Document("a", "text", "a")])
    with pytest.raises(InputError, match="no training documents"):
        made.run_stage(tokenizer.run, tmp_path, TokenizerJob(Bpe()), {"corpus": empty})


LOAD = """
import json, sys
from transformers import AutoTokenizer
t = AutoTokenizer.from_pretrained(sys.argv[1])
text = json.loads(sys.argv[2])
chat = [{"role": "system", "content": " s\\n"}, {"role": "user", "content": "<eos>hi\\n"},
        {"role": "assistant", "content": "  x "}]
split = AutoTokenizer.from_pretrained(sys.argv[1], split_special_tokens=True)
try:
    t.apply_chat_template([{"role": "tool", "content": "x"}])
    refused = ""
except Exception as e:
    refused = str(e)
print(json.dumps({
    "named": [getattr(t, f"{n}_token_id") for n in "bos eos pad unk mask cls sep".split()],
    "special": sorted(t.all_special_ids), "length": t.model_max_length, "size": len(t),
    "ids": t(text, split_special_tokens=True).input_ids, "split": split(text).input_ids,
    "special_eos": t("<eos>").input_ids,
    "text": t.decode(t(text, split_special_tokens=True).input_ids),
    "chat": t.apply_chat_template(chat, tokenize=False),
    "prompt": t.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True),
    "refused": refused,
}))
"""


@pytest.mark.parametrize("model_type", [None, "llama", "bert"])
def test_transformers_loads_the_folder(tmp_path: Path, tokenizer_folder: Path, model_type: str | None) -> None:
    """Also beside a config.json, whose model type would choose a tokenizer class that splits text otherwise."""
    folder = Path(shutil.copytree(tokenizer_folder, tmp_path / "model"))
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    text = "def f(x):\n\t'''é <eos>'''   \n    return x  ,  y ; don't  ， \r\n"
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), json.dumps(text)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout.splitlines()[-1])
    ours = tokenizer.load(tokenizer_folder).encode(text).ids
    assert seen["named"] == list(range(7))
    assert seen["special"] == list(range(26))
    assert seen["size"] == 1024 and seen["length"] > 10**9
    assert seen["ids"] == seen["split"] == ours  # and no <bos> by itself
    assert seen["special_eos"] == [1]
    assert seen["text"] == text
    assert seen["chat"] == "<bos><system> s\n<eos><user><eos>hi\n<eos><assistant>  x <eos>"
    assert seen["prompt"] == "<bos><system> s\n<eos><user><eos>hi\n<eos><assistant>"
    assert "user, assistant or system, not tool" in seen["refused"]
