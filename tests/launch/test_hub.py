"""A model by its name on a hub: planned without its weights, fetched once, and told apart what cannot be had."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fmtrain.models import save_model
from launch.compose import compose
from launch.hub import pins
from tests.conftest import fmtrain
from tests.data_pipelines.sources.hub_server import Hub
from tests.fmtrain.fixtures import make_tokenizer, tiny_llama
from tests.processes import Place

NAME, TOKEN = "some/model", "hf_" + "a" * 34
CARD = b"---\nlicense: apache-2.0\n---\n# A model\n"
NEEDED = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
# What stands beside in such repositories, and nobody needs.
OTHERS = {"onnx/model.onnx": b"o", "original/consolidated.00.pth": b"p", "pytorch_model.bin": b"b", "tf_model.h5": b"h"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small model."""
    return files_of(tmp_path_factory.mktemp("model"), seed=1)


def files_of(folder: Path, seed: int) -> dict[str, bytes]:
    tokenizer = make_tokenizer()
    save_model(tiny_llama(tokenizer, seed), tokenizer, folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, model: dict[str, bytes]) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as made:
        made.add(NAME, {**model, **OTHERS, "README.md": CARD})
        yield made


def words(tmp_path: Path, *more: str) -> list[str]:
    """A finetuning of two steps and nothing else."""
    rows = tmp_path / "rows.jsonl"
    if not rows.is_file():
        rows.write_text("".join(json.dumps({"prompt": f"Say {i}", "completion": str(i)}) + "\n" for i in range(40)))
    small = "steps=2 epochs=null schedule.warmup_steps=0 global_batch_size=2 micro_batch_size=2 sequence_length=64"
    sft = [f"stages.sft.{setting}" for setting in small.split()]
    rest = ["stages.evaluate=null", "stages.publish=null", "launch=inline", "launch.ranks=1"]
    return [
        "recipe=finetune", f"data.files={rows}", f"store={tmp_path}/store", f"model.path={NAME}", *sft, *rest, *more
    ]  # fmt: skip


