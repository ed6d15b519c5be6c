"""A model's folder is read as far as it is one: nothing outside it, and what it cannot do is told when planning."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fmtrain
from fmtrain.artifacts.sources import BESIDE, check_named
from fmtrain.artifacts.stage import Source
from fmtrain.errors import ConfigError, FmtrainError, InputError
from fmtrain.models import load_tokenizer
from fmtrain.publish.publish import handed_on
from launch import base
from launch.compose import compose
from launch.graph import Folder, build

WORDS = {"a": 0, "b": 1, "c": 2}


def model(folder: Path, config: dict[str, Any] | None = None, added: int = 0) -> Path:
    """The files of a small model; what is in its weights nobody asks before training."""
    folder.mkdir(parents=True)
    tokens = [{"id": 3 + i, "content": f"<{i}>"} for i in range(added)]
    said = {"architectures": ["LlamaForCausalLM"], "vocab_size": 4, "max_position_embeddings": 512, **(config or {})}
    for name, data in {
        "config.json": said,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "tokenizer.json": {"model": {"type": "WordLevel", "vocab": WORDS}, "added_tokens": tokens},
        "model.safetensors.index.json": {"weight_map": {"a": "model-00001-of-00001.safetensors"}},
    }.items():
        (folder / name).write_text(json.dumps(data))
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"weights")
    return folder


def rows(folder: Path) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(f'{{"prompt": "{word}", "completion": "b"}}\n' for word in "abc"))
    return file


def plan(folder: Path, *overrides: str) -> Folder:
    root = compose(["recipe=finetune", f"model.path={folder}", f"data.files=['{rows(folder.parent)}']", *overrides])
    found = next(node for node in build(root).nodes if node.stage == "sft").parents["model"]
    assert isinstance(found, Folder)
    return found


def test_the_home_of_nobody_is_refused(tmp_path: Path) -> None:
    """`~name` of no user: wherever a folder is named, what was given and how to mend it."""
    finetune = ["recipe=finetune", f"data.files=['{rows(tmp_path)}']"]
    for key, words in {
        "model.path": finetune, "data.path": ["recipe=corpus_web", "data=hub"], "tokenizer.path": ["tokenizer=hf"],
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=rf"^{key}=~nosuch/x: it cannot be found .*give its whole path$"):
            build(compose([*words, f"{key}='~nosuch/x'"]))
    with pytest.raises(ConfigError, match=r"^config_dir=~nosuch/x: .*give its whole path$"):
        fmtrain.plan([], config_dir="~nosuch/x")


def link_out(folder: Path) -> str:
    (folder.parent / "private").write_text("{{ 'secret' }}")
    (folder / "chat_template.jinja").symlink_to("../private")
    return "chat_template.jinja"


def link_out_below(folder: Path) -> str:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "x.jinja").write_text("")
    (folder / "additional_chat_templates").symlink_to("../elsewhere")
    return "additional_chat_templates/x.jinja"


def index_out(folder: Path) -> str:
    (folder.parent / "outside.safetensors").write_bytes(b"others")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../outside.safetensors"}}')
    return "../outside.safetensors"


def index_absolute(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "/etc/hostname"}}')
    return "/etc/hostname"


def index_to_nothing(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    return "gone.safetensors"


def tokenizer_out(folder: Path) -> str:
    name = "../tokenizer.4.0.json"
    (folder / "tokenizer_config.json").write_text(json.dumps({"fast_tokenizer_files": [name]}))
    return name


def dangling(folder: Path) -> str:
    (folder / "merges.txt").symlink_to("nowhere")
    return "merges.txt"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "vocab.json")
    return "vocab.json"


HOSTILE = [link_out, link_out_below, index_out, index_absolute, index_to_nothing, tokenizer_out, dangling, pipe]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda f: f.__name__)
def test_what_leaves_the_folder_is_refused_by_name(make: Callable[[Path], str], tmp_path: Path) -> None:
    """Planning, loading, and where a file is at stake publishing too."""
    folder = model(tmp_path / "model")
    name = make(folder)
    for read in (plan, load_tokenizer) if make not in (dangling, pipe, link_out) else (plan, load_tokenizer, handed_on):
        with pytest.raises(InputError) as caught:
            read(folder)
        assert f"{name}" in str(caught.value), read


def test_a_snapshot_of_the_hubs_cache_is_a_folder_of_its_own_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--owner--name"
    whole = model(repository / "blobs")
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for path in whole.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert [f.sha256 for f in plan(snapshot).files] == [f.sha256 for f in plan(whole).files]
    (tmp_path / "hub" / "models--other--name").mkdir()
    (tmp_path / "hub" / "models--other--name" / "x.jinja").write_text("")
    (snapshot / "chat_template.jinja").symlink_to("../../../models--other--name/x.jinja")
    with pytest.raises(InputError, match="leads out of its folder"):
        plan(snapshot)


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(model(tmp_path / "model"))
    assert plan(tmp_path / "latest").files


@pytest.mark.parametrize(
    ("config", "overrides", "says"),
    [
        ({"vocab_size": 2}, [], "its tokenizer has 3 tokens and its model 2 embeddings"),
        ({"text_config": {"vocab_size": 2}, "vocab_size": None}, [], "3 tokens and its model 2"),
        ({"max_position_embeddings": 256}, [], "stages.sft.sequence_length=512 .* 256 positions"),
        (
            {"n_positions": 8, "max_position_embeddings": None},
            ["stages.sft.sequence_length=9"],
            "sequence_length=9 .*=8",
        ),
        (
            {"architectures": ["BertForMaskedLM"]},
            [],
            "stages.sft trains a causal .* is a BertForMaskedLM; give another",
        ),
        ({"architectures": ["BertModel"], "model_type": "bert"}, [], "is a BertModel; give another"),
        (
            {"architectures": ["LlamaModel"], "tie_word_embeddings": False},
            [],
            "without a language model's head; give one",
        ),
    ],
)
def test_what_the_model_has_not_is_told_when_planning(
    config: dict[str, Any], overrides: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        plan(model(tmp_path / "model", config), *overrides)


@pytest.mark.parametrize(
    ("config", "recipe", "says"),
    [
        ({"architectures": None, "model_type": "bert"}, "finetune", "is a model of the type 'bert'; give another"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"},
            "finetune",
            "T5ForConditionalGeneration",
        ),
        ({"architectures": ["BertForPreTraining"], "model_type": "bert"}, "finetune", "is a BertForPreTraining"),
        ({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}, "finetune", "SequenceClassif"),
        (
            {"architectures": ["LlamaModel"], "model_type": "llama"},
            "quickstart_mlm",
            "trains a masked .* is a LlamaModel",
        ),
        ({"architectures": ["LlamaModel"], "model_type": "llama"}, "finetune", "without a language model's head"),
        ({"architectures": 3, "model_type": "llama"}, "finetune", None),
        ({"architectures": ["BertForPreTraining"], "model_type": "bert"}, "quickstart_mlm", None),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}, "finetune", None),
        ({"architectures": ["LlamaModel"], "model_type": "llama", "tie_word_embeddings": True}, "finetune", None),
    ],
)
def test_a_head_is_known_by_transformers_own_tables(
    config: dict[str, Any], recipe: str, says: str | None, tmp_path: Path
) -> None:
    folder = model(tmp_path / "model", config)
    words = [f"recipe={recipe}", "model=hf", f"model.path={folder}"]
    words += [f"data.files=['{rows(tmp_path)}']"] if recipe == "finetune" else []
    if says is None:
        assert build(compose(words)).nodes
    else:
        with pytest.raises(ConfigError, match=says):
            build(compose(words))


def test_added_tokens_count(tmp_path: Path) -> None:
    assert plan(model(tmp_path / "fits", added=1)).files
    with pytest.raises(ConfigError, match="5 tokens"):
        plan(model(tmp_path / "more", added=2))


def test_weights_of_another_format_are_told_when_planning(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "model.safetensors.index.json").unlink()
    weights = (folder / "model-00001-of-00001.safetensors").rename(folder / "model.gguf")
    with pytest.raises(InputError, match="model.gguf, a format that is not read.*save_pretrained"):
        plan(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled \(pytorch_model.bin\).*model.pickle=true.*weights_only.*save_pretr"):
        plan(folder)
    assert "pytorch_model.bin" in [f.name for f in plan(folder, "model.pickle=true").files]


def test_a_class_that_stands_in_the_folder_alone_is_refused(tmp_path: Path) -> None:
    code = {"AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    with pytest.raises(ConfigError, match=r"code of its own \(auto_map\), and transformers has no model_type 'mine'"):
        plan(model(tmp_path / "own", {"model_type": "mine", "auto_map": code}))
    plan(model(tmp_path / "known", {"model_type": "llama", "auto_map": code}))  # whose class is transformers' own


def test_a_sentencepiece_file_asks_for_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    monkeypatch.setattr(base, "_installed", lambda package: package != "sentencepiece")  # whatever this machine has
    with pytest.raises(InputError, match="tokenizer.model alone.*pip install sentencepiece protobuf"):
        plan(folder)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", "{", " " * (17 << 20), '{"a": 1e999999}' * 2],
    ids=["deep", "list", "cut", "giant", "two"],
)
def test_a_hostile_config_is_refused(text: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises(FmtrainError, match="config.json"):
        plan(folder)


def test_a_file_that_changed_since_planning_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"x" * (3 << 20))
    planned = [Source(f.path, f"{BESIDE}model:{f.name}", f.size, f.stamp, f.sha256) for f in plan(folder).files]
    weights = folder / "model-00001-of-00001.safetensors"
    os.utime(weights, (1, 1))  # a copy of the same bytes, on another node say
    check_named(planned)
    weights.write_bytes(b"x" * (2 << 20) + b"y" + b"x" * ((1 << 20) - 1))
    with pytest.raises(InputError, match="has changed since this run was planned"):
        check_named(planned)
