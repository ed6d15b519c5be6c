"""A model that is there already brings its tokenizer: chosen by itself, known by its files; another is refused."""

import json
import shutil
from pathlib import Path

import pytest

from fmtrain.errors import ConfigError
from fmtrain.schema.tokenizers import Bpe, OfModel
from launch.compose import compose
from launch.plan import Step
from launch.start import planned
from tests.conftest import fmtrain
from tests.fmtrain.fixtures import make_tokenizer
from tests.launch.test_base import model

DATA = [
    "data=local",
    "filter=none",
    "launch=inline",
    "stages.examples=null",
    "stages.sft=null",
    "stages.reference=null",
]
DATA += ["stages.dpo=null"]


def steps(tmp_path: Path, *words: str) -> dict[str, Step]:
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "text": f"a b c {i}"}) + "\n" for i in range(9))
    )
    root = compose(["recipe=quickstart", *DATA, f"data.files={tmp_path}/text.jsonl", f"store={tmp_path}/store", *words])
    return {step.node.stage: step for step in planned(root).steps}


def pretrained(store: Path, folder: Path) -> Path:
    """A trained model of a store, as a folder of somebody's."""
    source = store / "artifacts/model/pretrain/v0001"
    shutil.copytree(
        source, folder, ignore=shutil.ignore_patterns("manifest.json", ".seen.json", "*.jsonl", "training.json")
    )
    return folder


def test_auto_follows_the_model(tmp_path: Path) -> None:
    given = ["model=hf", "model.path=/x"]
    assert isinstance(compose(["recipe=quickstart", "tokenizer.vocab_size=999"]).tokenizer, Bpe)
    assert isinstance(compose(["recipe=quickstart", *given]).tokenizer, OfModel)
    own = ["model@stages.pretrain.model=hf", "stages.pretrain.model.path=/x"]
    assert isinstance(compose(["recipe=quickstart", *own]).tokenizer, OfModel)
    assert isinstance(compose(["recipe=quickstart", *given, "tokenizer=bpe"]).tokenizer, Bpe)
    with pytest.raises(ConfigError, match="tokenizer=model has no setting 'vocab_size'"):
        compose(["recipe=quickstart", *given, "tokenizer.vocab_size=999"])
    with pytest.raises(ConfigError, match=r"starts from random weights \(model=llama\), which have none"):
        compose(["recipe=quickstart", "tokenizer=model"])


def test_other_weights_with_the_same_tokenizer_leave_the_tokens(tiny_store: Path, tmp_path: Path) -> None:
    """A folder, the same with other weights, and the version in a store that it was copied from."""
    one = pretrained(tiny_store, tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    source = tiny_store / "artifacts/model/sft/v0001/model.safetensors"
    shutil.copyfile(source, two / "model.safetensors")
    shutil.copytree(tiny_store, tmp_path / "store")
    plans = [steps(tmp_path, "model=hf", f"model.path={path}") for path in (one, two, "pretrain@v1")]
    assert len({plan["tokenizer"].fingerprint for plan in plans}) == len({p["tokens"].fingerprint for p in plans}) == 1
    assert len({plan["pretrain"].fingerprint for plan in plans}) == 3
    shutil.copytree(one, tmp_path / "three")
    make_tokenizer(["other words"]).save_pretrained(tmp_path / "three")
    other = steps(tmp_path, "model=hf", f"model.path={tmp_path / 'three'}")
    assert other["tokenizer"].fingerprint != plans[0]["tokenizer"].fingerprint


def test_another_tokenizer_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    base = pretrained(tiny_store, tmp_path / "base")
    shutil.copytree(tiny_store, tmp_path / "store")
    given = ["model=hf", f"model.path={base}"]
    with pytest.raises(ConfigError, match="stages.tokenizer is not its tokenizer: tokens would mean other words"):
        steps(tmp_path, *given, "tokenizer=bpe")
    make_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="is not its tokenizer"):
        steps(tmp_path, *given, "tokenizer=hf", f"tokenizer.path={tmp_path / 'other'}")
    assert steps(tmp_path, *given, "tokenizer=hf", f"tokenizer.path={base}")["pretrain"]
    with pytest.raises(ConfigError, match="goes on with pretrain@v1, and stages.tokenizer is not its tokenizer"):
        steps(tmp_path, "stages.pretrain.inputs.model=pretrain@v1")
    pinned = ["stages.pretrain.inputs.model=pretrain@v1", "stages.pretrain.inputs.tokenizer=tokenizer@v1"]
    assert steps(
        tmp_path, *pinned, "stages.pretrain.inputs.tokens=tokens@v1", "stages.tokens=null", "stages.tokenizer=null"
    )["pretrain"]


def test_a_version_s_positions_count_too(tiny_store: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_store, tmp_path / "store")
    with pytest.raises(
        ConfigError, match="stages.pretrain.sequence_length=2000 .* beyond the 512 positions of .*pretrain@v1"
    ):
        steps(tmp_path, "model=hf", "model.path=pretrain@v1", "stages.pretrain.sequence_length=2000")


def test_a_head_that_is_drawn_is_told(tmp_path: Path) -> None:
    body = model(tmp_path / "body", {"architectures": ["BertModel"], "model_type": "bert"})
    (tmp_path / "text.jsonl").write_text('{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}\n')
    words = [
        "recipe=quickstart_mlm",
        "model=hf",
        f"model.path={body}",
        "data=local",
        f"data.files={tmp_path}/text.jsonl",
    ]
    said = planned(compose([*words, f"store={tmp_path}/store"])).graph.said
    assert any(
        "is a BertModel; the masked language model's head that it lacks is drawn from the seed" in s for s in said
    )


@pytest.mark.long
def test_continued_pre_training(tiny_store: Path, tmp_path: Path) -> None:
    base = pretrained(tiny_store, tmp_path / "base")
    few = ["stages.pretrain.steps=3", "stages.pretrain.schedule.warmup_steps=0", "launch.ranks=1", *DATA[2:]]
    done = fmtrain("run", "recipe=quickstart_tiny", "model=hf", f"model.path={base}", f"store={tmp_path}/store", *few)
    assert done.returncode == 0, done.stdout + done.stderr
    published = tmp_path / "store/artifacts/published/quickstart_tiny/v0001"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (published / name).read_bytes() == (base / name).read_bytes(), name
    metrics = json.loads((tmp_path / "store/artifacts/model/pretrain/v0001/manifest.json").read_text())["metrics"]
    first = json.loads((tiny_store / "artifacts/model/pretrain/v0001/manifest.json").read_text())["metrics"]
    assert metrics["first_loss"] < (first["first_loss"] + first["loss"]) / 2  # it goes on, where that one began anew
