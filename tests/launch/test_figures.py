"""What a plan says of a training before it runs: its parameters, steps, tokens, and how long that may take."""

import json
import re
import shutil
import struct
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from fmtrain.artifacts.store import Store
from fmtrain.schema.training import Bert, Llama, Shape
from launch.compose import compose
from launch.figures import Machine, _count, described, measure, shape_of
from launch.graph import build
from launch.plan import Step, plan
from launch.summary import plan_table
from tests.conftest import fmtrain

TEXT = ["recipe=quickstart_tiny", "launch=inline"]
BIG = [
    "recipe=quickstart", "launch=slurm", "launch.nodes=2", "tokenizer.vocab_size=32000", "model.hidden_size=2048",
    "model.intermediate_size=5632", "model.num_hidden_layers=24", "model.num_attention_heads=16",
    "model.num_key_value_heads=16", "model.max_position_embeddings=2048", "stages.pretrain.sequence_length=2048",
    "stages.pretrain.steps=10000", "stages.pretrain.global_batch_size=512", "stages.pretrain.precision=bf16",
]  # fmt: skip


def planned(store: Path, *overrides: str) -> dict[str, Step]:
    root = compose([*overrides, f"store={store}"])
    steps = plan(build(root), Store(store))
    measure(steps, root.launch, Store(store))
    return {step.node.stage: step for step in steps}


@pytest.mark.parametrize(
    "cfg",
    [
        Llama(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2),
        Llama(hidden_size=16, intermediate_size=24, num_attention_heads=2, num_key_value_heads=2,
              tie_word_embeddings=False),
        Bert(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=32),
    ],
)  # fmt: skip
def test_a_shape_has_the_parameters_of_the_model_that_is_built(cfg: Llama | Bert, tiny_store: Path) -> None:
    from transformers import AutoTokenizer

    from fmtrain.models.build import build_model

    tokenizer = AutoTokenizer.from_pretrained(tiny_store / "artifacts/tokenizer/tokenizer/v0001")
    model = build_model(cfg, tokenizer, seed=1)
    shape = cfg.shape(len(tokenizer))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.hidden) == (model.config.num_hidden_layers, model.config.hidden_size)


def test_steps_and_parameters_before_and_after(tiny_store: Path, tmp_path: Path) -> None:
    before = planned(tmp_path / "none", *TEXT)
    after = planned(tiny_store, *TEXT)
    for name in ("pretrain", "sft", "dpo"):
        amount, shape, artifact = before[name].amount, before[name].shape, after[name].artifact
        assert amount is not None and shape is not None and artifact is not None
        counts = artifact.manifest.counts
        assert shape.parameters == counts["parameters"]
        assert counts["steps"] == amount.steps if amount.epochs is None else counts["steps"] <= (amount.steps or 0)
        assert counts["tokens"] <= (amount.tokens or 0)
        assert before[name].seconds is not None and after[name].seconds is None  # reused
    assert described(before["pretrain"]) == "150 k parameters, 30 steps, 61 k tokens"
    epoch = planned(tmp_path / "none", "recipe=quickstart")["sft"]
    assert described(epoch) == "2.1 M parameters, at most 57 steps, 350 k tokens"
    assert described(before["corpus"]) == ""


BATCH = ["stages.pretrain.global_batch_size=32", "stages.sft=null", "stages.reference=null", "stages.dpo=null"]


def test_memory_is_told_by_the_model_s_own_sizes(tmp_path: Path) -> None:
    """Of 1 B parameters, each by hand: what ZeRO parts, what bf16 halves, what offload takes away."""
    words = ["recipe=quickstart", "launch=inline", "launch.ranks=4", "stages.pretrain.zero.stage={}", *BATCH]
    big = {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "num_attention_heads": 16,
           "num_key_value_heads": 16}  # fmt: skip
    words += [f"model.{name}={value}" for name, value in big.items()]

    def gigabytes(stage: int, *more: str) -> float:
        step = planned(tmp_path, *(word.format(stage) for word in words), *more)["pretrain"]
        assert step.memory is not None and step.shape is not None
        state = step.memory - step.shape.activations(8, 256, 2 if "stages.pretrain.precision=bf16" in more else 4)
        assert f"~{step.memory / 1e9:.1f} GB a rank" in described(step)
        return round(state / step.shape.parameters, 3)

    assert [gigabytes(stage) for stage in (0, 1, 2, 3)] == [16, 11, 8, 5]
    assert gigabytes(2, "stages.pretrain.precision=bf16") == 2 + 2 / 4 + 12 / 4
    assert gigabytes(2, "stages.pretrain.zero.offload_optimizer=true") == 5


