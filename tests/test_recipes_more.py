"""Other ways in: your own text, your own model and rows, masked LM, and the full quickstart once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import fmtrain
from tests.needs import CHAT_MODEL

# One rank: what these prove does not hang on their number, and each rank imports torch for every stage.
HERE = ["launch=inline", "launch.ranks=1"]
FAST = [*HERE, "model=llama_tiny", "stages.pretrain.steps=12", "stages.pretrain.schedule.warmup_steps=2"]


def newest(store: Path, pattern: str) -> dict[str, dict[str, object]]:
    path = max(store.glob(f"artifacts/{pattern}/v*/manifest.json"))
    found: dict[str, dict[str, object]] = json.loads(path.read_text())
    return found


def loads(auto: str, folder: Path) -> bool:
    """Does transformers load the folder in a process of its own?"""
    code = f"import transformers, sys; transformers.{auto}.from_pretrained(sys.argv[1])"
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True).returncode == 0


def write_rows(path: Path) -> Path:
    """Every form, and rows that fit none."""
    rows: list[object] = [{"prompt": f"Add {i} and {i + 1}.", "completion": f"That is {2 * i + 1}."} for i in range(60)]
    rows += [
        {"messages": [{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": str(i)}]}
        for i in range(40)
    ]
    rows += [
        {"prompt": f"Is {i} even?", "chosen": "yes" if i % 2 == 0 else "no", "rejected": "maybe so"} for i in range(40)
    ]
    rows += [{"question": "what form is this?"}, [1, 2], "text"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    return path


FINETUNE = [*HERE, "recipe=finetune", "stages.sft.epochs=1", "stages.sft.schedule.warmup_steps=1"]
FINETUNE += ["stages.dpo.schedule.warmup_steps=1", "stages.evaluate.bootstrap=50", "stages.evaluate.samples=1"]


def test_finetune_from_a_folder_with_rows_of_every_form(tiny_store: Path, tmp_path: Path) -> None:
    model = tiny_store / "artifacts/model/pretrain/v0001"
    rows, store = write_rows(tmp_path / "rows.jsonl"), tmp_path / "store"
    done = fmtrain("run", *FINETUNE, f"model.path={model}", f"data.files={rows}", f"store={store}", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    unfit = [
        json.loads(line) for line in (store / "artifacts/examples/examples/v0001/unfit.jsonl").read_text().splitlines()
    ]
    assert [row["line"] for row in unfit] == [141, 142, 143, 144] and all(row["reason"] for row in unfit)
    assert newest(store, "model/finetune_dpo")["parents"]["model"]["ref"] == "finetune_sft@v1"  # type: ignore[index]
    published = store / "artifacts/published/finetuned/v0001"
    assert loads("AutoModelForCausalLM", published)


def test_finetune_leaves_out_what_the_rows_have_nothing_for(tiny_store: Path, tmp_path: Path) -> None:
    model = tiny_store / "artifacts/model/pretrain/v0001"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"q": f"What is {i}?", "a": str(i)}) + "\n" for i in range(50)))
    base = ["recipe=finetune", f"model.path={model}", f"data.files={rows}", f"store={tmp_path}"]
    done = fmtrain("plan", *base, "data.prompt_key=q", "data.completion_key=a")
    assert done.returncode == 0 and "reference, dpo: left out" in done.stdout
    assert not any(line.startswith("dpo ") for line in done.stdout.splitlines())
    wrong = fmtrain("plan", *base)
    assert wrong.returncode == 3 and "data.prompt_key" in wrong.stderr
    nowhere = fmtrain("plan", *base, f"model.path={tmp_path}", "data.prompt_key=q", "data.completion_key=a")
    assert nowhere.returncode == 3 and "config.json" in nowhere.stderr


@pytest.mark.models
def test_a_real_model_answers() -> None:
    done = fmtrain("generate", str(CHAT_MODEL), "What is the capital of France?", "--max-new-tokens=12")
    assert done.returncode == 0 and "Paris" in done.stdout, done.stdout + done.stderr


@pytest.mark.long
def test_finetune_on_real_rows(tiny_store: Path, shared_data: Path, tmp_path: Path) -> None:
    model = tiny_store / "artifacts/published/quickstart_tiny/v0001"
    rows = shared_data / "sft" / "dolly_hhrlhf__dolly_hhrlhf_train_small.jsonl.gz"
    limits = ["data.completion_key=response", "stages.sft.max_rows=64", "stages.evaluate.max_rows=8"]
    command = ["run", *FINETUNE, f"model.path={model}", f"data.files={rows}", f"store={tmp_path}", *limits]
    done = fmtrain(*command, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "artifacts/published/finetuned/v0001/model.safetensors").is_file()


@pytest.mark.long
def test_quickstart_on_local_prose(shared_data: Path, tmp_path: Path) -> None:
    files = f"data.files={shared_data}/pretrain/*.jsonl.gz"
    limit = "stages.evaluate.max_bytes=100000"
    done = fmtrain("run", "recipe=quickstart", "data=local", files, f"store={tmp_path}", *FAST, limit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sft, reference, dpo: left out" in done.stdout
    assert (
        newest(tmp_path, "model/pretrain")["metrics"]["loss"]
        < newest(tmp_path, "model/pretrain")["metrics"]["first_loss"]
    )  # type: ignore[operator]


@pytest.mark.long(4)
@pytest.mark.timeout(2400)
def test_masked_lm_publishes_what_transformers_loads(tmp_path: Path) -> None:
    """Masked accuracy above always guessing the commonest token."""
    done = fmtrain("run", "recipe=quickstart_mlm", *HERE, f"store={tmp_path}", timeout=2300)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "artifacts/published/quickstart_mlm/v0001"
    assert loads("AutoModelForMaskedLM", folder)
    evaluation = json.loads((tmp_path / "artifacts/evaluation/evaluation_mlm/v0001/evaluation.json").read_text())
    (masked,) = evaluation["masked"]
    assert masked["accuracy"]["value"] > masked["commonest_accuracy"]["value"]


@pytest.mark.long(15)
@pytest.mark.timeout(3600)
def test_the_full_quickstart(tmp_path: Path) -> None:
    """On its own Ray: bits per byte below gzip's, a verdict on the held-out kind; then all reused.

    How long it takes is for benchmarks/quickstart.py to say, on a quiet machine.
    """
    done = fmtrain("run", "recipe=quickstart", f"store={tmp_path}", timeout=3500)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = newest(tmp_path, "evaluation/evaluation")["metrics"]
    assert metrics["pretrain_bits_per_byte"] < metrics["gzip_bits_per_byte"]  # type: ignore[operator]
    assert any("held-out kind foreign_name" in str(sentence) for sentence in metrics["verdicts"])  # type: ignore[attr-defined]
    corpus = newest(tmp_path, "corpus/corpus")
    assert corpus["metrics"]["kept_byte_share"] > 0.75  # type: ignore[operator]  # .79 of Debian's 3.11.2
    assert all(word in done.stdout for word in ("report.html", "try next:", "fmtrain generate quickstart@v1"))
    again = fmtrain("run", "recipe=quickstart", f"store={tmp_path}")
    assert again.stdout.count("reused") == 10
