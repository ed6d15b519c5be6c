"""The tokenizer: exact on any text, special tokens out of text's reach, a folder that transformers loads as it is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.corpus_reader import Document
from data_pipelines.folder import Marks, marks
from data_pipelines.stages import tokenizer
from data_pipelines.vocabulary import train
from fmtrain.artifacts.storage import sha256_file
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.tokenizer import TokenizerJob
from fmtrain.schema.tokenizers import Bpe, Existing, Unigram, WordPiece
from tests.data_pipelines import made

modules, corpus, tokenizer_folder, trained = made.modules, made.corpus, made.tokenizer_folder, made.trained

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
    made_of = {
        train(lambda order=order: (w + " " + w for w in order), Bpe(vocab_size=330)).to_str() for order in orders
    }
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
    assert ran.result.metrics["tokenizer_sha256"] == sha256_file(ran.out / "tokenizer.json")
    assert ran.result.metrics["chat_template_sha256"] == sha256_file(ran.out / "chat_template.jinja")


def test_a_small_corpus_gives_fewer_merges(tmp_path: Path) -> None:
    small = made.write_corpus(tmp_path / "corpus", [Document("a", "abc abc", "a")])
    ran = made.run_stage(tokenizer.run, tmp_path, TokenizerJob(Bpe()), {"corpus": small})
    assert 282 < ran.result.counts["vocab_size"] < 290
    assert ran.result.counts["vocab_size_asked"] == 4096
    assert ran.result.metrics["bytes_per_token"] is None  # nothing is held out


def test_a_vocabulary_too_small_for_bytes_is_refused(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.vocab_size: 300 .* at least 366"):
        job = TokenizerJob(Bpe(vocab_size=300, spare_tokens=100))
        made.run_stage(tokenizer.run, tmp_path, job, {"corpus": corpus})


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


# ---------------------------------------------------------------------------------------------- the other kinds

AGAIN = """
import gzip, json, sys
from pathlib import Path
from data_pipelines.corpus_reader import documents
from data_pipelines.vocabulary import train
from fmtrain.schema.tokenizers import Unigram, WordPiece
texts = [d.text for d in documents(Path(sys.argv[1]), "train")]
kind = {"unigram": Unigram, "wordpiece": WordPiece}[sys.argv[2]]
sys.stdout.write(train(lambda: iter(texts[::-1]), kind(vocab_size=600)).to_str(pretty=True))
"""


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_another_process_and_order_give_the_same_tokenizer(trained: dict[str, Path], corpus: Path, kind: str) -> None:
    """The library's hash maps are seeded anew in each process; what is learnt must not show it."""
    run = subprocess.run([sys.executable, "-c", AGAIN, str(corpus), kind], capture_output=True, text=True, check=True)
    assert run.stdout == (trained[kind] / "tokenizer.json").read_text()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_each_kind_has_the_reserved_tokens_first(trained: dict[str, Path], kind: str) -> None:
    loaded = tokenizer.load(trained[kind])
    assert [loaded.id_to_token(i) for i in range(26)] == RESERVED + [f"<spare_{i}>" for i in range(16)]
    assert loaded.get_vocab_size() == 600 and sorted(loaded.get_vocab().values()) == list(range(600))
    assert min(loaded.encode("a <eos> <mask><spare_3>").ids) >= (26 if kind != "wordpiece" else 3)
    ours = marks(trained[kind], loaded)
    assert (ours.start, ours.end) == (0, 1)


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_unigram_gives_any_text_back(trained: dict[str, Path], text: str) -> None:
    loaded = tokenizer.load(trained["unigram"])
    assert loaded.decode(loaded.encode(text).ids, skip_special_tokens=False) == text


def test_wordpiece_splits_as_bert_does(trained: dict[str, Path]) -> None:
    loaded = tokenizer.load(trained["wordpiece"])
    assert loaded.decode(loaded.encode("def  return(self)").ids) == "def return ( self )"
    assert "##" in "".join(loaded.encode("zyxwv").tokens)
    assert loaded.encode("a \U0001f600").tokens[-1] == "<unk>"
    assert loaded.encode("Name").tokens != loaded.encode("name").tokens


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_transformers_loads_the_other_kinds(trained: dict[str, Path], kind: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(trained[kind]), json.dumps("return  self.name <eos>")],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["named"] == list(range(7)) and seen["size"] == 600
    assert seen["ids"] == tokenizer.load(trained[kind]).encode("return  self.name <eos>").ids


def test_an_alphabet_that_leaves_no_room_is_refused(tmp_path: Path, corpus: Path) -> None:
    for config, message in (
        (
            WordPiece(vocab_size=300, spare_tokens=285),
            r"tokenizer.vocab_size: 300 .* characters \(tokenizer.alphabet limits them\)",
        ),
        (Unigram(vocab_size=300, spare_tokens=100), "at least 366"),
    ):
        with pytest.raises(ConfigError, match=message):
            made.run_stage(tokenizer.run, tmp_path, TokenizerJob(config), {"corpus": corpus})


