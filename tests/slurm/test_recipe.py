"""The tiny quickstart as a user submits it: two nodes, corpus tasks and ranks on both, the code of a failed stage."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from fmtrain.errors import ExitCode
from fmtrain.models import save_model
from launch.backends import slurm
from launch.templates.testing.cluster import Cluster
from tests.conftest import fmtrain
from tests.data_pipelines.sources.hub_server import Hub
from tests.fmtrain.fixtures import make_tokenizer, tiny_llama
from tests.slurm.conftest import until_said
from tests.slurm.faults import until

pytestmark = [pytest.mark.slurm, pytest.mark.long]
SLURM = ["recipe=quickstart_tiny", "launch=slurm", "launch.nodes=2", "launch.cpus_per_task=2", "launch.time=00:30:00"]


def test_two_nodes_to_a_published_model(cluster: Cluster, tmp_path: Path) -> None:
    temporary = tempfile.mkdtemp(prefix="fmt-")
    done = fmtrain("run", *SLURM, f"store={tmp_path}", "--wait", timeout=600, TMPDIR=temporary)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: not os.listdir(temporary), 30, f"nothing of the job in {temporary}")
    os.rmdir(temporary)
    assert (tmp_path / "artifacts/published/quickstart_tiny/v0001/model.safetensors").is_file()
    (run,) = (tmp_path / "runs").iterdir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    placed = {e["stage"]: e["hosts"] for e in events if e["event"] == "started"}
    assert sorted(placed["pretrain"]) == ["n1", "n2"] and sorted(placed["dpo"]) == ["n1", "n2"]
    corpus = (run / "logs" / "corpus" / "rank0.log").read_text()
    assert "done on n1" in corpus and "done on n2" in corpus
    manifest = json.loads((tmp_path / "artifacts/model/pretrain/v0001/manifest.json").read_text())
    assert manifest["numerics"]["ranks"] == 2


def test_the_code_of_a_failed_stage_comes_through(cluster: Cluster, tmp_path: Path) -> None:
    """A module that does not exist: input data, 3, before the job; weights that explode: 4, and no other turn."""
    bad = fmtrain("run", *SLURM, f"store={tmp_path}", "data.modules=[nowhere]", "--wait", timeout=600)
    assert bad.returncode == 3
    explode = ["stages.pretrain.optim.lr=10", "stages.pretrain.optim.weight_decay=1000"]
    failed = fmtrain("run", *SLURM, f"store={tmp_path}", *explode, "--wait", timeout=600)
    assert failed.returncode == 4, failed.stdout + failed.stderr
    assert "pretrain failed" in failed.stdout + failed.stderr
    assert [len(turns.read_text().splitlines()) for turns in tmp_path.glob("runs/*/turns.jsonl")] == [2]


def test_a_job_with_no_way_to_the_hub_knows_what_was_submitted(cluster: Cluster, tmp_path: Path) -> None:
    """The nodes cannot reach loopback of this machine: planning there would end at names that are not pinned."""
    store, questions = tmp_path / "store", b'{"question": "how many eggs does a duck lay in a week?"}'
    with Hub(tmp_path / "hub") as hub:
        data = hub.add("some/rows", {"train.jsonl": b'{"text": "one"}'})
        evals = hub.add("some/evals", {"test.jsonl": questions})
        given = ["filter.rules=[decontaminate]", "filter.decontaminate.sets=[some/evals:test]", "data.path=some/rows"]
        base = ["recipe=corpus_web", "data=hub", "launch=slurm", "launch.cpus_per_task=2", f"store={store}"]
        done = fmtrain("run", *base, *given, **hub.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    number, run = done.stdout.split()[1], store / "runs" / done.stdout.split()[3]
    until_said(run / f"slurm-{number}.out", "dashboard http")  # printed when the plan is made and written
    cluster("exec", "scancel", number)
    assert slurm.wait(number, run / f"slurm-{number}.out", run) == ExitCode.INTERRUPTED
    assert [step["action"] for step in json.loads((run / "plan.json").read_text())] == ["run"]
    overrides = json.loads((run / "run.json").read_text())["overrides"]
    assert overrides[-2:] == [f"data.revision='{data}'", f"filter.decontaminate.sets=['some/evals@{evals}:test']"]


def test_a_model_by_name_is_fetched_before_its_job(cluster: Cluster, tmp_path: Path) -> None:
    """The hub is gone when the job begins: all lies in the cache, and the commits stand among its overrides."""
    tokenizer, store = make_tokenizer(), tmp_path / "store"
    save_model(tiny_llama(tokenizer), tokenizer, tmp_path / "model")
    rows = b"".join(b'{"prompt": "Say %d", "completion": "%d"}\n' % (n, n) for n in range(40))
    with Hub(tmp_path / "hub") as hub:
        model = hub.add("some/model", {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()})
        data = hub.add("some/rows", {"train.jsonl": rows})
        small = "steps=2 epochs=null schedule.warmup_steps=0 global_batch_size=2 micro_batch_size=1 sequence_length=64"
        rest = ["stages.evaluate=null", "stages.publish=null", *(f"stages.sft.{setting}" for setting in small.split())]
        names = ["recipe=finetune", "model.path=some/model", "data.path=some/rows", f"store={store}"]
        done = fmtrain("run", *names, *rest, "launch=slurm", "launch.cpus_per_task=2", **hub.environment)
    assert done.returncode == 0 and "fetch      some/model@" in done.stdout, done.stdout + done.stderr
    words = next(line for line in done.stdout.splitlines() if line.startswith("job ")).split()
    run = store / "runs" / words[3]
    assert slurm.wait(words[1], run / f"slurm-{words[1]}.out", run) == 0
    assert (store / "artifacts/model/finetune_sft/v0001/model.safetensors").is_file()
    overrides = json.loads((run / "run.json").read_text())["overrides"]
    assert overrides[-3:] == [f"model.path='some/model@{model}'", f"data.path='some/rows@{data}'", "data.revision=null"]
