"""DeepSpeed at every ZeRO stage, on one rank and on two, makes the steps that plain PyTorch makes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fmtrain.kinds.train import TrainJob
from fmtrain.models import build_model, load_tokenizer
from fmtrain.train.distributed import Group
from fmtrain.train.plain import PlainEngine
from fmtrain.train.settings import derive
from tests.fmtrain.fixtures import make_examples, sft_row, write_jsonl
from tests.fmtrain.train.parity_worker import CASES, STEPS, make_loop
from tests.fmtrain.train.spawning import start, wait

Results = dict[str, dict[str, Any]]
FP32 = [name for name in CASES if "bf16" not in name]
BF16 = [name for name in CASES if "bf16" in name]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path, tokens_folder: Path) -> dict[str, str]:
    examples = make_examples(tmp_path_factory.mktemp("examples"))
    lengths = [sft_row(i, "    return a + b\n" * (1 + i % 4)) for i in range(24)]
    write_jsonl(examples / "sft.train.jsonl", lengths)
    return {"tokenizer": str(tokenizer_folder), "tokens": str(tokens_folder), "examples": str(examples)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, str]) -> dict[int, Results]:
    """By number of ranks; both groups run at the same time."""
    running = {}
    for ranks in (1, 2):
        out = tmp_path_factory.mktemp(f"ranks{ranks}")
        (out / "inputs.json").write_text(json.dumps(inputs))
        argv = ["-m", "tests.fmtrain.train.parity_worker", str(out), str(out / "inputs.json")]
        running[ranks] = (out, start(argv, ranks, out))
    found = {}
    for ranks, (out, processes) in running.items():
        codes = wait(processes)
        assert codes == [0] * ranks, (out / "rank0.log").read_text()
        found[ranks] = json.loads((out / "result.json").read_text())
        for name in found[ranks]:
            found[ranks][name]["weights"] = torch.load(out / f"{name}.pt")
    return found


def plain(job: TrainJob, inputs: dict[str, str]) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    assert job.model is not None
    engine = PlainEngine(
        build_model(job.model, load_tokenizer(Path(inputs["tokenizer"])), job.seed), job.stage, derive(job, "s", 1)
    )
    loop = make_loop(job, engine, Group(), inputs)
    return [loop.step(step)[0] for step in range(STEPS)], engine.weights()


@pytest.fixture(scope="module")
def expected(inputs: dict[str, str]) -> dict[str, tuple[list[dict[str, float]], dict[str, torch.Tensor]]]:
    """Plain PyTorch, four micro-batches a step."""
    return {objective: plain(CASES[f"{objective}-2"], inputs) for objective in ("clm", "sft")}


@pytest.mark.parametrize("name", FP32)
def test_two_ranks_are_plain_pytorch(name: str, results: dict[int, Results], expected: Any) -> None:
    rows, weights = expected[name.split("-")[0]]
    check(results[2][name], rows, weights)


@pytest.mark.parametrize("name", ["clm-2", "sft-2"])
def test_one_rank_is_plain_pytorch_and_two_ranks(name: str, results: dict[int, Results], expected: Any) -> None:
    """One rank with four micro-batches against two with two."""
    rows, weights = expected[name.split("-")[0]]
    check(results[1][name], rows, weights)
    check(results[2][name], results[1][name]["rows"], results[1][name]["weights"])


def check(found: dict[str, Any], rows: list[dict[str, float]], weights: dict[str, torch.Tensor]) -> None:
    for got, want in zip(found["rows"], rows, strict=True):
        assert got["loss"] == pytest.approx(want["loss"], abs=1e-5)
        assert got["grad_norm"] == pytest.approx(want["grad_norm"], rel=1e-4)
        assert (got["tokens"], got["lr"]) == (want["tokens"], want["lr"])
    assert set(found["weights"]) == set(weights)
    for key, value in weights.items():
        assert torch.allclose(found["weights"][key], value, atol=2e-5), key


@pytest.mark.parametrize("name", BF16)
def test_bf16_follows_fp32(name: str, results: dict[int, Results], expected: Any) -> None:
    for got, want in zip(results[2][name]["rows"], expected["clm"][0], strict=True):
        assert got["loss"] == pytest.approx(want["loss"], abs=0.02)
    weights = results[2][name]["weights"]
    assert {w.dtype for w in weights.values()} == {torch.float32}
    odd = next(w for w in weights.values() if w.dim() == 2)
    assert not torch.equal(odd, odd.to(torch.bfloat16).float()), "the master weights, not their rounding"


@pytest.mark.parametrize("name", list(CASES))
def test_the_loss_falls(name: str, results: dict[int, Results]) -> None:
    losses = [row["loss"] for row in results[2][name]["rows"]]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("name", list(CASES))
def test_resume_is_bitwise(name: str, results: dict[int, Results]) -> None:
    found = results[2][name]
    for got, want in zip(found["resumed"], found["rows"][3:], strict=True):
        assert (got["loss"], got["grad_norm"]) == (want["loss"], want["grad_norm"])
    assert found["same_weights"]


@pytest.mark.parametrize("name", list(CASES))
def test_resume_with_other_micro_batches(name: str, results: dict[int, Results]) -> None:
    found = results[2][name]
    tolerance = 0.02 if name in BF16 else 1e-5
    assert found["regrouped"] == pytest.approx([row["loss"] for row in found["rows"][3:]], abs=tolerance)
