"""Every option composes; every misspelt key is refused with the nearest; contradictions name both fields."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmtrain.errors import ConfigError
from fmtrain.schema.load import dump, load
from fmtrain.schema.root import Root
from fmtrain.schema.sources import Local
from launch.compose import compose
from launch.keys import GROUPS, known_keys, slots
from launch.recipes import options

CONF = Path(__file__).resolve().parents[2] / "conf"
HF = ["model.path=/nowhere"]


def recipe_overrides(recipe: str) -> list[str]:
    return [f"recipe={recipe}", *(HF if recipe == "finetune" else [])]


@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_composes(recipe: str) -> None:
    root = compose(recipe_overrides(recipe))
    assert root.recipe == recipe
    assert load(Root, dump(root)) == root


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS for o in options(g)])
def test_every_option_composes_and_passes_its_schema(group: str, option: str) -> None:
    slot = group
    if group in ("objective", "optim", "schedule", "zero"):
        slot = f"{group}@{next(s for s in slots(group, compose_base(())) if 'pretrain' in s)}"
    elif group == "stage":
        slot = "+stage@stages.another"
    overrides = [f"{slot}={option}"]
    if option == "hub":
        overrides += ["data.path=/nowhere"]
    elif (group, option) in (("model", "hf"), ("tokenizer", "model")):
        overrides += [word for word in ("model=hf", *HF) if word not in overrides]
    needed = {"pretrain": "steps=30", "masked": "steps=30", "dpo": "max_rows=400"}
    if group == "stage" and option in needed:
        overrides.append(f"stages.another.{needed[option]}")
    if (group, option) == ("stage", "masked"):
        overrides.append("model@stages.another.model=bert_tiny")
    if (group == "objective" and option != "clm") or (group == "model" and option.startswith("bert")):
        with pytest.raises(ConfigError, match="bert|random weights|packing"):  # composes; the pair does not fit
            compose(overrides)
        return
    compose(overrides)


def conf_keys() -> list[tuple[list[str], str]]:
    """(group choices, dotted key) of every key of conf/, once: with the choices of the first file that has it."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.name if path.parent != CONF else ""
        data = yaml.safe_load(path.read_text()) or {}
        data.pop("defaults", None)
        if group == "recipe":
            choices, prefix = recipe_overrides(path.stem), ""
        elif group == "stage":
            prefix, choices = f"stages.a_{path.stem}.", [f"+stage@stages.a_{path.stem}={path.stem}"]
        elif group in ("objective", "optim", "schedule", "zero"):
            prefix = "stages.pretrain." + group + "."
            choices = [f"{group}@stages.pretrain.{group}={path.stem}"]
        else:
            prefix = f"{group}." if group else ""
            choices = [f"{group}={path.stem}"] if group else []
        for key in flat(data):
            found.setdefault(prefix + key, choices)
    return [(choices, key) for key, choices in found.items()]


def flat(data: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in data.items():
        keys.append(prefix + key)
        if isinstance(value, dict):
            keys += flat(value, f"{prefix}{key}.")
    return keys


def misspellings(key: str) -> list[str]:
    """One character dropped, doubled, and replaced, in the last part and, where there is one, in an earlier part."""
    head, _, last = key.rpartition(".")
    middle = len(last) // 2
    changed = [
        last[:middle] + last[middle + 1 :],
        last[:middle] + last[middle] * 2 + last[middle + 1 :],
        last[:-1] + "q",
    ]
    found = [f"{head}.{word}" if head else word for word in changed if word]
    if head:
        found.append(f"{head[:-1]}.{last}")
    return found


@pytest.mark.parametrize(
    ("backend", "name", "refused"),
    [
        ("inline", "ABSENT_X", "is not set"),
        ("local", "RANK", "is not passed on"),
        ("slurm", "RANK", "is not passed on"),
    ],
)
def test_a_variable_that_cannot_be_passed_on_is_known_at_plan(backend: str, name: str, refused: str) -> None:
    compose(["recipe=quickstart", f"launch={backend}", "launch.env=[PATH]"])
    in_a_job = ["recipe=quickstart", "launch=slurm", "launch.env=[ABSENT_X]"]
    compose(in_a_job)  # the job's setup may set it
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError, match="launch.env: ABSENT_X is not set"):
        patch.setenv("FMTRAIN_JOB", "7")
        compose(in_a_job)
    with pytest.raises(ConfigError, match=f"launch.env: {name} {refused}"):
        compose(["recipe=quickstart", f"launch={backend}", f"launch.env=[{name}]"])


