"""What tests of the training wing share: a tiny tokenizer, tokens artifact, examples and models, made here, no hub.

Functions write into a folder of the caller's; the pytest fixtures of the same subject are made once a session.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import sha256_file
from fmtrain.kinds.objectives import Objective
from fmtrain.kinds.train import TrainJob, TrainStage
from fmtrain.models import build_model, load_tokenizer, save_model
from fmtrain.schema.load import dump
from fmtrain.schema.training import Bert, Llama

SPECIAL = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<cls>", "<sep>", "<user>", "<assistant>", "<system>"]
SPECIAL += [f"<spare_{i}>" for i in range(16)]
CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}"
    "{{ '<' ~ message['role'] ~ '>' }}{{ message['content'] }}<eos>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXT = [
    "def add(a, b):\n    return a + b\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
    "import os\n\nfor name in sorted(os.listdir('.')):\n    print(name)\n",
    "def fib(n):\n    a, b = 0, 1\n    while n > 0:\n        a, b, n = b, a + b, n - 1\n    return a\n",
]


def make_tokenizer(texts: Sequence[str] = TEXT, vocab_size: int = 400) -> PreTrainedTokenizerBase:
    """A byte-level BPE with the project's special tokens (ids 0..25) and chat template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    names = {f"{n}_token": f"<{n}>" for n in ("bos", "eos", "pad", "unk", "mask", "cls", "sep")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of the tokenizer.json that `tokenizer` is saved as."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return sha256_file(Path(folder) / "tokenizer.json")


def make_tokens(
    folder: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], documents_per_shard: int = 3
) -> Path:
    """A tokens artifact of `texts`, each `<bos> text <eos>`."""
    folder.mkdir(parents=True, exist_ok=True)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    encoded = [[bos, *tokenizer(t, add_special_tokens=False)["input_ids"], eos] for t in texts]
    shards = []
    for i, start in enumerate(range(0, len(encoded), documents_per_shard)):
        part = encoded[start : start + documents_per_shard]
        flat = np.array([t for d in part for t in d], dtype="<u2")
        flat.tofile(folder / f"{i:05d}.tokens")
        np.cumsum([len(d) for d in part]).astype("<u8").tofile(folder / f"{i:05d}.ends")
        shards.append({"tokens": len(flat), "documents": len(part)})
    index = {
        "dtype": "uint16",
        "vocab_size": len(tokenizer),
        "bos_token_id": bos,
        "eos_token_id": eos,
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "total_tokens": sum(s["tokens"] for s in shards),
        "documents": len(encoded),
        "shards": shards,
    }
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def sft_row(number: int, response: str = "    return a + b\n") -> dict[str, Any]:
    messages = [{"role": "user", "content": f"def add{number}(a, b):"}, {"role": "assistant", "content": response}]
    return {"id": f"sft-{number}", "group": f"g{number}", "messages": messages}


def preference_row(number: int, kind: str = "name") -> dict[str, Any]:
    return {
        "id": f"pref-{number}",
        "group": f"g{number}",
        "kind": kind,
        "prompt": [{"role": "user", "content": f"def add{number}(a, b):"}],
        "chosen": "    return a + b\n",
        "rejected": f"    return a + {'c' * (1 + number % 5)}\n",
    }


def make_examples(folder: Path, rows: int = 12) -> Path:
    """An examples artifact with `rows` rows in each of its four files."""
    for split, first in (("train", 0), ("heldout", 1000)):
        write_jsonl(folder / f"sft.{split}.jsonl", [sft_row(first + i) for i in range(rows)])
        write_jsonl(folder / f"preference.{split}.jsonl", [preference_row(first + i) for i in range(rows)])
    write_jsonl(folder / "unfit.jsonl", [])
    return folder


def tiny_llama(tokenizer: PreTrainedTokenizerBase, seed: int = 1, **sizes: Any) -> PreTrainedModel:
    """A Llama of about 30 thousand parameters."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return build_model(
        Llama(**{**small, "num_key_value_heads": 2, "max_position_embeddings": 128, **sizes}), tokenizer, seed
    )


def tiny_bert(tokenizer: PreTrainedTokenizerBase, seed: int = 1) -> PreTrainedModel:
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return build_model(Bert(**small, max_position_embeddings=128), tokenizer, seed)


def train_stage(folder: Path, objective: Objective, inputs: dict[str, Path], **stage: Any) -> tuple[Stage, TrainJob]:
    """A training stage as a worker reads it, with `stage` set on its TrainStage."""
    job = TrainJob(seed=1, stage=TrainStage(artifact=objective.name, objective=objective, **stage))
    made = Stage(
        stage=objective.name,
        kind="model",
        name=objective.name,
        fingerprint="0" * 32,
        run="test",
        job=dump(job),
        inputs={role: str(path) for role, path in inputs.items()},
        refs={},
        sources=[],
        work=str(folder / "work"),
        folder=folder,
    )
    return made, job


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(str(folder))
    return folder


@pytest.fixture
def tokenizer(tokenizer_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 documents in 14 shards, about 1,600 tokens."""
    return make_tokens(tmp_path_factory.mktemp("tokens"), make_tokenizer(), TEXT * 10)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = make_tokenizer()
    save_model(tiny_llama(tokenizer), tokenizer, folder)
    return folder
