"""Stages that do not feed each other run side by side, and one that fails lets the others save."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from fmtrain.artifacts.machine import cpus
from fmtrain.artifacts.storage import read_left, read_rows
from fmtrain.errors import StageFailed
from launch.backends.inline import taken
from launch.beside import side_by_side
from launch.plan import Step
from tests.conftest import fmtrain

TWO = """
recipe: two
data: {name: local, files: [text.jsonl]}
filter: none
tokenizer: {name: bpe, vocab_size: 320}
model: {name: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2,
        num_key_value_heads: 2, max_position_embeddings: 64}
checkpoint: {every_steps: 0}
launch: {name: inline, ranks: 1, parallel: 2}
stages:
  corpus: {kind: corpus}
  tokenizer: {kind: tokenizer}
  tokens: {kind: tokens}
  left: &train
    kind: train
    objective: clm
    packing: concat
    steps: 60
    sequence_length: 64
    global_batch_size: 4
    micro_batch_size: 4
    schedule: {name: constant}
  right: {<<: *train, seed: 2, model: '${model}'}
"""


@dataclass
class Fake:
    """A step, as far as the order of steps goes."""

    stage: str
    parents: dict[str, Any] = field(default_factory=dict)

    fingerprint: str = ""
    makes: str = "model"

    def __post_init__(self) -> None:
        self.fingerprint = self.fingerprint or self.stage

    @property
    def node(self) -> "Fake":
        return self

    @property
    def kind(self) -> "Fake":
        return self


def made(names: str, log: list[str], fails: str = "") -> Callable[[Step], Generator[None, None, None]]:
    """Work of three turns a step."""

    def start(step: Step) -> Generator[None, None, None]:
        name = step.node.stage
        log.append(f"+{name}")
        try:
            for _ in range(2):
                yield
            if name == fails:
                raise StageFailed(name)
        except GeneratorExit:
            log.append(f"saved {name}")
            raise
        log.append(f"-{name}")

    return start


def diamond(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    monkeypatch.setattr("launch.beside.Step", Fake)
    top = Fake("a")
    left, right = Fake("b", {"x": top}), Fake("c", {"x": top})
    return cast(list[Step], [top, left, right, Fake("d", {"x": left, "y": right}), Fake("e")])


@pytest.mark.parametrize(
    ("most", "order"),
    [
        (1, "+a -a +b -b +c -c +d -d +e -e"),
        (2, "+a +e -a -e +b +c -b -c +d -d"),
        (9, "+a +e -a -e +b +c -b -c +d -d"),
    ],
)
def test_what_feeds_a_stage_comes_first(most: int, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    side_by_side(diamond(monkeypatch), made("", log), lambda step, others: True, most, lambda: None)
    assert log == order.split()


def test_a_stage_waits_for_room_and_is_alone_where_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    side_by_side(diamond(monkeypatch), made("", log), lambda step, others: step.node.stage != "c", 9, lambda: None)
    assert log == ["+a", "+e", "-a", "-e", "+b", "-b", "+c", "-c", "+d", "-d"]


def test_what_is_the_same_is_made_once() -> None:
    log: list[str] = []
    twice = cast(list[Step], [Fake("a", fingerprint="x"), Fake("b", fingerprint="x"), Fake("c")])
    side_by_side(twice, made("", log), lambda step, others: True, 9, lambda: None)
    assert log == ["+a", "+c", "-a", "-c", "+b", "-b"]


def test_one_that_fails_lets_the_others_save(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    with pytest.raises(StageFailed, match="b"):
        side_by_side(diamond(monkeypatch), made("", log, "b"), lambda step, others: True, 9, lambda: log.append("halt"))
    assert log == [*["+a", "+e", "-a", "-e", "+b", "+c"], "halt", "saved c"]


def test_gpus_are_lent_and_come_back() -> None:
    shown = list(enumerate(["10", "9", "GPU-b", "GPU-a"]))  # in the order of CUDA_VISIBLE_DEVICES, which stays
    free = shown.copy()
    with taken(free, 2) as first, taken(free, 2) as second, taken(free, 1) as none:
        assert (first, second, none, free) == (shown[:2], shown[2:], [], [])
    assert free == shown


def recipe(folder: Path) -> list[str]:
    words = list("abcdefghijklmnop")
    texts = [" ".join(words[(i + j * j) % len(words)] for j in range(60)) for i in range(40)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "two.yaml").write_text(TWO.replace("text.jsonl", str(folder / "text.jsonl")))
    return [f"recipe={folder / 'two.yaml'}", f"store={folder / 'store'}"]


def events(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("store/runs/*/events.jsonl")) for row in read_rows(path)]


@pytest.mark.skipif(cpus() < 2, reason="one processor has room for one stage")
def test_branches_overlap_and_a_killed_one_lets_the_other_save(tmp_path: Path) -> None:
    words = recipe(tmp_path)
    long = [*words, "stages.left.steps=100000", "stages.right.steps=100000"]
    command = [sys.executable, "-m", "launch.cli", "run", *long]
    with open(tmp_path / "out", "w") as out:
        run = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 120
    progress = {}
    while not all(progress.get(name, {}).get("done", 0) >= 5 for name in ("left", "right")):
        assert time.monotonic() < deadline and run.poll() is None, (tmp_path / "out").read_text()
        for name in ("left", "right"):
            for path in tmp_path.glob(f"store/runs/*/stages/{name}/progress.json"):
                progress[name] = read_left(path, dict)
        time.sleep(0.1)
    status = fmtrain("status", "--store", str(tmp_path / "store")).stdout
    assert status.count("running: ") == 2 and "left, right" in status, status
    (victim,) = [p for p in psutil.Process(run.pid).children(True) if p.cmdline()[-1].endswith("stages/right")]
    os.kill(victim.pid, signal.SIGKILL)
    assert run.wait(60) == 4
    said = (tmp_path / "out").read_text()
    assert "right failed: rank 0" in said and "SIGKILL" in said, said
    assert "left       stopped: step " in said and "lost" not in said, said
    assert len(list(tmp_path.glob("store/work/model/*/checkpoints/step-*"))) == 1

    done = fmtrain("run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    last = events(tmp_path)[-5:]
    assert [event["event"] for event in last] == ["started", "started", "committed", "committed", "done"], last
    alone = fmtrain("run", *words[:1], f"store={tmp_path / 'alone'}", "launch.parallel=1")
    assert alone.returncode == 0
    for name in ("left", "right"):
        hashes = [
            json.loads((tmp_path / store / f"artifacts/model/{name}/v0001/manifest.json").read_text())["files"]
            for store in ("store", "alone")
        ]
        assert hashes[0]["model.safetensors"] == hashes[1]["model.safetensors"]