# ---------------------------------------------------------------------------------------------- tokenizer=hf


def existing(folder: Path, source: Path, inputs: dict[str, Path] | None = None) -> made.Ran:
    return made.run_stage(tokenizer.run, folder, TokenizerJob(Existing(path=str(source))), inputs)


def change(folder: Path, **values: object) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        data = json.loads((folder / name).read_text())
        kept = {k: v for k, v in {**data, **values}.items() if v is not None}
        (folder / name).write_text(json.dumps(kept))


def test_an_existing_folder_is_taken_as_it_is(tmp_path: Path, tokenizer_folder: Path, corpus: Path) -> None:
    source = Path(shutil.copytree(tokenizer_folder, tmp_path / "source"))
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(b"weights")
    ran = existing(tmp_path / "run", source, {"corpus": corpus})
    names = sorted(p.name for p in ran.out.iterdir())
    assert names == ["chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert all((ran.out / name).read_bytes() == (source / name).read_bytes() for name in names)
    assert ran.result.counts["chat_template_added"] == 0 and ran.result.counts["special_tokens"]["eos"] == "<eos>"
    assert 2 < ran.result.metrics["bytes_per_token"] < 5
    alone = existing(tmp_path / "alone", source)  # without a corpus to measure on
    assert alone.result.metrics["bytes_per_token"] is None


def test_our_chat_template_where_there_is_none(tmp_path: Path, tokenizer_folder: Path) -> None:
    source = Path(shutil.copytree(tokenizer_folder, tmp_path / "source"))
    (source / "chat_template.jinja").unlink()
    ran = existing(tmp_path / "run", source)
    assert (ran.out / "chat_template.jinja").read_bytes() == (tokenizer_folder / "chat_template.jinja").read_bytes()
    assert ran.result.counts["chat_template_added"] == 1
    change(source, chat_template="{{ messages[0] }}")
    kept = existing(tmp_path / "kept", source)
    assert not (kept.out / "chat_template.jinja").exists() and kept.result.counts["chat_template_added"] == 0


def test_no_template_of_tokens_that_are_not_there(tmp_path: Path, tokenizer_folder: Path) -> None:
    source = Path(shutil.copytree(tokenizer_folder, tmp_path / "source"))
    (source / "chat_template.jinja").unlink()
    text = (source / "tokenizer.json").read_text().replace('"<user>"', '"<|user|>"')
    (source / "tokenizer.json").write_text(text)
    ran = existing(tmp_path / "run", source)
    assert not (ran.out / "chat_template.jinja").exists()
    assert ran.result.counts["chat_template_added"] == 0 and ran.result.metrics["chat_template_sha256"] is None


def test_what_stands_around_a_document(tmp_path: Path, tokenizer_folder: Path) -> None:
    source = Path(shutil.copytree(tokenizer_folder, tmp_path / "source"))
    loaded = tokenizer.load(source)
    change(source, bos_token="<eos>")  # GPT-2: one token for both
    assert marks(source, loaded) == Marks(None, 1)
    change(source, bos_token=None, eos_token=None)  # BERT
    assert marks(source, loaded) == Marks(5, 6)
    change(source, cls_token=None, eos_token={"content": "<eos>", "__type": "AddedToken"})  # T5
    assert marks(source, loaded) == Marks(None, 1)
    change(source, eos_token="</s>")
    with pytest.raises(ConfigError, match="names '</s>' as eos_token, which tokenizer.json does not have"):
        existing(tmp_path / "run", source)
    change(source, eos_token=None, sep_token=None)
    with pytest.raises(ConfigError, match="no token that ends a document"):
        existing(tmp_path / "run", source)


def test_truncation_and_padding_of_a_folder_are_set_aside(tmp_path: Path, tokenizer_folder: Path) -> None:
    source = Path(shutil.copytree(tokenizer_folder, tmp_path / "source"))
    cut = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    cut.enable_truncation(4)
    cut.enable_padding(length=8)
    cut.save(str(source / "tokenizer.json"))
    text = "def f(x): return x  # and on and on"
    loaded = tokenizer.load(existing(tmp_path / "run", source).out)
    assert loaded.encode(text).ids == tokenizer.load(tokenizer_folder).encode(text).ids


def test_a_folder_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(InputError, match="no tokenizer.json there; expected a Hugging Face tokenizer folder"):
        existing(tmp_path / "run", tmp_path)
    with pytest.raises(ConfigError, match="tokenizer.path was not given"):
        made.run_stage(tokenizer.run, tmp_path / "none", TokenizerJob(Existing()))
