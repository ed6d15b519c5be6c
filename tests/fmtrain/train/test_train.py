"""`python -m fmtrain.train` for real: two ranks over gloo, killed, stopped, damaged, refused, and on a full disk."""

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from fmtrain.artifacts.stage import read_stage, write_stage
from fmtrain.errors import ExitCode
from fmtrain.schema.training import Checkpoint, Zero
from tests.fmtrain.train.spawning import log, make_stage, start, start_stage, train_job, until_step, wait
from tests.needs import need

SLOW = train_job()  # long enough to be killed in the middle


@pytest.fixture(scope="module")
def inputs(tokenizer_folder: Path, tokens_folder: Path) -> dict[str, Path]:
    return {"tokenizer": tokenizer_folder, "tokens": tokens_folder}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path]) -> Path:
    """The stage folder of an uninterrupted run."""
    stage = make_stage(tmp_path_factory.mktemp("whole"), SLOW, inputs)
    assert wait(start_stage(stage)) == [0, 0], log(stage)
    return stage


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path]) -> Path:
    """The folder of a run that was killed after its second checkpoint; copied by each test that goes on from it."""
    stage = make_stage(tmp_path_factory.mktemp("killed"), SLOW, inputs)
    processes = start_stage(stage)
    until_step(stage, processes, 24)
    processes[1].kill()
    codes = wait(processes)
    assert codes == [ExitCode.STAGE_FAILED, -signal.SIGKILL], "the other rank notices, and leaves by itself"
    assert not (stage.parent / "work" / "result.json").exists()
    assert len(checkpoints(stage)) == 2
    return stage.parent


def copy_of(folder: Path, target: Path) -> Path:
    """The same unfinished work elsewhere; paths in stage.json are relative to it."""
    shutil.copytree(folder / "work", target / "work")
    write_stage(target / "stage", dataclasses.replace(read_stage(folder / "stage"), work=str(target / "work")))
    return target / "stage"


def edit_job(stage: Path, change: Any) -> None:
    data = json.loads((stage / "stage.json").read_text())
    data["job"] = change(data["job"])
    (stage / "stage.json").write_text(json.dumps(data))


def work(stage: Path) -> Path:
    return stage.parent / "work"


def checkpoints(stage: Path) -> list[Path]:
    return sorted((work(stage) / "checkpoints").glob("step-*"))


def model_bytes(stage: Path) -> bytes:
    return (work(stage) / "out" / "model.safetensors").read_bytes()


def metric_rows(stage: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work(stage) / "out" / "metrics.jsonl").read_text().splitlines()]


def error(stage: Path) -> dict[str, Any]:
    return json.loads((stage / "error.json").read_text())  # type: ignore[no-any-return]


def same_training(stage: Path, whole: Path) -> None:
    """Bit-identical weights, and the same losses row by row."""
    assert model_bytes(stage) == model_bytes(whole)
    for got, want in zip(metric_rows(stage), metric_rows(whole), strict=True):
        assert {k: got[k] for k in ("step", "loss", "lr", "grad_norm", "tokens")} == {
            k: want[k] for k in ("step", "loss", "lr", "grad_norm", "tokens")
        }


def test_what_a_run_leaves(whole: Path) -> None:
    out = work(whole) / "out"
    result = json.loads((work(whole) / "result.json").read_text())
    rows = metric_rows(whole)
    assert [row["step"] for row in rows] == list(range(40))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert result["counts"]["steps"] == 40 and result["counts"]["tokens"] == 40 * 8 * 32
    assert result["metrics"]["loss"] == pytest.approx(sum(r["loss"] for r in rows[-4:]) / 4)
    expected = {"ranks": 2, "zero_stage": 2, "precision": "fp32", "device": "cpu", "threads": 1}
    assert expected.items() <= result["numerics"].items()
    model = AutoModelForCausalLM.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == result["counts"]["parameters"]
    assert len(AutoTokenizer.from_pretrained(out)) == model.config.vocab_size
    training = json.loads((out / "training.json").read_text())
    assert training["objective"] == "clm" and training["rows"] == result["counts"]["rows"]
    assert json.loads((whole / "progress.json").read_text())["done"] == 40
    assert [p.name for p in checkpoints(whole)] == ["step-00000020", "step-00000030"]


def test_killed_and_started_again_is_bit_identical(killed: Path, whole: Path, tmp_path: Path) -> None:
    """And told, where the versions are not those that the checkpoint was saved under."""
    stage = copy_of(killed, tmp_path / "again")
    for path in checkpoints(stage):
        data = json.loads((path / "manifest.json").read_text())
        del data["seal"]
        before = {**data["versions"], "torch": "1.0"}
        (path / "manifest.json").write_text(json.dumps({**data, "versions": before}))
    metrics = work(stage) / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"loss": ', '"loss": 1', 1))  # the checkpoint has its own
    assert wait(start_stage(stage)) == [0, 0], log(stage)
    assert "steps 20 to 40" in log(stage)
    same_training(stage, whole)
    assert log(stage).count("under torch 1.0, now ") == 1
    numerics = json.loads((work(stage) / "result.json").read_text())["numerics"]
    assert numerics["resumed_under"] == [before] and numerics["numpy"]
    last = json.loads((checkpoints(stage)[-1] / "manifest.json").read_text())
    assert last["earlier"] == [before] and last["versions"] != before
    assert "resumed_under" not in json.loads((work(whole) / "result.json").read_text())["numerics"]


