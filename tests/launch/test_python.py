"""`import fmtrain` in a program: plan, run, a store to look into; and a process that is afterwards as it was before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

import pandas
import pytest

import fmtrain
from fmtrain.artifacts.storage import write_sealed
from fmtrain.errors import ConfigError, HeldError, InputError, StoreError
from launch.cli import main
from launch.python import runs
from tests.launch.test_cli import program

TINY = ["recipe=quickstart_tiny", "launch=inline"]
HEAVY = {"torch", "transformers", "deepspeed", "hydra", "omegaconf", "ray", "datatrove", "numpy", "pandas"}


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


def program_of(text: str, **env: str) -> str:
    """The output of a Python program of its own."""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, env={**os.environ, **env}, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def state() -> tuple[object, ...]:
    """What a run may change of its process."""
    os.umask(mask := os.umask(0o077))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)]
    return sys.stdout, sys.stderr, sys.stdout.errors, handlers, mask, os.getcwd(), dict(os.environ)


def test_the_import_is_light_and_the_names_are_there(tiny_store: Path) -> None:
    looked = f"""
import sys, fmtrain
def heavy(): return sorted({{m.split(".")[0] for m in sys.modules}} & {HEAVY!r})
print([m for m in sys.modules if m.startswith(("launch", "fmtrain."))], heavy())
store = fmtrain.Store({str(tiny_store)!r})
store.version("sft").metrics(), next(store.version("corpus").rows()), store.version("dpo").lineage()
print(heavy())
fmtrain.plan({TINY!r})
print({{"torch", "transformers", "ray"}} & set(heavy()))
"""
    assert program_of(looked).splitlines() == ["['fmtrain.errors'] []", "[]", "set()"]
    assert set(fmtrain.__all__) <= set(dir(fmtrain)) and all(hasattr(fmtrain, name) for name in fmtrain.__all__)
    with pytest.raises(AttributeError, match="no attribute 'paln'"):
        fmtrain.paln  # noqa: B018


def test_a_plan_is_the_table_and_its_data(tiny_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, f"store={tiny_store}", "stages.dpo.objective.beta=0.2", "data=stdlib"]
    before = state()
    plan = fmtrain.plan(words)
    assert state() == before and capsys.readouterr().out == ""
    assert main(["plan", *words]) == 0
    assert f"{plan}\n" == f"{plan!r}\n" == capsys.readouterr().out
    assert {one.stage: one.action for one in plan.stages if one.action != "reuse"} == dict.fromkeys(
        ("dpo", "evaluate", "publish"), "run"
    )
    assert plan["dpo"].reason.endswith("beta: 0.1 -> 0.2") and plan["sft"].artifact == "sft@v1"
    with pytest.raises(KeyError, match="no stage 'nope' in this plan; there are corpus, tokenizer, .*, publish"):
        plan["nope"]
    frame = pandas.DataFrame(plan.stages).set_index("stage")
    assert frame.seconds.sum() == plan.seconds > 0 and pandas.isna(frame.seconds["sft"])  # which is reused
    assert frame.parameters["dpo"] == frame.parameters["sft"] > 100_000 and frame.steps["pretrain"] == 30
    assert frame.fingerprint["sft"] == plan.store.version("sft@v1").fingerprint
    assert fmtrain.plan(words[:-2])["dpo"].action == "reuse"  # of the call before nothing is left


def test_plans_of_one_process_know_nothing_of_each_other(tmp_path: Path) -> None:
    """A plug-in, groups of one's own that change, a secret of the environment; and a Hydra that is the caller's."""
    (tmp_path / "toy.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Toy:\n    least: int = 2\n"
        "def register(registry):\n"
        "    registry.rule('toy', Toy, lambda settings: lambda document: None)\n"
        "    registry.reader('.csv', lambda data, unit, on_hash: iter(()))\n"
    )
    (tmp_path / "half.py").write_text(
        "whole = False\n"
        "def register(registry):\n"
        "    registry.reader('.csv', lambda data, unit, on_hash: iter(()))\n"
        "    if not whole: raise ValueError('half-way')\n"
    )
    (tmp_path / "x.csv").write_text("a,b\n")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.yaml").write_text("mine: 7\n")
    recipe = tmp_path / "own" / "recipe" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    code = f"""
