"""Whole recipes in real processes: reuse, changes, pins, kills, full disks, two runs on one store.

One `quickstart_tiny` is made for the session and copied; every test works on its own copy of the store.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.lease import process_start
from fmtrain.artifacts.storage import user_umask
from launch.backends.reaper import descendants
from tests.conftest import fmtrain
from tests.processes import Place

TRAINED = ["model", "reference", "evaluation", "published"]
TINY = ["recipe=quickstart_tiny", "launch=inline"]


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


def manifests(store: Path) -> dict[str, dict[str, Any]]:
    """ref -> manifest of every artifact."""
    found = [json.loads(p.read_text()) for p in store.glob("artifacts/*/*/v*/manifest.json")]
    return {f"{m['kind']}/{m['name']}@v{m['version']}": m for m in found}


def drop(store: Path, *kinds: str) -> None:
    """Forget artifacts, so that their stages run again."""
    for kind in kinds:
        shutil.rmtree(store / "artifacts" / kind)


def run(store: Path, *overrides: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return fmtrain("run", *TINY, f"store={store}", *overrides, **kwargs)


def test_every_stage_leaves_an_artifact_with_its_lineage(tiny_store: Path) -> None:
    found = manifests(tiny_store)
    assert {m["stage"] for m in found.values()} == {
        "corpus", "tokenizer", "tokens", "examples", "pretrain", "sft", "reference", "dpo", "evaluate", "publish",
    }  # fmt: skip
    dpo = found["model/dpo@v1"]
    assert dpo["parents"]["model"]["ref"] == "sft@v1"
    assert dpo["parents"]["reference"]["ref"] == "reference@v1"
    assert dpo["numerics"]["ranks"] == 2 and dpo["numerics"]["zero_stage"] == 2
    assert dpo["packages"]["torch"] and dpo["host"]["name"] and len(dpo["files"]) > 3
    corpus = found["corpus/corpus@v1"]["counts"]
    assert corpus["read"] == corpus["train_documents"] + corpus["heldout_documents"] + sum(corpus["dropped"].values())
    (folder,) = (tiny_store / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["state"] == "done"
    assert (folder / "report.html").is_file() and (folder / "logs" / "sft" / "rank1.log").is_file()
    assert not list((tiny_store / "work").glob("*/*"))
    runs = [p for p in (tiny_store / "runs").rglob("*") if p.stat().st_mode & 0o077]
    assert runs == [], "a run is its user's alone"
    mask = user_umask()
    for path in (tiny_store / "artifacts").rglob("*"):
        assert path.name == ".seen.json" or path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask


def test_the_same_command_reuses_everything(store: Path) -> None:
    before = manifests(store)
    done = run(store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reused") == 10
    assert manifests(store) == before


def test_a_changed_field_runs_what_depends_on_it(store: Path) -> None:
    plan = fmtrain("plan", *TINY, f"store={store}", "stages.dpo.objective.beta=0.2")
    rows = {line.split()[0]: line for line in plan.stdout.splitlines() if line}
    assert [s for s in rows if " run " in rows[s]] == ["dpo", "evaluate", "publish"]
    assert "objective.beta: 0.1 -> 0.2" in rows["dpo"]
    done = run(store, "stages.dpo.objective.beta=0.2")
    assert done.returncode == 0, done.stderr
    second = {r for r in manifests(store) if r.endswith("@v2")}
    assert second == {"model/dpo@v2", "evaluation/evaluation@v2", "published/quickstart_tiny@v2"}


def test_where_a_run_takes_place_changes_nothing(store: Path) -> None:
    same = ["launch=local", "launch.ranks=1", "stages.dpo.zero.stage=3", "stages.sft.micro_batch_size=4"]
    same.append("checkpoint.every_steps=1")
    plan = fmtrain("plan", *TINY[:1], f"store={store}", *same)
    assert plan.stdout.count(" reuse ") == 10, plan.stdout


def test_pins(store: Path) -> None:
    good = fmtrain("plan", *TINY, f"store={store}", "stages.sft.inputs.model=pretrain@v1")
    assert good.returncode == 0 and good.stdout.count(" reuse ") == 10, good.stdout + good.stderr
    wrong = fmtrain("plan", *TINY, f"store={store}", "stages.sft.inputs.model=pretrain@v1", "stages.pretrain.steps=31")
    assert wrong.returncode == 2 and "job.stage.steps: 30 -> 31" in wrong.stderr
    absent = fmtrain("plan", *TINY, f"store={store}", "stages.sft.inputs.model=pretrain@v9")
    assert absent.returncode == 2 and "it has v1" in absent.stderr


def test_a_changed_constant_is_not_silently_reused(store: Path, tmp_path: Path) -> None:
    """A copy of our packages with another number in a filter: the plan says that the code changed."""
    root = Path(__file__).resolve().parent.parent
    for name in ("fmtrain", "data_pipelines", "launch"):
        shutil.copytree(root / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "conf", tmp_path / "code" / "fmtrain" / "conf")
    source = tmp_path / "code" / "data_pipelines" / "filters" / "code.py"
    text = source.read_text()
    assert "MARKER_LINES = 5" in text
    source.write_text(text.replace("MARKER_LINES = 5", "MARKER_LINES = 6"))
    plan = subprocess.run(
        [sys.executable, "-m", "launch.cli", "plan", *TINY, f"store={store}"],
        capture_output=True, text=True, cwd=tmp_path / "code", env={**os.environ, "PYTHONPATH": str(tmp_path / "code")},
    )  # fmt: skip
    rows = {line.split()[0]: line for line in plan.stdout.splitlines() if line}
    assert "(code changed)" in rows["corpus"], plan.stdout + plan.stderr
    assert "(code changed)" not in rows["pretrain"]


AFTER_SFT = ("reference", "dpo", "evaluate", "publish")


def kill_when(place: Place, store: Path, stage: str, ready: Any, *overrides: str) -> None:
    """Start the run, kill -9 the driver as soon as `ready()`, and see that nothing of it lives 10 s on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "run", *TINY, f"store={store}", *overrides],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **place.env},
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not ready():
        assert process.poll() is None, f"the run ended before it could be killed in {stage}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(place.living()) > 1, "the check below would see nothing"
    process.send_signal(signal.SIGKILL)
    process.wait()
    place.empty()