@pytest.mark.parametrize(
    ("given", "having"),
    [
        (["launch=inline", "launch.auth=token"], "launch=inline has no setting 'auth'.* launch=local$"),
        (["launch=local", "+launch.nodes=2"], "launch=local has no setting 'nodes'.* launch=slurm$"),
        (["data.files=a.jsonl"], "data=stdlib has no setting 'files'.* data=local or data=rows$"),
        (["stages.dpo.schedule.min=1"], "there is no setting 'stages.dpo.schedule.min'"),
    ],
)
def test_a_setting_of_another_option_names_the_option(given: list[str], having: str) -> None:
    with pytest.raises(ConfigError, match=having):
        compose(["recipe=quickstart", *given])


def test_every_misspelt_key_is_refused_naming_the_nearest() -> None:
    checked = 0
    for choices, key in conf_keys():
        first = compose_base(tuple(c for c in choices if c not in HF))
        known = known_keys(first)
        for wrong in misspellings(key):
            if wrong in known or wrong in GROUPS or wrong == "recipe":
                continue  # a misspelling that is a valid key
            for prefix in ("", "+", "++"):
                with pytest.raises(ConfigError) as caught:
                    compose([*choices, f"{prefix}{wrong}=1"])
                named = re.search(r"did you mean '([^']+)'", str(caught.value))
                assert named, f"{prefix}{wrong}: {caught.value}"
                assert one_edit(wrong, named[1]), f"{wrong}: named {named[1]}, meant {key}"
                checked += 1
            with pytest.raises(ConfigError):
                compose([*choices, f"~{wrong}"])
    assert checked > 500


def compose_base(choices: tuple[str, ...]) -> dict[str, Any]:
    from launch.compose import _base, parse

    return _base(parse(list(choices)))