import fmtrain, hydra
from pathlib import Path
hydra.initialize_config_dir({str(tmp_path / "theirs")!r}, version_base=None)
recipe, tiny = Path({str(recipe)!r}), {[*TINY, f"store={tmp_path / 'store'}"]!r}
def plan(seed):
    recipe.write_text(f"# @package _global_\\ndefaults: [quickstart_tiny, _self_]\\nseed: {{seed}}\\n")
    found = fmtrain.plan(["recipe=mine", *tiny[1:]], config_dir={str(tmp_path / "own")!r})
    return [stage.fingerprint for stage in found.stages]
first = fmtrain.plan(tiny)
assert plan(1) != plan(2) and plan(1) == plan(1)
toy = fmtrain.plan([*tiny, "plugins=[toy]", "filter.rules=[code,toy]", "stages.publish.artifact=${{oc.env:NAMED}}"])
assert toy["corpus"].fingerprint != first["corpus"].fingerprint
assert fmtrain.plan(tiny).stages == first.stages
table = ["recipe=corpus_web", "data.files={tmp_path / "x.csv"}", "store={tmp_path / "store"}"]
def refused(words, error):
    try:
        fmtrain.plan(words)
    except error as e:
        return str(e)
assert "x.csv" in refused(table, fmtrain.errors.FmtrainError)
for plugin in ("toy", "half"):
    assert plugin == "toy" or refused([*table, "plugins=[half]"], ValueError) == "half-way"
    if plugin == "half":
        import half
        half.whole = True
    assert fmtrain.plan([*table, f"plugins=[{{plugin}}]"])["corpus"].action == "run"
    assert "x.csv" in refused(table, fmtrain.errors.FmtrainError)
assert hydra.compose("config").mine == 7
print("as before")
"""
    assert program_of(code, PYTHONPATH=str(tmp_path), NAMED="something").strip() == "as before"


def test_a_failure_is_the_exception_and_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state()
    with pytest.raises(ConfigError, match="there is no setting 'stages.sft.lr'; here it is stages.sft.optim.lr"):
        fmtrain.plan([*TINY, "stages.sft.lr=1"])
    with pytest.raises(ConfigError, match=r"expected a list, fmtrain.run\(\['recipe=tokens'\]\)"):
        fmtrain.run("recipe=tokens")
    with pytest.raises(ConfigError, match="--config-dir=.*no such folder"):
        fmtrain.plan(TINY, config_dir=tmp_path / "none")
    with pytest.raises(ConfigError) as raised:
        fmtrain.plan(["recipe=corpus_web", "data.files=http://127.0.0.1/a.jsonl?sig=0123456789abcdef"])
    assert "0123456789abcdef" not in str(raised.value) and "127.0.0.1/a.jsonl?sig=***" in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    assert state() == before and capsys.readouterr() == ("", "")


def test_a_run_gives_its_artifacts_and_the_process_back(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state()
    made = fmtrain.run([*TINY, f"store={store}"])
    assert state() == before
    assert f"run {made.id}  recipe=quickstart_tiny launch=inline" in (shown := capsys.readouterr().out)
    assert shown.count("reused") == 10 and str(made.folder) in shown
    assert {stage: v.ref for stage, v in made.artifacts.items()}["publish"] == "quickstart_tiny@v1"
    assert made.artifacts["dpo"].kind == "model" and made.job is None
    assert json.loads((made.folder / "run.json").read_text())["state"] == "done"


def test_a_run_in_another_thread_and_one_at_a_time(store: Path) -> None:
    ended: list[object] = []

    def work() -> None:
        ended.append(fmtrain.run([*TINY, f"store={store}"]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert [type(one) for one in ended] == [fmtrain.Run]
    with runs._busy, pytest.raises(HeldError, match="another thread of this process plans or runs"):
        fmtrain.plan(TINY)


def test_a_stage_that_fails_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "too short"}\n')
    words = ["recipe=corpus_web", "launch=inline", f"data.files={tmp_path / 'a.jsonl'}", f"store={tmp_path / 'store'}"]
    before = state()
    with pytest.raises(InputError) as raised:
        fmtrain.run(words)
    assert state() == before and str(raised.value) not in "".join(capsys.readouterr())
    (folder,) = (tmp_path / "store" / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["message"] == str(raised.value)


INTERRUPTED = """
import fmtrain, signal, sys
words = sys.argv[1:]
try:
    fmtrain.run(words)