@pytest.mark.parametrize(
    ("stage", "kinds", "sign"),
    [
        ("corpus", ["corpus"], "work/corpus/*/parts/*"),
        ("pretrain", TRAINED, "work/model/*/checkpoints/step-00000010"),
        ("sft", ["model/sft"], "work/model/*/checkpoints/step-00000005"),
    ],
)
def test_kill_and_the_same_command_gives_the_same_bits(
    stage: str, kinds: list[str], sign: str, tiny_store: Path, store: Path, place: Place
) -> None:
    """What comes after a stage is made again with the pre-training alone; elsewhere it stays as it is."""
    after = {"corpus": ["tokenizer", "tokens", "examples", "pretrain", "sft"], "sft": []}.get(stage)
    alone = [] if after is None else [f"stages.{name}=null" for name in (*after, *AFTER_SFT)]
    drop(store, *kinds)
    kill_when(place, store, stage, lambda: any(store.glob(sign)), *alone)
    assert not (store / "artifacts" / {"corpus": "corpus"}.get(stage, f"model/{stage}")).exists()
    plan = fmtrain("plan", *TINY, f"store={store}", *alone)
    assert any(line.split()[:2] == [stage, "resume"] for line in plan.stdout.splitlines() if line), plan.stdout
    done = run(store, *alone)
    assert done.returncode == 0, done.stdout + done.stderr
    whole, resumed = manifests(tiny_store), manifests(store)
    assert {r: m["fingerprint"] for r, m in whole.items()} == {r: m["fingerprint"] for r, m in resumed.items()}
    for ref in ("model/pretrain@v1", "model/sft@v1", "model/dpo@v1"):
        assert whole[ref]["files"]["model.safetensors"] == resumed[ref]["files"]["model.safetensors"], ref
    same = {n: f["sha256"] for n, f in whole["corpus/corpus@v1"]["files"].items()}
    assert same == {n: f["sha256"] for n, f in resumed["corpus/corpus@v1"]["files"].items()}


def test_ctrl_c_saves_and_leaves_nothing(store: Path, place: Place) -> None:
    drop(store, *TRAINED)
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "run", *TINY, f"store={store}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **place.env},
    )  # fmt: skip
    while not any(path.stat().st_size for path in store.glob("work/model/*/metrics.jsonl")):
        assert process.poll() is None  # a row is there once all ranks have made a step; before, nothing is to save
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "goes on from what is saved" in said
    place.empty(0)
    assert any(store.glob("work/model/*/checkpoints/step-*"))


def test_a_second_run_on_the_same_stage_is_told_who_holds_it(store: Path) -> None:
    drop(store, *TRAINED)
    first = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "run", *TINY, f"store={store}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not any(store.glob("leases/model-*/owner.json")):
        assert first.poll() is None
        time.sleep(0.05)
    second = run(store)
    assert second.returncode == 6
    assert f"pid {first.pid}" in second.stderr and "run 2" in second.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 75


def test_bad_input_has_its_exit_code(store: Path, tmp_path: Path) -> None:
    local = ["recipe=quickstart", "launch=inline", "data=local", f"store={store}"]
    done = fmtrain("run", *local, "data.files=/nowhere/*.jsonl")
    assert done.returncode == 3 and "/nowhere/*.jsonl" in done.stderr
    short = tmp_path / "short.jsonl"
    short.write_text("".join(json.dumps({"id": str(i), "text": "too short"}) + "\n" for i in range(50)))
    done = fmtrain("run", *local, f"data.files={short}")
    assert done.returncode == 3 and "gopher" in done.stderr and "Traceback" not in done.stderr
    assert not any(store.glob("artifacts/corpus/*/v0002"))
    (tmp_path / "plain").write_text("")
    done = fmtrain("run", *TINY, f"store={tmp_path / 'plain' / 'store'}")
    assert done.returncode == 5 and "cannot be written" in done.stderr


