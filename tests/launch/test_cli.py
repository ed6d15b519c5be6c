"""The command line in processes of its own: stores, submissions, status, logs, pipes, messages, what to try next."""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts.manifest import Artifact, Manifest
from fmtrain.errors import ConfigError
from launch import doctor, status
from launch.backends import slurm
from launch.cli import main
from launch.compose import compose
from launch.graph import build
from launch.plan import plan
from launch.record import Run
from launch.status import store_at
from launch.summary import _next, _program

REPO = Path(__file__).resolve().parents[2]


def run_json(store: Path, run: str, **changes: Any) -> Path:
    folder = store / "runs" / run
    folder.mkdir(parents=True)
    state = {
        "run": run, "host": "elsewhere", "pid": 1, "started": "1", "recipe": "quickstart", "overrides": [],
        "launch": "local", "state": "done", "stage": None, "begun": "2026-01-01T00:00:00", "notes": [], **changes,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(state))
    return folder


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_store_is_one_absolute_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store_at("").root == tmp_path / "store"
    assert store_at("~/x").root == tmp_path / "home" / "x"
    assert store_at("../y").root == tmp_path.parent / "y"
    with pytest.raises(ConfigError, match="whole path"):
        store_at("~nobody-of-that-name/x")


@pytest.mark.parametrize("overrides", [[], ["store="]])
def test_an_empty_store_scatters_nothing(overrides: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMTRAIN_STORE", "")
    program(tmp_path / "bin", "sbatch", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert main(["run", "launch=slurm", *overrides]) == 2  # refused after the store is prepared
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "store"]


def test_a_submitted_run_is_listed_as_queued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "bin", "sbatch", "echo 17")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    store = tmp_path / "store"
    assert main(["run", "launch=slurm", f"store={store}"]) == 0
    assert "job 17" in capsys.readouterr().out
    assert main(["status", "--store", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "queued" in shown and "slurm job 17" in shown
    (found,) = status.runs(store_at(str(store)))
    assert (found["state"], found["job"], found["pid"]) == ("queued", "17", None)
    (store / "runs" / found["id"] / "exit_code").write_text("1")
    assert status.runs(store_at(str(store)))[0]["state"] == "failed"


def test_a_refused_job_leaves_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "bin", "sbatch", "echo no such partition >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert main(["run", "launch=slurm", f"store={tmp_path / 'store'}"]) == 2
    said = capsys.readouterr().err
    assert "no such partition" in said and "launch.dry_run=true" in said and "job.sbatch" not in said
    assert not list((tmp_path / "store" / "runs").iterdir())


@pytest.mark.parametrize(
    "sbatch", ["exec sleep 60", "echo 'sbatch: error: .. failed: Socket timed out on send/recv operation' >&2; exit 1"]
)
def test_a_job_that_may_be_in_the_queue_keeps_its_run(
    sbatch: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The controller was slow, and may have taken it: its run's folder, the script's, is what it would run in."""
    if "sleep" in sbatch:
        monkeypatch.setattr(slurm, "_PATIENCE", 0.2)
    program(tmp_path / "bin", "sbatch", sbatch)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert main(["run", "launch=slurm", f"store={tmp_path / 'store'}"]) == 4
    (run,) = (tmp_path / "store" / "runs").iterdir()
    assert f"--name=quickstart-{run.name}" in capsys.readouterr().err
    assert (run / "job.sbatch").is_file() and json.loads((run / "run.json").read_text())["state"] == "queued"


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    run_json(tmp_path, "a")
    (run_json(tmp_path, "b") / "run.json").write_text("{")
    (run_json(tmp_path, "c") / "run.json").write_text("{}")
    found = status.runs(store_at(str(tmp_path)))
    assert [r["state"] for r in found] == ["done", "unreadable", "unreadable"]
    assert "unreadable" in status.overview(found, store_at(str(tmp_path)), detailed=False)


@pytest.mark.parametrize("prefix", ["/foo", "**", "..", "[", "a/"])
def test_a_prefix_is_no_pattern(prefix: str, tmp_path: Path) -> None:
    run_json(tmp_path, "a")
    assert main(["status", prefix, "--store", str(tmp_path)]) == 2


def test_logs_follow_from_stage_to_stage_to_the_last_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_json(tmp_path, "a", state="running")
    log = folder / "logs" / "corpus" / "rank0.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\n")
    thread = threading.Thread(target=status.logs, args=(store_at(str(tmp_path)), None, None, 0, True))
    thread.start()
    time.sleep(0.7)
    log.write_text("one\ntwo\n")
    later = folder / "logs" / "tokens" / "rank0.log"
    later.parent.mkdir()
    later.write_text("three\n")
    time.sleep(1.2)
    later.write_text("three\nfour\n")
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.new").write_text(json.dumps({**state, "state": "done"}))
    (folder / "run.new").rename(folder / "run.json")
    thread.join(10)
    assert not thread.is_alive()
    words = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert words == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("args", "code"), [(["plan"], 0), (["--help"], 0), (["run", "launch=slurm", "launch.dry_run=true"], 1)]
)
def test_a_closed_pipe(args: list[str], code: int, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", *args],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPO,
        env={**os.environ, "FMTRAIN_STORE": str(tmp_path)},
    )
    os.close(write)
    assert done.returncode == code, done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("args", [["--help"], ["models"]])
def test_an_answer_that_cannot_be_written(args: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "launch.cli", *args]
        env = {**os.environ, "FMTRAIN_STORE": str(tmp_path)}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPO, env=env)
    assert done.returncode == 5 and "cannot be written: No space left" in done.stderr, done.stderr


def test_what_nobody_foresaw_has_a_traceback_and_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(sys, "executable", str(tmp_path))  # a folder cannot be started
    assert main(["generate", str(tmp_path), "x"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and said.splitlines()[-1].startswith("error: internal: PermissionError")


def test_generate_hands_over_any_prompt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    program(tmp_path, "python", f'printf "%s\\n" "$@" > {tmp_path}/said')
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main(["generate", str(tmp_path), "--seed=3", "--", "--flag"]) == 0
    words = (tmp_path / "said").read_text().splitlines()
    assert words[-3:] == ["--", str(tmp_path), "--flag"] and "--seed=3" in words[:-3]


@pytest.mark.parametrize(
    "option", ["--max-new-tokens=0", "--max-new-tokens=-3", "--temperature=-1", "--temperature=nan"]
)
def test_generate_refuses_numbers_out_of_range(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["generate", str(tmp_path), "x", option]) == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_doctor_tells_of_what_is_broken_and_creates_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "bin", "sbatch", "echo cannot reach the controller >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    have = doctor.metadata.version

    def version(package: str) -> str:
        if package == "xxhash":
            raise doctor.metadata.PackageNotFoundError(package)
        return have(package)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert main(["doctor", "--store", str(tmp_path / "a" / "b")]) == 2
    shown = capsys.readouterr().out
    assert "LACK  xxhash missing" in shown
    assert "LACK  sbatch --version fails with exit code 1: cannot reach" in shown
    assert not (tmp_path / "a").exists()


def test_the_program_named_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")
    assert _program() == [sys.executable, "-m", "launch.cli"]  # no console script: a checkout on PYTHONPATH
    program(tmp_path, "fmtrain", "true")
    assert _program() == [str(tmp_path / "fmtrain")]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _program() == ["fmtrain"]
    (tmp_path / "other").mkdir()
    program(tmp_path / "other", "fmtrain", "true")
    monkeypatch.setenv("PATH", f"{tmp_path / 'other'}:{tmp_path}")
    assert _program() == [str(tmp_path / "fmtrain")]  # the one that a shell would find is another installation's


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["recipe=quickstart_tiny", "launch.ranks=1"], ["def add(a, b):", "stages.dpo.objective.beta=0.2"]),
        (["stages.dpo.objective.beta=0.2"], ["recipe=quickstart", "stages.dpo.objective.beta=0.3"]),
        (["recipe=quickstart_mlm"], ["import <mask>", "seed=2"]),
        (["stages.sft=null", "stages.reference=null", "stages.dpo=null", "seed=2"], ["--raw", "seed=3"]),
    ],
)
def test_what_to_try_next_can_be_pasted(overrides: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    store = tmp_path / "a b"
    overrides = [*overrides, f"store={store}"]
    root = compose(overrides)
    steps = plan(build(root), store_at(root.store))
    model = Artifact(store, Manifest("published", "quickstart", 1, "", {}, {}, "publish", 1, "", "", "", 0.0))
    run = Run(store_at(root.store), "20260101-000000-abcd", root, overrides, tmp_path)
    generate, planned, models = (shlex.split(line) for line in _next(run, steps, model))
    assert planned[-1] == f"--config-dir={tmp_path}"
    assert all(word in [*generate, *planned] for word in words)
    assert generate[-2:] == models[-2:] == ["--store", str(store)] and "quickstart@v1" in generate
    assert sum(word.startswith("recipe=") for word in planned) == 1
    assert main(planned[planned.index("plan") :]) == 0
    assert main(models[models.index("models") :]) == 0


def test_the_classifiers_trainer_takes_its_own_options(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "corpus", "train-classifier", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--positive" in done.stdout
    assert done.stdout.startswith("usage: fmtrain corpus train-classifier ")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f'{{"text": "buy cheap pills now {n}"}}\n' for n in range(40)))
    good = tmp_path / "good.jsonl"
    good.write_text("".join(f'{{"text": "the theorem follows from lemma {n}"}}\n' for n in range(40)))
    options = ["--positive", str(good), "--negative", str(bad), "--out", str(tmp_path / "model.bin")]
    assert main(["corpus", "train-classifier", *options]) == 0 and (tmp_path / "model.bin").is_file()