def one_edit(a: str, b: str) -> bool:
    """Are the two words one inserted, dropped or replaced character apart?"""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    return a[at + 1 :] == b[at + 1 :] if len(a) == len(b) else a[at:] == b[at + 1 :]


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["stages.pretrain.global_batch_size=10"], ["global_batch_size=10", "micro_batch_size=8"]),
        (["stages.pretrain.epochs=1"], ["steps", "epochs"]),
        (["stages.pretrain.precision=bf16", "stages.pretrain.zero.stage=0"], ["precision=bf16", "zero.stage"]),
        (["stages.pretrain.sequence_length=4096"], ["sequence_length=4096", "max_position_embeddings=512"]),
        (["stages.pretrain.schedule.warmup_steps=100000"], ["warmup_steps=100000", "steps"]),
        (["model.hidden_size=100"], ["hidden_size=100", "num_attention_heads=6"]),
        (["model=bert_2m"], ["bert", "clm"]),
        (["stages.pretrain=null"], ["stages.sft", "model=hf"]),
        (["recipe=finetune"], ["model.path"]),
        (["recipe=quickstart_mlm", "stages.dpo.objective.beta=0.3"], ["stages.dpo", "recipe=quickstart_mlm"]),
        (["launch.ranks=three"], ["launch.ranks", "'three'", "launch.ranks=2"]),
        (["stages.dpo.objective.beta=big"], ["stages.dpo.objective.beta", "big"]),
    ],
)
def test_contradictions_name_both_fields(overrides: list[str], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert all(name in str(caught.value) for name in names), str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (["quickstart"], "recipe=quickstart"),
        (["stages.dpo.objective=sft"], "objective@stages.dpo.objective=sft"),
        (["stages.dpo.objective.name=sft"], "objective@stages.dpo.objective=sft"),
        (["stages.sft.zero=stage3"], "zero@stages.sft.zero=stage3"),
        (["launch.name=inline"], "launch=inline"),
        (["stages.dpo=sft"], "stage@stages.dpo=sft"),
        (["zero=stage3"], "zero@stages.NAME.zero=stage3"),
        (["learning_rate=1e-4"], "here it is stages.pretrain.optim.lr"),
        (["stages.sft.learning_rate=1e-4"], "here it is stages.sft.optim.lr"),
        (["stages.dpo.dtype=bf16"], "here it is stages.dpo.precision"),
        (["stages.pretrain=null", "stages.pretrain.steps=3"], "take one of the two away"),
        (["stage@stages.sft.model=sft"], "has no place 'stages.sft.model'"),
        (["~stages.dpo"], "stages.dpo=null"),
        (["~stages.dpo.objective.beta"], "cannot be removed"),
        (["~data"], "cannot be removed"),
        (["+model=llama_tiny"], "leave out the +"),
        (["stages.sft.model.path=/x"], "model@stages.sft.model=hf"),
        (["model=llama_2m,llama_tiny"], "sweeps are not run; give one value"),
        (["stages.dpo.objective.beta=0.1,0.2"], "sweeps are not run; give one value"),
        (["recipe=finetune", *HF, "data.files=a,b"], "data.files=[a,b]"),
        (["store=~/x"], "\"store='~/x'\""),
        (["store=/a (b)/c"], "\"store='/a (b)/c'\""),
        (["recipe=finetune", *HF, "data.files=[~/a,b]"], "\"data.files=['~/a','b']\""),
        (["recipe=quickstart_mlm", "objective@stages.dpo.objective=dpo"], "stages.dpo is not part of recipe"),
    ],
)
def test_a_refusal_says_what_to_write(overrides: list[str], advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_advised_composes() -> None:
    assert compose(["store='~/x (y)'"]).store == "~/x (y)"
    files = compose(["recipe=finetune", *HF, "data.files=['~/a','b']"]).data.files  # type: ignore[attr-defined]
    assert files == ["~/a", "b"]
    root = compose(["stages.pretrain=null", "model@stages.sft.model=hf", "stages.sft.model.path=/x"])
    assert root.stages["sft"].model is not None
    assert root.stages["sft"].model.path == "/x"  # type: ignore[attr-defined]


def test_by_group_and_by_value() -> None:
    root = compose(
        ["objective@stages.dpo.objective=dpo", "stages.dpo.objective.beta=0.2", "zero@stages.sft.zero=stage3"]
    )
    assert root.stages["dpo"].objective.beta == 0.2  # type: ignore[attr-defined]
    assert root.stages["sft"].zero.stage == 3


def test_a_single_file_needs_no_brackets() -> None:
    root = compose(["recipe=finetune", *HF, "data.files=../a/*.jsonl.gz"])
    assert root.data.files == ["../a/*.jsonl.gz"]  # type: ignore[attr-defined]


def test_data_brings_its_filter_and_the_command_line_wins() -> None:
    assert compose(["data=local"]).filter.name == "gopher"
    assert compose(["data=local", "filter=none"]).filter.name == "none"
    assert compose([]).filter.name == "code"


HEAVY = {"torch", "ray", "deepspeed", "datatrove", "transformers", "numpy", "pandas", "pyarrow", "huggingface_hub"}


@pytest.mark.parametrize(
    "args",
    [
        ["run", "stages.dpo.objective.betta=1"],
        ["plan", "recipe=quickstrt"],
        ["run", "+stages.pretrain.stepss=5"],
        ["--help"],
        ["plan"],
        ["status"],
        ["models"],
    ],
)
def test_answers_soon_and_imports_nothing_heavy(args: list[str], tmp_path: Path) -> None:
    code = f"""
import sys, time
from launch.cli import main
try:
    code = main({args!r})
except SystemExit as e:
    code = e.code
print('HEAVY', sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
print(f'spent {{time.process_time()}}', file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"FMTRAIN_STORE": "store", "PATH": ""},
    )
    wrong = any("=" in a for a in args)
    assert done.returncode == (2 if wrong else 0), done.stderr
    assert "HEAVY []" in done.stderr
    if wrong:
        assert "did you mean" in done.stderr
    processor_seconds = float(done.stderr.split()[-1])
    assert processor_seconds < 4  # some three times those of a quiet machine: benchmarks/startup.py


def test_a_first_stage_may_start_from_a_pin() -> None:
    root = compose(["stages.pretrain=null", "stages.sft.inputs.model=pretrain@v1"])
    assert root.stages["pretrain"] is None


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["launch.ranks=3"], ["global_batch_size=16", "3 ranks", "global_batch_size=18"]),
        (["launch.ranks=4"], ["micro_batch_size=4"]),
        (["stages.corpus.artifact=../escaped"], ["stages.corpus.artifact"]),
        (["stages.sft.artifact=dpo"], ["stages.dpo.artifact=dpo", "stages.sft.artifact"]),
        (["stages.pretrain.optim.lr=inf"], ["stages.pretrain.optim.lr", "finite"]),
        (["stages.dpo.max_rows=900"], ["stages.dpo.max_rows=900", "stages.reference.max_rows=400"]),
        (
            ["stages.dpo.sequence_length=256"],
            ["stages.dpo.sequence_length=256", "stages.reference.sequence_length=384"],
        ),
        (["checkpoint.keep=0"], ["checkpoint.keep: 0 is not a number of at least 1", "e.g. checkpoint.keep=2"]),
        (["seed=99999999999999999999"], ["seed: 99999999999999999999", "9223372036854775807"]),
        (["stages.sft.schedule.final_factor=-3"], ["stages.sft.schedule.final_factor: -3.0", "from 0 to 1"]),
        (["stages.dpo.optim.beta2=1.5"], ["stages.dpo.optim.beta2: 1.5", "below 1", "beta2=0.95"]),
        (["stages.dpo.optim.max_grad_norm=-1"], ["stages.dpo.optim.max_grad_norm: -1.0"]),
        (["dedup.steps=[exactt]"], ["dedup.steps[0]: 'exactt'", "e.g. dedup.steps=[exact]"]),
        (["stages.sft=null", "stages.sft.steps=3"], ["stages.sft.steps=3", "stages.sft=null"]),
        (["stages.examples.min_prompt=2000"], ["min_prompt=2000", "max_prompt=1500"]),
        (["launch.ranks='²'"], ["launch.ranks"]),
        (["template_date='2026-13-01'"], ["template_date: '2026-13-01'", "e.g. template_date=2026-01-01"]),
    ],
)
def test_values_out_of_range(overrides: list[str], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert all(name in str(caught.value) for name in names), str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a,b/rows.jsonl",
        "[v2] data/rows.jsonl",
        "it's.jsonl",
        'a "b", c.jsonl',
        "a{1}.jsonl",
        "back\\slash, \\'.jsonl",
        "$HOME,`x`.jsonl",
    ],
)
def test_the_quoting_that_is_advised_works(name: str) -> None:
    """As a shell reads it: the last word of the message names the very file."""
    try:
        root = compose(["data=local", f"data.files={name}"])
    except ConfigError as e:
        words = shlex.split(str(e)[str(e).rindex(": ") + 2 :])
        root = compose(["data=local", *words])
    assert isinstance(root.data, Local) and root.data.files == [name]
