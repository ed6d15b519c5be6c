"""Two real models from end to end: a chat model of 135 M through `finetune`, an encoder through masked pre-training.

Each comes out with its type, its tokenizer byte for byte, and loads in a process of its own.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests import sharing
from tests.conftest import fmtrain
from tests.data_pipelines.sources.hub_server import Hub
from tests.needs import CHAT_MODEL, MODELS

pytestmark = [pytest.mark.models, pytest.mark.long]

NAME = "someone/SmolLM2-135M-Instruct"
ENCODER = MODELS / "all-MiniLM-L6-v2"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "vocab.txt")
SMALL = (
    "epochs=null steps=1 global_batch_size=1 micro_batch_size=1 sequence_length=64 max_rows=4 schedule.warmup_steps=0"
)
LOADS = """
import sys, transformers
auto = getattr(transformers, sys.argv[1])
model, tokenizer = auto.from_pretrained(sys.argv[2]), transformers.AutoTokenizer.from_pretrained(sys.argv[2])
print(model.dtype, tokenizer.decode(tokenizer("a test")["input_ids"], skip_special_tokens=True))
"""


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chat model as a bf16 copy."""

    def make(folder: Path) -> None:
        AutoModelForCausalLM.from_pretrained(CHAT_MODEL, dtype=torch.bfloat16).save_pretrained(folder / CHAT_MODEL.name)
        for name in TOKENIZER:
            if (CHAT_MODEL / name).is_file():
                shutil.copyfile(CHAT_MODEL / name, folder / CHAT_MODEL.name / name)

    return sharing.once(tmp_path_factory, "halved", make) / CHAT_MODEL.name


@pytest.fixture
def hub(halved: Path, tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as made:
        made.add(NAME, {path.name: path.read_bytes() for path in halved.iterdir()})
        yield made


def finetuned(tmp_path: Path, model: str, **env: str) -> Path:
    """The published folder of one step."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"Add 1 and {i}.", "completion": str(i + 1)}) + "\n" for i in range(30))
    )
    words = ["recipe=finetune", f"model.path={model}", f"data.files={rows}", f"store={tmp_path}/store", "launch=inline"]
    words += [*(f"stages.sft.{setting}" for setting in SMALL.split()), "launch.ranks=1", "stages.evaluate=null"]
    done = fmtrain("run", *words, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "store/artifacts/published/finetuned/v0001"


def check(folder: Path, source: Path, auto: str, dtype: str) -> None:
    """It is what it came of, and loads."""
    names = [name for name in TOKENIZER if (source / name).is_file()]
    assert "tokenizer.json" in names
    assert all((folder / name).read_bytes() == (source / name).read_bytes() for name in names)
    kinds = set[str]()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            kinds |= {str(weights.get_tensor(name).dtype) for name in weights.keys()}  # noqa: SIM118
    assert kinds == {f"torch.{dtype}"} and json.loads((folder / "config.json").read_text())["dtype"] == dtype
    done = subprocess.run([sys.executable, "-c", LOADS, auto, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0 and f"torch.{dtype} a test" in done.stdout, done.stdout + done.stderr


def test_a_chat_model_as_it_is(tmp_path: Path) -> None:
    check(finetuned(tmp_path, str(CHAT_MODEL)), CHAT_MODEL, "AutoModelForCausalLM", "float32")


def test_a_bf16_chat_model_by_its_name_on_a_hub(halved: Path, hub: Hub, tmp_path: Path) -> None:
    """Where it is trained in fp32, and comes out as it came in."""
    folder = finetuned(tmp_path, NAME, **hub.environment)
    check(folder, halved, "AutoModelForCausalLM", "bfloat16")
    card = (folder / "README.md").read_text()
    assert f"base_model: {NAME}" in card and f"at commit `{hub.heads[NAME]}`" in card


def test_a_bf16_chat_model_by_its_path(halved: Path, tmp_path: Path) -> None:
    check(finetuned(tmp_path, str(halved)), halved, "AutoModelForCausalLM", "bfloat16")


def test_an_encoder_without_a_head_learns_one(shared_data: Path, tmp_path: Path) -> None:
    few = ["stages.pretrain.steps=20", "stages.pretrain.schedule.warmup_steps=2", "stages.pretrain.global_batch_size=8"]
    few += ["stages.evaluate.max_bytes=4000", "stages.evaluate.bootstrap=20", "stages.evaluate.samples=1"]
    text = [
        "data=local",
        f"data.files={shared_data}/pretrain/tinyshakespeare.txt",
        "data.split=paragraphs",
        "filter=none",
    ]
    words = [f"model.path={ENCODER}", f"store={tmp_path}/store", "launch=inline", "launch.ranks=1", *text, *few]
    done = fmtrain("run", "recipe=quickstart_mlm", "model=hf", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "is a BertModel, without the head of a masked language model: 6 of its weights are drawn at random"
        in done.stdout
    )
    assert "base is a BertModel, which has no language model's head: it is not scored." in done.stdout
    check(tmp_path / "store/artifacts/published/quickstart_mlm/v0001", ENCODER, "AutoModelForMaskedLM", "float32")
    metrics = json.loads((tmp_path / "store/artifacts/model/pretrain_mlm/v0001/manifest.json").read_text())["metrics"]
    assert metrics["loss"] < metrics["first_loss"]
