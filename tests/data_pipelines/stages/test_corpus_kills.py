"""kill -9 of a Ray worker, of a raylet and of the driver, in the middle of the stages of the corpus wing.

CI takes each kind of process and each stage once; `make test-faults` the rest of the table.
Through the command line, on the Ray that it starts. Whatever was killed, the same command then ends with exactly the
documents and bytes of a run that nobody disturbed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.lease import process_start
from launch.backends.reaper import descendants
from tests.conftest import fmtrain

DOCUMENTS = 12_000  # 7 MB: enough for each stage to be caught in its middle
LATER = ["examples", "pretrain", "sft", "reference", "dpo", "evaluate", "publish"]
STAGES = ["corpus", "tokenizer", "tokens"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of made-up words, one in ten a copy or nearly one, in four files."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    folder, texts = tmp_path_factory.mktemp("documents"), list[list[str]]()
    for _ in range(DOCUMENTS):
        if texts and rng.random() < 0.1:
            text = list(rng.choice(texts))
            text[rng.randrange(len(text))] = rng.choice(words)
        else:
            text = rng.choices(words, k=rng.randint(40, 140))
        texts.append(text)
    for part in range(4):
        rows = [{"id": f"d{n}", "text": " ".join(texts[n]), "source": f"s{n % 3}"} for n in range(part, DOCUMENTS, 4)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(documents: Path, store: Path) -> list[str]:
    off = [f"stages.{name}=null" for name in LATER]
    settings = [f"data.files={documents}/*.jsonl", "tokenizer.vocab_size=2000", "stages.corpus.tasks=6", *off]
    return ["run", "recipe=quickstart", "data=local", "launch=local", f"store={store}", *settings]


def made(store: Path) -> dict[str, Any]:
    """What each stage's only artifact holds: its files' digests and its counts."""
    found = {}
    for path in store.glob("artifacts/*/*/v*/manifest.json"):
        manifest = json.loads(path.read_text())
        assert manifest["stage"] not in found, f"{path}: a stage was made twice"
        files = {name: file["sha256"] for name, file in manifest["files"].items()}
        found[manifest["stage"]] = {"files": files, "counts": manifest["counts"]}
    return found


@pytest.fixture(scope="module")
def undisturbed(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The store of a run that nobody disturbed, and what it made."""
    store = tmp_path_factory.mktemp("whole") / "store"
    done = fmtrain(*command(documents, store), timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found = made(store)
    assert sorted(found) == sorted(STAGES)
    return store, found


def before(stage: str, whole: Path, store: Path) -> None:
    """In `store` what an undisturbed run has made before `stage`."""
    for earlier in STAGES[: STAGES.index(stage)]:
        shutil.copytree(whole / "artifacts" / earlier, store / "artifacts" / earlier)


def title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def victim(driver: int, what: str, stage: str) -> int | None:
    """The process to kill: of the workers one that runs a task of the stage, else the one that holds the stage's."""
    if what == "driver":
        return driver
    titles = {pid: title(pid) for pid in descendants(driver)}
    wanted = (
        ["raylet/raylet"]
        if what == "raylet"
        else [f"ray::{stage}:"]
        if stage == "corpus"
        else ["ray::Rank", f"ray::{stage}"]
    )
    return next((pid for pid, name in titles.items() if any(w in name for w in wanted)), None)


def ready(store: Path, stage: str, step: str) -> Callable[[], bool]:
    """Whether the stage is in its middle: a step of the corpus has begun, or documents are counted."""

    def begun() -> bool:
        if step:
            folders = [p for p in store.glob("work/corpus/*/parts/*/*/.done") if p.parent.name.startswith(step)]
            return any(any(folder.glob("*.tick")) for folder in folders)
        for path in store.glob(f"runs/*/stages/{stage}/progress.json"):
            with contextlib.suppress(OSError, ValueError):
                return bool(json.loads(path.read_text())["done"] > 0)
        return False

    return begun


def wait_until(condition: Callable[[], Any], process: "subprocess.Popen[str]", what: str) -> Any:
    """What the condition finds; None where the run is over before."""
    deadline = time.monotonic() + 240
    while not (found := condition()):
        if process.poll() is not None:
            return None
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stage", "step", "what"),
    [
        ("corpus", "dedup-minhash", "worker"),
        ("corpus", "dedup-minhash", "raylet"),
        ("tokenizer", "", "driver"),
        ("tokens", "", "worker"),
        *(
            pytest.param(stage, step, what, marks=pytest.mark.faults)
            for stage, step, what in [
                ("corpus", "read", "worker"),
                ("corpus", "dedup-minhash", "driver"),
                ("corpus", "shards", "driver"),
                ("tokenizer", "", "worker"),
                ("tokenizer", "", "raylet"),
                ("tokens", "", "raylet"),
                ("tokens", "", "driver"),
            ]
        ),
    ],
)
def test_a_kill_in_the_middle_changes_nothing(
    stage: str, step: str, what: str, documents: Path, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    whole, expected = undisturbed
    for attempt in range(5):  # a stage of a second may be over before the kill reaches it: then once more
        store = tmp_path / f"store{attempt}"
        before(stage, whole, store)
        if killed_in_the_middle(store, documents, stage, step, what):
            break
    else:
        pytest.fail(f"five times {stage} was over before its {what} was killed")
    done = fmtrain(*command(documents, store), timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made(store) == expected


def killed_in_the_middle(store: Path, documents: Path, stage: str, step: str, what: str) -> bool:
    """Start the run, kill once the stage is in its middle, and wait for all to be gone; False where it was too late."""
    argv = [sys.executable, "-m", "launch.cli", *command(documents, store)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(ready(store, stage, step), process, f"{stage} {step} began")
    pid = wait_until(lambda: victim(process.pid, what, stage), process, f"a {what} of {stage} was found")
    if pid is None:
        process.communicate()
        return False
    family = descendants(process.pid)
    early = stage not in made(store)  # after its raylet's death a worker may still finish, and its stage be committed
    os.kill(pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    if what == "worker" and stage == "corpus":
        assert process.returncode == 0, said  # a task is tried again within the run
    if what == "driver":
        assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 15
    while left := [p for p, started in family.items() if started is not None and process_start(p) == started]:
        assert time.monotonic() < deadline, [title(p) for p in left]
        time.sleep(0.1)
    return early