def test_a_damaged_input_is_named(store: Path) -> None:
    drop(store, "published")
    path = store / "artifacts" / "model" / "dpo" / "v0001" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    done = run(store)
    assert done.returncode == 5 and "model.safetensors is damaged" in done.stderr


def test_another_number_of_ranks_is_refused_in_plain_words(store: Path, place: Place) -> None:
    drop(store, *TRAINED)
    kill_when(place, store, "pretrain", lambda: any(store.glob("work/model/*/checkpoints/step-00000010")))
    done = run(store, "launch.ranks=1")
    assert done.returncode == 2 and "2" in done.stderr and "ranks" in done.stderr


def test_status_models_logs(tiny_store: Path) -> None:
    status = json.loads(fmtrain("status", "--json", f"--store={tiny_store}").stdout)
    assert status[-1]["state"] == "done" and {s["state"] for s in status[-1]["stages"]} == {"made"}
    models = json.loads(fmtrain("models", "--json", f"--store={tiny_store}").stdout)
    assert {m["ref"] for m in models} == {"quickstart_tiny@v1", "pretrain@v1", "sft@v1", "dpo@v1"}
    logs = fmtrain("logs", status[-1]["id"], "pretrain", f"--store={tiny_store}")
    assert logs.returncode == 0 and "rank0.log" in logs.stdout
    assert fmtrain("logs", "20990101", f"--store={tiny_store}").returncode == 2


def test_the_published_folder_loads_generates_and_scores_the_same(tiny_store: Path) -> None:
    """transformers alone, in a new process; nats a token within 1e-4 of what evaluate reported."""
    folder = tiny_store / "artifacts" / "published" / "quickstart_tiny" / "v0001"
    code = f"""
import json
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
from fmtrain.evaluate.inputs import heldout_documents
from fmtrain.evaluate.scoring import score_text
folder, store = Path({str(folder)!r}), Path({str(tiny_store)!r})
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
chat = [{{"role": "user", "content": "def f():"}}]
ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]
report = json.loads(next(store.glob("artifacts/evaluation/*/v0001/evaluation.json")).read_text())
reported = next(t for t in report["text"] if t["name"] == "dpo")
corpus, limit = next(store.glob("artifacts/corpus/*/v0001")), report["settings"]["max_bytes"]
texts = [document.text for document in heldout_documents(corpus, limit)]
nats = tokens = size = 0
assert len(texts) == reported["documents"]
for text in texts:
    n, t, b = score_text(model, tokenizer, text, report["settings"]["sequence_length"])
    nats, tokens, size = nats + n, tokens + t, size + b
assert (tokens, size) == (reported["tokens"], reported["bytes"])
assert abs(nats / tokens - reported["nats_per_token"]) < 1e-4, (nats / tokens, reported)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flipped_weights_answer_nothing(tiny_store: Path, tmp_path: Path) -> None:
    """They load, and would say something: neither `generate` nor another run takes them."""
    folder = tmp_path / "store" / "artifacts" / "published" / "quickstart_tiny" / "v0001"
    shutil.copytree(tiny_store / "artifacts", tmp_path / "store" / "artifacts")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-100] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    for words in (["generate", "quickstart_tiny", "x", f"--store={tmp_path / 'store'}"],
                  ["plan", "recipe=quickstart_tiny", f"store={tmp_path / 'store'}"]):  # fmt: skip
        done = fmtrain(*words)
        assert done.returncode == 5 and "model.safetensors is damaged" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGKILL, -9, "died"), (signal.SIGINT, 130, "interrupted")]
)
def test_nothing_of_a_ray_run_survives(number: int, code: int, state: str, store: Path) -> None:
    """Ray's own processes, the actors and the ranks are gone within ten seconds; the work goes on inline."""
    drop(store, *TRAINED)
    argv = [sys.executable, "-m", "launch.cli", "run", "recipe=quickstart_tiny", "launch=local", f"store={store}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(store.glob("work/model/*/checkpoints/step-*")):
        assert process.poll() is None
        time.sleep(0.05)
    family = descendants(process.pid)
    assert len(family) > 8  # gcs_server, raylet, dashboard, actors, two ranks
    process.send_signal(number)
    assert process.wait(120) == code
    deadline = time.monotonic() + 10
    while (left := [p for p, started in family.items() if process_start(p) == started]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == [], [Path(f"/proc/{p}/cmdline").read_text() for p in left]
    assert json.loads(fmtrain("status", "--json", f"--store={store}").stdout)[-1]["state"] == state
    plan = fmtrain("plan", *TINY, f"store={store}")
    assert any(line.split()[:2] == ["pretrain", "resume"] for line in plan.stdout.splitlines() if line)