except KeyboardInterrupt as e:
    print("caught:", e, signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
made = fmtrain.run(words)
print("made:", *(v.ref for v in made.artifacts.values()))
"""


def test_ctrl_c_saves_and_the_same_call_goes_on(tmp_path: Path) -> None:
    words = ["recipe=tokens", "launch=inline", "data.modules=[json,html]", f"store={tmp_path / 'store'}"]
    words += ["tokenizer.vocab_size=400", "data.heldout_modulus=0"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not [p for p in tmp_path.glob("store/runs/*/events.jsonl") if '"started"' in p.read_text()]:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "caught: stopped by SIGINT; the same command goes on from what is saved True\n" in out
    assert out.splitlines()[-1] == "made: corpus@v1 tokenizer@v1 tokens@v1"
    states = [json.loads(p.read_text())["state"] for p in sorted((tmp_path / "store/runs").glob("*/run.json"))]
    assert sorted(states) == ["done", "interrupted"]


def test_a_job_is_submitted_or_its_script_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "bin", "sbatch", "echo 4711")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    words = ["recipe=quickstart_tiny", "launch=slurm", f"store={tmp_path / 'store'}"]
    assert fmtrain.run([*words, "launch.dry_run=true"]) == fmtrain.Run("", None, {})
    assert capsys.readouterr().out.startswith("#!/bin/bash")
    sent = fmtrain.run(words)
    assert sent.job == "4711" and sent.artifacts == {} and sent.folder is not None
    assert json.loads((sent.folder / "run.json").read_text())["state"] == "queued"
    assert f"job 4711  run {sent.id}" in capsys.readouterr().out


def test_versions_by_name_and_what_is_asked_wrongly(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FMTRAIN_STORE", str(store))
    ours = fmtrain.Store()
    assert ours.path == store and len(ours.versions()) == 10
    assert [v.ref for v in ours.versions("model")] == ["dpo@v1", "pretrain@v1", "sft@v1"]
    assert ours.version("sft").ref == ours.version("sft@v1", "model").ref == "sft@v1"
    with pytest.raises(ConfigError, match="sft@v2: there is no version 2 of model sft; it has v1"):
        ours.version("sft@v2")
    with pytest.raises(ConfigError, match="stf: nothing of that name"):
        ours.version("stf")
    with pytest.raises(ConfigError, match="it has none yet"):
        fmtrain.Store(tmp_path / "none").version("sft")
    ours.at.under(ours.version("tokens").artifact, name="corpus")
    with pytest.raises(ConfigError, match=r"name of several: corpus, tokens; say which: version\('corpus', 'corpus'\)"):
        ours.version("corpus")
    assert ours.version("corpus", "tokens").kind == "tokens"


def test_metrics_are_rows(tiny_store: Path) -> None:
    store = fmtrain.Store(tiny_store)
    frame = pandas.DataFrame(store.version("sft").metrics())
    assert list(frame.step) == list(range(6)) and {"loss", "lr", "grad_norm", "tokens_per_second"} <= set(frame)
    numbers = pandas.DataFrame(store.version("evaluation").metrics()).set_index("metric")["value"]
    assert 0 < numbers["gzip_bits_per_byte"] < 8 and numbers.dtype == float
    assert store.version("quickstart_tiny").metrics() == store.version("evaluation").metrics()
    assert store.version("examples").metrics() == []


def test_the_lineage_goes_all_the_way_down(store: Path) -> None:
    def lineage() -> pandas.DataFrame:
        return pandas.DataFrame(fmtrain.Store(store).version("quickstart_tiny").lineage()).set_index("ref")

    whole = lineage()
    assert len(whole) == 10 and whole.here.all() and whole.index[0] == "quickstart_tiny@v1"
    assert whole.made_of["dpo@v1"] == {"examples": "examples@v1", "model": "sft@v1", "reference": "reference@v1"}
    assert whole.kind["tokens@v1"] == "tokens"
    shutil.rmtree(store / "artifacts" / "tokens")
    after = lineage()
    assert not after.here["tokens@v1"] and after.kind["tokens@v1"] == ""
    assert after.fingerprint["tokens@v1"] == whole.fingerprint["tokens@v1"] and after.here["corpus@v1"]


def test_rows_are_what_the_artifacts_hold(store: Path) -> None:
    ours = fmtrain.Store(store)
    corpus, examples, tokens = (ours.version(name) for name in ("corpus", "examples", "tokens"))
    counts = corpus.manifest.counts
    found = list(corpus.rows())
    assert [row["split"] for row in found] == ["train"] * counts["train_documents"] + ["heldout"] * (
        counts["heldout_documents"]
    )
    assert {"id", "text", "group", "source", "license"} <= set(found[0])
    assert list(corpus.rows("heldout")) == [row for row in found if row["split"] == "heldout"]
    kinds = {(row["split"], row["form"]): set(row) for row in examples.rows()}
    assert kinds["train", "sft"] == {"split", "form", "id", "group", "messages"}
    assert kinds["heldout", "preference"] >= {"prompt", "chosen", "rejected"}
    documents = list(tokens.rows())
    assert len(documents) == tokens.manifest.counts["documents"] == counts["train_documents"]
    assert sum(len(row["tokens"]) for row in documents) == tokens.manifest.counts["tokens"]
    _, tokenizer = ours.version("sft").load()
    text = tokenizer.decode(documents[-1]["tokens"], skip_special_tokens=True)
    assert text == found[len(documents) - 1]["text"]
    with pytest.raises(ConfigError, match="split='test' is not one of train, heldout"):
        corpus.rows("test")
    with pytest.raises(ConfigError, match="tokens are of training documents alone"):
        tokens.rows("heldout")
    with pytest.raises(ConfigError, match="sft@v1 holds no rows, it is of kind model: .* corpus, examples or tokens"):
        ours.version("sft").rows()


def test_a_model_is_hashed_before_it_is_loaded(store: Path) -> None:
    ours = fmtrain.Store(store)
    model, tokenizer = ours.version("quickstart_tiny").load()
    assert type(model).__name__ == "LlamaForCausalLM" and not model.training and tokenizer.chat_template
    with pytest.raises(ConfigError, match="evaluation@v1 is no model, .*; a model that it was made of: dpo@v1"):
        ours.version("evaluation").load()
    weights = ours.version("sft").path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StoreError, match="is damaged"):
        ours.version("sft").load()


def test_a_model_of_a_plug_ins_class_is_loaded(store: Path, tmp_path: Path) -> None:
    """Nothing but the manifest names the plug-in, and the call after it knows nothing of it."""
    (tmp_path / "odd.py").write_text(
        "from fmtrain.schema.training import Model\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Odd(Model):\n    name: str = 'odd'\n"
        "def register(registry): registry.model(Odd, None, classes='odd_classes')\n"
    )
    (tmp_path / "odd_classes.py").write_text(
        "from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM\n"
        "class OddConfig(LlamaConfig): model_type = 'odd'\n"
        "class OddForCausalLM(LlamaForCausalLM): config_class = OddConfig\n"
        "AutoConfig.register('odd', OddConfig)\nAutoModelForCausalLM.register(OddConfig, OddForCausalLM)\n"
    )
    made = fmtrain.Store(store).version("sft").path
    config, manifest = made / "config.json", made / "manifest.json"
    config.write_text(config.read_text().replace('"llama"', '"odd"').replace("LlamaFor", "OddFor"))
    data = json.loads(manifest.read_text())
    data["payload"]["plugins"] = [{"module": "odd", "package": "odd", "version": "0", "source": ""}]
    data["files"]["config.json"] |= {"bytes": config.stat().st_size, "sha256": sha256(config.read_bytes()).hexdigest()}
    data.pop("seal")
    write_sealed(manifest, data)
    code = f"""
import fmtrain
from fmtrain.schema import plugins
print(type(fmtrain.Store({str(store)!r}).version("sft").load().model).__name__, plugins.CLASSES)
"""
    assert program_of(code, PYTHONPATH=str(tmp_path)).splitlines()[-1] == "OddForCausalLM {}"


def test_a_damaged_corpus_gives_no_rows(store: Path) -> None:
    (shard,) = (store / "artifacts/corpus/corpus/v0001/train").glob("*.zst")
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(StoreError, match="is damaged"):
        fmtrain.Store(store).version("corpus").rows()