def test_a_folder_tells_its_shape(tiny_store: Path, tmp_path: Path) -> None:
    model = tiny_store / "artifacts/model/sft/v0001"
    manifest = json.loads((model / "manifest.json").read_text())
    assert shape_of(model) == Shape(manifest["counts"]["parameters"], 2, 64, 768)
    for name, content in {"config.json": '{"n_layer": 3, "n_embd": 5}', "model.safetensors": "\xff" * 40}.items():
        (tmp_path / name).write_text(content)
    assert shape_of(tmp_path) is None  # a header that is none


def test_a_model_of_the_store_is_started_from(tiny_store: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Say {i}", "completion": f"It is {i}"}) + "\n" for i in range(50)))
    words = ["recipe=finetune", "launch=inline", f"data.files={rows}"]
    steps = planned(tiny_store, *words, "model.path=sft@v1")
    manifest = json.loads((tiny_store / "artifacts/model/sft/v0001/manifest.json").read_text())
    assert steps["sft"].prints["model"] == steps["evaluate"].prints["base"] == manifest["fingerprint"]
    assert steps["sft"].shape == Shape(manifest["counts"]["parameters"], 2, 64, 768)
    assert described(steps["sft"]) == "150 k parameters, all rows 3 times"  # nobody has counted them
    assert "no estimate for sft: its rows are not counted yet" in plan_table(list(steps.values()))
    done = fmtrain("plan", *words, f"store={tiny_store}", "model.path=sft@v7")
    assert done.returncode == 2 and "model.path=sft@v7: there is no version 7 of model sft" in done.stderr


def test_a_large_model_on_gpus_of_a_known_type(tmp_path: Path) -> None:
    step = planned(tmp_path, *BIG, "launch.gres=gpu:a100:8")["pretrain"]
    assert step.shape is not None and 1.2e9 < step.shape.parameters < 1.4e9
    tokens = 10_000 * 512 * 2048
    least = 6 * step.shape.parameters * tokens / (16 * 312e12 * 0.35)  # attention comes on top
    assert step.seconds is not None and least < step.seconds < 1.4 * least
    unknown = planned(tmp_path, *BIG, "launch.gpus_per_node=8")
    assert unknown["pretrain"].seconds is None
    table = plan_table(list(unknown.values()))
    assert "no estimate for pretrain, sft, reference, dpo, evaluate: of which type the GPUs are is not known" in table
    assert Machine(8, 1, "nvidia h100 80gb hbm3").flops("bf16") == Machine(8, 1, "h100").flops("bf16")


def test_the_last_time_counts_where_it_was_such_a_machine(tiny_store: Path) -> None:
    ranks = ["launch.ranks=2", "stages.pretrain.optim.lr=0.02"]
    once, twice = (planned(tiny_store, *TEXT, *ranks, f"stages.pretrain.steps={n}")["pretrain"] for n in (300, 600))
    spent = json.loads((tiny_store / "artifacts/model/pretrain/v0001/manifest.json").read_text())["metrics"]["seconds"]
    assert once.seconds is not None and twice.seconds is not None
    assert twice.seconds - once.seconds == pytest.approx(10 * spent)
    other = planned(tiny_store, *TEXT, "launch.ranks=1", "stages.pretrain.steps=300")["pretrain"]
    assert other.seconds != once.seconds  # by its FLOPs


def test_what_is_gone_is_not_made_again_for_what_is_reused(tiny_store: Path, tmp_path: Path) -> None:
    store = shutil.copytree(tiny_store, tmp_path / "store")
    shutil.rmtree(store / "artifacts/model/sft")
    shutil.rmtree(store / "artifacts/tokens")
    steps = planned(store, *TEXT)
    skipped = {name for name, step in steps.items() if step.action == "skip"}
    assert skipped == {"sft", "tokens"}
    assert {step.action for name, step in steps.items() if name not in skipped} == {"reuse"}
    done = fmtrain("run", *TEXT, f"store={store}")
    assert done.returncode == 0 and re.search(r"sft +skip gone, and what was made of it is reused", done.stdout)
    assert not (store / "artifacts/model/sft").exists()
    changed = planned(store, *TEXT, "stages.dpo.objective.beta=0.3")  # which starts from sft's
    assert [name for name, step in changed.items() if step.action == "run"] == [
        "tokens", "sft", "dpo", "evaluate", "publish",
    ]  # fmt: skip


def test_a_seed_of_one_stage(tiny_store: Path) -> None:
    steps = planned(tiny_store, *TEXT, "stages.sft.seed=2")
    again = [name for name, step in steps.items() if step.action != "reuse"]
    assert again == ["sft", "reference", "dpo", "evaluate", "publish"]
    assert steps["sft"].reason == "seed: 1 -> 2"
    same = planned(tiny_store, *TEXT, *(f"stages.{name}.seed=1" for name in ("examples", "pretrain", "evaluate")))
    assert {step.action for step in same.values()} == {"reuse"}


def test_a_file_of_weights_is_measured_by_its_header(tmp_path: Path) -> None:
    import numpy as np

    for header in (b"[" * 100_000, b'{"a": {"shape": [Infinity]}}', b'{"a": {"shape": [' + b"9" * 400 + b"]}}"):
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        (tmp_path / "config.json").write_text('{"num_hidden_layers": 4, "hidden_size": 8}')
        assert shape_of(tmp_path) is None
    save_file({"a": np.zeros((3, 5), np.float32), "b": np.zeros(7, np.float16)}, tmp_path / "model.safetensors")
    save_file({"a": np.zeros((3, 5), np.float32)}, tmp_path / "consolidated.safetensors")  # which nobody reads
    assert shape_of(tmp_path) == Shape(22, 4, 8, 0)


@pytest.mark.parametrize(
    ("number", "said"), [(149_824, "150 k"), (2_097_000, "2.1 M"), (99_700_000, "100 M"), (999_700, "1.0 M"), (7, "7")]
)
def test_counts_in_words(number: float, said: str) -> None:
    assert _count(number) == said


def test_what_is_taken_from_the_store_counts_by_its_size(tiny_store: Path) -> None:
    """And an earlier time is scaled by what there was to do then."""
    pinned = planned(tiny_store, *TEXT, "stages.corpus=null", "stages.tokenizer.inputs.corpus=corpus@v1",
                     "stages.tokens.inputs.corpus=corpus@v1", "stages.examples=null", "stages.sft=null",
                     "stages.reference=null", "stages.dpo=null", "stages.evaluate=null", "stages.publish=null",
                     "tokenizer.vocab_size=700")  # fmt: skip
    assert pinned["tokenizer"].megabytes == pytest.approx(1.17, abs=0.1)
    whole = planned(tiny_store, *TEXT, "data.modules=[]")
    assert (whole["tokens"].seconds or 0) > 1.5 > (planned(tiny_store, *TEXT, "seed=2")["pretrain"].seconds or 9) / 9


def test_a_long_chain_is_measured_stage_by_stage(tmp_path: Path) -> None:
    """Each dpo takes the one before twice, itself and through its reference: 2^30 ways lead to the corpus."""
    more = [f"+stage@stages.d{n:02d}=dpo" for n in range(30)]
    steps = planned(tmp_path, *TEXT, *more, "stages.evaluate=null", "stages.publish=null")
    assert steps["d29_reference"].seconds and steps["d29"].megabytes == steps["corpus"].megabytes