def said(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def cached(hub: Hub) -> set[str]:
    return {p.name for p in (hub.folder / "home").glob("models--*/snapshots/*/**/*") if p.is_file()}


def manifest(tmp_path: Path, version: int = 1) -> dict[str, dict[str, dict[str, object]]]:
    path = tmp_path / f"store/artifacts/model/finetune_sft/v{version:04}/manifest.json"
    found: dict[str, dict[str, dict[str, object]]] = json.loads(path.read_text())
    return found


def test_from_its_name_to_a_model(hub: Hub, tmp_path: Path, model: dict[str, bytes]) -> None:
    """Planned by small files, fetched by the run, and nothing that is not needed; then reused, online and off."""
    parameters = sum(t.numel() for t in load_file(stored(tmp_path, model)).values())
    plan = said(fmtrain("plan", *words(tmp_path), **hub.environment))
    assert f"{parameters / 1000:.0f} k parameters, 2 steps" in plan, plan
    assert cached(hub) == NEEDED | {"README.md"}
    assert f"{NAME}@{hub.heads[NAME][:12]}: 0 MB are fetched first" in plan
    run = said(fmtrain("run", *words(tmp_path), **{**hub.environment, "HF_TOKEN": TOKEN}))
    commit = hub.heads[NAME]
    assert f"fetch      {NAME}@{commit[:12]} (" in run
    assert cached(hub) == NEEDED | {"README.md", "model.safetensors"}
    asked = [line for line in hub.requests if "/resolve/" in line]
    assert not [line for line in asked if any(name in line for name in OTHERS)]
    base = manifest(tmp_path)["bases"]["model"]
    assert (base["repo"], base["revision"], base["commit"], base["licence"]) == (NAME, "main", commit, "apache-2.0")
    assert base["files"].keys() == {*NEEDED, "model.safetensors"}  # type: ignore[attr-defined]
    assert all(file["sha256"] for file in base["files"].values())  # type: ignore[attr-defined]
    assert manifest(tmp_path)["parents"]["model"]["ref"] == f"{NAME}@{commit}"
    everything = [p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert not any(TOKEN.encode() in content for content in everything)
    assert "reuse finetune_sft@v1" in said(fmtrain("run", *words(tmp_path), **hub.environment))
    hub.requests.clear()
    exact = words(tmp_path, f"model.path={NAME}@{commit}")
    assert "reuse finetune_sft@v1" in said(fmtrain("run", *exact, **hub.environment))
    assert hub.requests == []  # a commit that is cached needs no one's answer
    offline = said(fmtrain("run", *words(tmp_path, "seed=2"), **{**hub.environment, "HF_HUB_OFFLINE": "1"}))
    assert (
        f"{NAME} is {NAME}@{commit[:12]}, as it is cached: the hub does not answer (HF_HUB_OFFLINE is set)" in offline
    )
    assert "finetune_sft@v2" in offline and hub.requests == []
    assert manifest(tmp_path, 2)["parents"]["model"] == manifest(tmp_path)["parents"]["model"]


def stored(tmp_path: Path, model: dict[str, bytes]) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(model["model.safetensors"])
    return path


@pytest.mark.long
def test_a_branch_that_moves(hub: Hub, tmp_path: Path, model: dict[str, bytes]) -> None:
    """What is made again is told by the commits; a commit that changes no file of the model makes nothing again."""
    said(fmtrain("run", *words(tmp_path), **hub.environment))
    first = hub.heads[NAME]
    hub.add(NAME, {**model, "README.md": CARD + b"more words\n"})
    assert "sft       reuse" in said(fmtrain("plan", *words(tmp_path), **hub.environment))
    second = hub.add(NAME, {**files_of(tmp_path / "other", seed=2), "README.md": CARD})
    plan = said(fmtrain("plan", *words(tmp_path), **hub.environment))
    assert f"new model ({NAME}: commit {first[:12]} -> {second[:12]})" in plan
    old = words(tmp_path, f"model.path={NAME}@{first}")
    assert "sft       reuse" in said(fmtrain("plan", *old, **hub.environment))


@pytest.mark.long
def test_a_folder_of_the_same_files_is_the_same_base(hub: Hub, tmp_path: Path, model: dict[str, bytes]) -> None:
    """And one that is called as a model on the hub comes before it."""
    said(fmtrain("run", *words(tmp_path), **hub.environment))
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    for name, content in model.items():
        (folder / name).write_bytes(content)
    command = [sys.executable, "-P", "-m", "launch.cli", "plan", *words(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **hub.environment}, capture_output=True, text=True)
    assert "sft       reuse" in done.stdout, done.stdout + done.stderr
    assert f"{NAME} is the folder of that name here; the hub's is {NAME}@main" in done.stdout


def test_what_cannot_be_had_is_told_apart(hub: Hub, tmp_path: Path, model: dict[str, bytes]) -> None:
    """When planning, each in one line."""
    url = hub.environment["HF_ENDPOINT"]
    for name in ("some/gated", "some/private"):
        hub.add(name, model)
    hub.gated.add("some/gated")
    hub.private.add("some/private")
    hub.add("some/pickled", {**without(model, "model.safetensors"), "pytorch_model.bin": b"b"})
    hub.add("some/adapter", {**model, "adapter_config.json": b"{}"})
    hub.add("some/data", {"README.md": CARD})
    shards = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    index = {"model.safetensors.index.json": json.dumps(shards).encode(), "other.safetensors": b"x"}
    hub.add("some/index", {**without(model, "model.safetensors"), **index})
    code = {"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine"}}
    hub.add("some/code", {**model, "config.json": json.dumps(code).encode(), "modeling_mine.py": b"raise SystemExit\n"})
    wrong = {
        "some/gated": f"some/gated is gated: accept its terms with your account at {url}/some/gated; and give its tok",
        "some/private": "the hub has no model some/private, or a private one, which needs HF_TOKEN",
        "some/nothing": "the hub has no model some/nothing, or a private one, which needs HF_TOKEN",
        f"{NAME}@v7": f"{NAME} has no branch, tag or commit 'v7'",
        "some/pickled": "some/pickled has no .safetensors file: its weights are pickled (pytorch_model.bin). Where you",
        "some/adapter": "some/adapter is an adapter",
        "some/index": "index.json names model-00001-of-00001.safetensors, which the repository does not have",
        "some/data": "some/data has no .safetensors file: no weights",
        "some/code": "its config.json names code of its own (auto_map)",
    }
    for given, message in wrong.items():
        done = fmtrain("plan", *words(tmp_path, f"model.path={given}"), **hub.environment)
        assert f"error: model.path={given}" in done.stderr and message in done.stderr, done.stdout + done.stderr
        assert done.returncode in (2, 3) and len(done.stderr.splitlines()) == 1
    assert "modeling_mine.py" not in cached(hub)
    known = {**hub.environment, "HF_TOKEN": TOKEN}
    hub.counts |= dict.fromkeys(("some/gated", "some/private"), 7_000_000)  # as a hub counts parameters itself
    for given in ("some/gated", "some/private"):
        assert "7.0 M parameters" in said(fmtrain("plan", *words(tmp_path, f"model.path={given}"), **known))


def without(model: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: value for key, value in model.items() if key != name}


@pytest.mark.long
def test_a_hub_that_is_away(tmp_path: Path, model: dict[str, bytes]) -> None:
    """Nothing is cached, then the small files alone, then all of it; the command that fetches is named."""
    with Hub(tmp_path / "hub") as hub:
        hub.add(NAME, model)
        here = hub.environment
        fetches = f"(HF_HOME names another). Where there is a network: hf download {NAME}"
        nowhere = {**here, "HF_ENDPOINT": "http://127.0.0.1:9"}
        for env, why in (({**here, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), (nowhere, "ConnectError")):
            error = said(fmtrain("plan", *words(tmp_path), **env), 3)
            assert f"error: model.path={NAME}: the hub does not answer ({why}" in error and fetches in error, error
        said(fmtrain("plan", *words(tmp_path), **here))
        exact = words(tmp_path, f"model.path={NAME}@{hub.heads[NAME]}")
        assert "it lacks model.safetensors" in said(fmtrain("plan", *exact, **nowhere), 3)
        said(fmtrain("run", *words(tmp_path), **here))
    away = said(fmtrain("run", *words(tmp_path, "seed=2"), **here))
    assert "as it is cached: the hub does not answer (ConnectError" in away and "finetune_sft@v2" in away


def test_a_cache_that_cannot_be_used(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = {**hub.environment, "HF_HUB_CACHE": str(tmp_path / "file" / "hub")}
    error = said(fmtrain("plan", *words(tmp_path), **nowhere), 5)
    assert f"error: {tmp_path}/file/hub, the cache of the hub, cannot be used: " in error and "HF_HOME=DIR" in error


@pytest.mark.long
def test_ctrl_c_ends_the_fetch_and_what_it_started(hub: Hub, tmp_path: Path, place: Place) -> None:
    said(fmtrain("plan", *words(tmp_path), **hub.environment))
    hub.slow = 5.0
    command = [sys.executable, "-P", "-m", "launch.cli", "run", *words(tmp_path)]
    run = subprocess.Popen(command, env={**os.environ, **hub.environment, **place.env}, stdout=subprocess.DEVNULL)
    while not list((hub.folder / "home").glob("models--*/blobs/*.incomplete")):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    place.empty()


@pytest.mark.long
def test_a_flipped_bit_in_the_cache_is_told(hub: Hub, tmp_path: Path) -> None:
    """In the weights when they are about to be read, in a small file by the plan."""
    said(fmtrain("run", *words(tmp_path), **hub.environment))
    for name, verb in (("model.safetensors", "run"), ("tokenizer.json", "plan")):
        (path,) = (hub.folder / "home").glob(f"models--*/snapshots/*/{name}")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.resolve().write_bytes(content)
        error = said(fmtrain(verb, *words(tmp_path, "seed=2"), **hub.environment), 3)
        assert f"{name} in the cache is not what the hub has as {NAME}@" in error and f"rm {path.resolve()}" in error
        path.resolve().unlink()
        path.unlink()
    assert "finetune_sft@v2" in said(fmtrain("run", *words(tmp_path, "seed=2"), **hub.environment))


@pytest.mark.long
def test_a_run_that_is_killed_as_it_fetches(tmp_path: Path) -> None:
    """Whole files stay, nothing unfinished does, and nobody goes on fetching for the dead."""
    tokenizer, folder = make_tokenizer(), tmp_path / "model"
    large = tiny_llama(tokenizer, hidden_size=256, intermediate_size=512)
    save_model(large, tokenizer, folder)
    large.save_pretrained(folder, max_shard_size="1MB")
    (folder / "model.safetensors").unlink()
    shards = sorted(p.name for p in folder.glob("*.safetensors"))
    assert len(shards) > 3
    with Hub(tmp_path / "hub") as hub:
        hub.add(NAME, {p.name: p.read_bytes() for p in folder.iterdir()})
        said(fmtrain("plan", *words(tmp_path), **hub.environment))
        hub.slow = 0.1
        command = [sys.executable, "-P", "-m", "launch.cli", "run", *words(tmp_path)]
        run = subprocess.Popen(command, env={**os.environ, **hub.environment}, stdout=subprocess.DEVNULL)
        blobs = next((hub.folder / "home").glob("models--*/blobs"))
        while not (have := cached(hub) & {*shards}) or not list(blobs.glob("*.incomplete")):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
        left = list(blobs.glob("*.incomplete"))
        assert left and len(have) < len(shards)
        hub.slow = 0.0
        have = cached(hub) & {*shards}
        hub.requests.clear()
        assert "finetune_sft@v1" in said(fmtrain("run", *words(tmp_path), **hub.environment))
        got = {line.rpartition("/")[2] for line in hub.requests if line.startswith("GET") and "/resolve/" in line}
        assert got == {*shards} - have and not list(blobs.glob("*.incomplete"))


@pytest.mark.long
def test_pickled_weights_where_somebody_says_so(tmp_path: Path, model: dict[str, bytes]) -> None:
    """They are loaded as tensors alone: a file that would run code runs none."""
    weights = load_file(stored(tmp_path, model))
    torch.save(weights, tmp_path / "pytorch_model.bin")
    content = (tmp_path / "pytorch_model.bin").read_bytes()
    torch.save({"a": Runs()}, tmp_path / "hostile.bin")
    with Hub(tmp_path / "hub") as hub:
        hub.add(NAME, {**without(model, "model.safetensors"), "pytorch_model.bin": content})
        pickled = words(tmp_path, "model.pickle=true")
        assert "finetune_sft@v1" in said(fmtrain("run", *pickled, **hub.environment))
        assert manifest(tmp_path)["bases"]["model"]["pickle"] is True
        hostile = (tmp_path / "hostile.bin").read_bytes()
        hub.add(NAME, {**without(model, "model.safetensors"), "pytorch_model.bin": hostile})
        assert "hold more than tensors" in said(fmtrain("run", *pickled, **hub.environment), 3)
    assert not Path("ran-by-pickle").exists()


class Runs:
    """What makes a file in whoever unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran-by-pickle",)


def test_a_queue_job_is_told_the_commit() -> None:
    ref = f"{NAME}@{'a' * 40}"
    root = compose(
        ["recipe=finetune", f"model.path={NAME}", "data.files=x", f"stages.evaluate.inputs.model=[sft,{NAME}]"]
    )
    said = [f"model.path='{ref}'", f"stages.evaluate.inputs.model=['sft','{ref}']"]
    assert pins(root, {NAME: ref}) == said
    assert compose(["recipe=finetune", *said, "data.files=x"]).model.folder == ref


def test_shared_blobs_of_the_cache_count_as_its_files(tmp_path: Path) -> None:
    from fmtrain.artifacts.inside import inside
    from fmtrain.errors import InputError

    snapshot, blobs = tmp_path / "models--a--b/snapshots/c", tmp_path / "models--a--b/blobs"
    shared = tmp_path / "blobs" / "ab" / "abc"
    for folder in (snapshot, blobs, shared.parent):
        folder.mkdir(parents=True)
    shared.write_text("weights")
    (blobs / "x").symlink_to("../../blobs/ab/abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/x")
    with pytest.raises(InputError, match="leads out of its folder"):
        inside(snapshot, "model.safetensors")
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    assert inside(snapshot, "model.safetensors") == shared
    shutil.rmtree(tmp_path / "blobs")