def test_damaged_then_asked_to_stop(killed: Path, whole: Path, tmp_path: Path) -> None:
    """The newest checkpoint has a flipped byte; going on from the older one, one rank is asked to stop."""
    stage = copy_of(killed, tmp_path / "damaged")
    victim = max((p for p in checkpoints(stage)[-1].rglob("*.pt")), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    (work(stage) / "checkpoints" / "tmp-00000025-abcd").mkdir()
    metrics = work(stage) / "metrics.jsonl"  # rows of lost steps must not pass for those of this attempt
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:11]))
    processes = start_stage(stage)
    until_step(stage, processes, 12)
    processes[1].send_signal(signal.SIGUSR1)
    assert wait(processes) == [ExitCode.REQUEUE, ExitCode.REQUEUE], log(stage)
    assert f"{victim.name} is damaged" in log(stage) and "steps 10 to 40" in log(stage)
    assert error(stage)["exit_code"] == ExitCode.REQUEUE and "is saved" in error(stage)["message"]
    assert not list((work(stage) / "checkpoints").glob("tmp-*"))
    assert wait(start_stage(stage)) == [0, 0], log(stage)
    same_training(stage, whole)


@pytest.mark.parametrize(
    ("ranks", "zero", "said"),
    [(1, 2, "launch.ranks=2"), (2, 1, "stages.pretrain.zero.stage=2")],
    ids=["ranks", "zero"],
)
def test_other_numerics_are_refused(ranks: int, zero: int, said: str, killed: Path, tmp_path: Path) -> None:
    stage = copy_of(killed, tmp_path / "other")
    edit_job(stage, lambda job: {**job, "stage": {**job["stage"], "zero": {"stage": zero}}})
    before = [p.name for p in checkpoints(stage)]
    assert wait(start_stage(stage, ranks)) == [ExitCode.CONFIG] * ranks, log(stage)
    message = error(stage)["message"]
    assert said in message and f"delete {work(stage) / 'checkpoints'}" in message and "step 20" in message
    assert [p.name for p in checkpoints(stage)] == before


def until_started(stage: Path, processes: list[subprocess.Popen[bytes]], timeout: float = 300) -> None:
    """Return when the worker's frame stands: it has made the folder for its output."""
    deadline = time.monotonic() + timeout
    while not (work(stage) / "out").exists():
        assert all(p.poll() is None for p in processes), log(stage)
        assert time.monotonic() < deadline, f"no work/out in {timeout} s: {log(stage)}"
        time.sleep(0.01)


def test_asked_to_stop_while_starting(inputs: dict[str, Path], tmp_path: Path) -> None:
    stage = make_stage(tmp_path, SLOW, inputs)
    processes = start_stage(stage, ranks=1)
    until_started(stage, processes)
    processes[0].terminate()
    assert wait(processes) == [ExitCode.REQUEUE], log(stage)
    assert not checkpoints(stage)


def test_wrong_batch_exits_2_at_once(inputs: dict[str, Path], tmp_path: Path) -> None:
    stage = make_stage(tmp_path, train_job(micro_batch_size=3), inputs)
    assert wait(start_stage(stage, ranks=1)) == [ExitCode.CONFIG]
    assert "stages.pretrain.global_batch_size=8" in error(stage)["message"]


@pytest.mark.long
def test_under_torchrun(inputs: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    """Also ZeRO 3: the export gathers what is partitioned."""
    stage = make_stage(tmp_path, dataclasses.replace(SLOW, stage=dataclasses.replace(SLOW.stage, zero=Zero(3))), inputs)
    where = ["--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    argv = ["-m", "torch.distributed.run", *where, "--local-addr=127.0.0.1", "-m", "fmtrain.train", str(stage)]
    assert wait(start(argv, 1, stage)) == [0], log(stage)
    assert AutoModelForCausalLM.from_pretrained(work(stage) / "out").num_parameters() > 0
    losses = [(a["loss"], b["loss"]) for a, b in zip(metric_rows(stage), metric_rows(whole), strict=True)]
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in losses)


@contextlib.contextmanager
def small_disk(where: Path, size: str) -> Iterator[None]:
    need("mount")
    where.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize("size", [pytest.param("200k", marks=pytest.mark.long), "560k"], ids=["first save", "later"])
def test_full_disk(size: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Every rank leaves with the store's exit code, none hangs, and no half checkpoint passes for a whole one."""
    job = dataclasses.replace(SLOW, checkpoint=Checkpoint(every_steps=2, keep=20))
    stage = make_stage(tmp_path, job, inputs)
    with small_disk(work(stage), size):
        codes = wait(start_stage(stage))
        assert codes == [ExitCode.STORE, ExitCode.STORE], log(stage)
        assert "Make room" in error(stage)["message"]
        assert (len(checkpoints(stage)) > 0) == (size == "560k")
