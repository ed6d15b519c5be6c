"""A published fine-tune on another machine: what its folder says, and that `--from` it plans the very same again."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from fmtrain.artifacts.storage import sha256_file
from launch.asked import asked, settings
from launch.compose import compose
from launch.recipes import options
from tests import sharing
from tests.conftest import REPOSITORY, fmtrain
from tests.needs import need

FINETUNE = ["recipe=finetune", "launch=inline", "launch.ranks=1", "stages.sft.epochs=null", "stages.sft.steps=1"]
FINETUNE += ["stages.sft.max_rows=16", "stages.sft.schedule.warmup_steps=0", "stages.evaluate=null"]
FINETUNE += ["stages.examples.max_sft_rows=40", "stages.publish.artifact=mine"]
CARD = "---\nlicense: apache-2.0\nmodel_name: Small Base\n---\n# Small Base\n"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def base_of(store: Path, folder: Path) -> Path:
    """Somebody's bf16 model in several files, with a card and settings of generation of its own."""
    source = store / "artifacts/model/pretrain/v0001"
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="150KB")
    for name in TOKENIZER:
        shutil.copyfile(source / name, folder / name)
    said = json.loads((folder / "generation_config.json").read_text())
    said |= {"eos_token_id": [1, 5], "do_sample": True, "temperature": 0.6, "repetition_penalty": 1.2}
    (folder / "generation_config.json").write_text(json.dumps(said))
    (folder / "README.md").write_text(CARD)
    return folder


def rows_in(path: Path) -> Path:
    """Over 2 MiB: known by its time too, which a copy does not keep."""
    rows = [{"prompt": f"Count to {i}.", "completion": " ".join(map(str, range(1 + i % 7)))} for i in range(400)]
    rows.append({"prompt": "x" * 3_000_000, "completion": "too long"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def made(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base, the rows and the store of one fine-tune."""

    def make(folder: Path) -> None:
        base, rows = base_of(tiny_store, folder / "private" / "base"), rows_in(folder / "private" / "rows.jsonl")
        done = fmtrain("run", *FINETUNE, f"model.path={base}", f"data.files={rows}", f"store={folder / 'store'}")
        assert done.returncode == 0, done.stdout + done.stderr

    return sharing.once(tmp_path_factory, "finetuned", make)


def published(made: Path) -> Path:
    return made / "store/artifacts/published/mine/v0001"


def test_it_is_what_the_base_was(made: Path) -> None:
    """Type and files of the weights, every end token and setting of generation, the tokenizer to the byte."""
    base, folder = made / "private/base", published(made)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    (trained,) = (made / "store/artifacts/model").glob("*/v0001")
    exact = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).state_dict()
    assert all(torch.equal(exact[name].bfloat16(), tensor) for name, tensor in model.state_dict().items())
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == len(list(base.glob("*.safetensors"))) > 1
    assert max(f.stat().st_size for f in files) <= max(f.stat().st_size for f in base.glob("*.safetensors")) + 200
    said = json.loads((folder / "generation_config.json").read_text())
    assert (said["eos_token_id"], said["temperature"], said["repetition_penalty"]) == ([1, 5], 0.6, 1.2)
    assert all((folder / name).read_bytes() == (base / name).read_bytes() for name in TOKENIZER)


def test_it_says_what_it_was_made_of_and_no_place(made: Path) -> None:
    folder = published(made)
    texts = {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".md", ".json", ".yaml")}
    assert {"README.md", "lineage.json", "recipe.yaml", "manifest.json"} <= texts.keys()
    assert not [name for name, text in texts.items() if str(made) in text or "private" in text]
    base, rows = made / "private/base", made / "private/rows.jsonl"
    card = texts["README.md"]
    assert "It starts from `Small Base`, which is under the licence `apache-2.0` as its own card says." in card
    assert "fmtrain run recipe=finetune stages.sft.epochs=null" in card and "data.files=rows.jsonl" in card
    for path in (rows, *base.glob("*.safetensors"), base / "config.json"):
        assert sha256_file(path) in card, path
    assert f"`torch` `{torch.__version__}`" in card
    assert yaml.safe_load(texts["recipe.yaml"])["model"] == {"name": "hf", "path": "./base", "pickle": False}


@pytest.fixture
def elsewhere(made: Path) -> Iterator[Path]:
    """A second clone with copies of all that was handed on, in a folder that everybody may read."""
    folder = Path(tempfile.mkdtemp(prefix="fmt-", dir="/tmp"))
    for room in ("fmtrain", "launch", "data_pipelines", "conf"):
        shutil.copytree(REPOSITORY / room, folder / "clone" / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(published(made), folder / "got")
    shutil.copytree(made / "private", folder / "theirs")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            os.utime(path, (1, 1))
    yield folder
    shutil.rmtree(folder)


def plan(folder: Path, *words: str, user: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder / 'clone')!r}); from launch.cli import main; sys.exit(main())"
    command = [*user, sys.executable, "-P", "-c", code, "plan", "--from", str(folder / "got"), "launch=inline", *words]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder / "clone", env=env, timeout=300)


def test_another_user_plans_the_same_from_a_second_clone(elsewhere: Path) -> None:
    need("users")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    theirs = [f"model.path={elsewhere}/theirs/base", f"data.files={elsewhere}/theirs/rows.jsonl"]
    done = plan(elsewhere, *theirs, f"store={elsewhere}/none", user=user)
    assert done.returncode == 0 and f"every identity is that of {elsewhere}/got" in done.stdout, (
        done.stdout + done.stderr
    )


def test_what_is_missing_or_other_is_named(elsewhere: Path) -> None:
    nothing = plan(elsewhere)
    assert nothing.returncode == 3, nothing.stderr
    digest = sha256_file(elsewhere / "theirs/rows.jsonl")[:16]
    for words in ("data.files=rows.jsonl: rows.jsonl (3", f"SHA-256 {digest}", "model.path=./base: model-00001"):
        assert words in nothing.stderr, nothing.stderr
    base, rows = f"model.path={elsewhere}/theirs/base", f"data.files={elsewhere}/theirs/rows.jsonl"
    path = elsewhere / "theirs/rows.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Count to 5.", b"Count to 6.", 1))
    other = plan(elsewhere, base, rows)
    assert other.returncode == 0 and "examples: input files: 1 changed" in other.stdout, other.stdout + other.stderr
    (elsewhere / "theirs/base/generation_config.json").write_text("{}")
    assert (
        f"{elsewhere}/theirs/base is another base (generation_config.json differ" in plan(elsewhere, base, rows).stdout
    )
    (elsewhere / "got/lineage.json").write_text("[]")
    assert "lineage.json is not one of ours" in plan(elsewhere, base, rows).stderr


def test_something_else_is_not_made_under_its_name(made: Path, tmp_path: Path) -> None:
    theirs = [f"model.path={made}/private/base", f"data.files={made}/private/rows.jsonl", f"store={tmp_path}"]
    folder = str(published(made))
    done = fmtrain("run", "--from", folder, "launch=inline", *theirs, "stages.sft.optim.lr=1e-3")
    assert done.returncode == 2, done.stdout
    assert "this would not make mine again: sft: optim.lr: 2e-05 -> 0.001" in done.stderr, done.stderr
    both = fmtrain("plan", "--from", folder, "recipe=finetune")
    assert both.returncode == 2 and "has a recipe of its own; take recipe=finetune away" in both.stderr


@pytest.mark.parametrize("name", [name for name in options("recipe")])
def test_every_recipe_comes_back_from_what_is_handed_on(name: str, tmp_path: Path) -> None:
    words = [f"recipe={name}", *(["model.path=/x"] if name == "finetune" else []), "store=/secret", "launch=inline"]
    root = compose(words)
    told = asked(root, words)
    assert told["command"] == ["fmtrain", "run", f"recipe={name}", *(["model.path=./x"] if name == "finetune" else [])]
    file = tmp_path / "recipe.yaml"
    file.write_text("# @package _global_\n" + yaml.safe_dump(told["recipe"], sort_keys=False))
    places = [f"{s.key}={','.join(s.values)}" for s in settings(root)]
    assert compose([f"recipe={file}", "store=/secret", "launch=inline", *places]) == root


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["/a/b/c.jsonl"], ["c.jsonl"]),
        (["/a/b/*.jsonl", "/a/c/d.jsonl"], ["b/*.jsonl", "c/d.jsonl"]),
        (["/a/*/c.jsonl"], ["*/c.jsonl"]),
        (["s3://bucket/x.jsonl"], ["s3://bucket/x.jsonl"]),
        (["https://host/x.jsonl?signature=abc", "/a/b.jsonl"], ["https://host/x.jsonl", "b.jsonl"]),
    ],
)
def test_paths_are_told_as_far_as_they_tell_files_apart(files: list[str], told: list[str]) -> None:
    listed = "[" + ",".join(f"'{file}'" for file in files) + "]"
    words = ["recipe=tokens", "data=local", f"data.files={listed}"]
    found = asked(compose(words), words)
    assert found["recipe"]["data"]["files"] == told
    assert not any("/a/" in word or "abc" in word for word in found["command"]), found["command"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=local", "data.files=/secret/lang\\=en/a.jsonl"], ["data=local", "data.files=a.jsonl"]),
        (["data=local", "data.files=/secret/a.jsonl", "data.files=b.jsonl"], ["data=local", "data.files=b.jsonl"]),
        (["model=hf", "model.path=.", "seed=2"], ["model=hf", None, "seed=2"]),
        (["data=hub", "data.path=imdb"], ["data=hub", "data.path=imdb"]),
        (["stages.corpus.data={name: local, files: [/secret/a.jsonl]}"], ["stages.corpus.data={..}"]),
        (["data=hub", "data.path=/secret", "launch.ranks=1", "store=/secret"], ["data=hub", "data.path=./secret"]),
    ],
)
def test_the_command_names_no_place_however_it_was_spelt(
    words: list[str], told: list[str | None], tmp_path: Path
) -> None:
    words = [word.replace("/secret", str(tmp_path / "secret")) for word in words]
    (tmp_path / "secret").mkdir()
    found = asked(compose(["recipe=quickstart", *words]), ["recipe=quickstart", *words])
    said = [
        "fmtrain",
        "run",
        "recipe=quickstart",
        *(f"model.path=./{Path.cwd().name}" if t is None else t for t in told),
    ]
    assert found["command"] == said
    assert str(tmp_path) not in json.dumps(found["recipe"])


def test_what_a_recipe_cannot_lose(tmp_path: Path) -> None:
    """Arguments of datatrove's blocks, and a dollar that is no reference; a reference stays one."""
    words = ["recipe=tokens", "data=local", "data.files=/x/a.jsonl", "data.split='regex:^a\\${b}'", "plugins=[]"]
    words += ["filter.rules=[datatrove:GopherQualityFilter]", "+filter.datatrove.GopherQualityFilter.min_doc_words=10"]
    root = compose(words)
    file = tmp_path / "recipe.yaml"
    file.write_text("# @package _global_\n" + yaml.safe_dump(asked(root, words)["recipe"], sort_keys=False))
    again = compose([f"recipe={file}", "data.files=/x/a.jsonl"])
    assert (again.filter, again.data) == (root.filter, root.data)
    assert again.data.split == "regex:^a${b}"  # type: ignore[attr-defined]


def test_a_strangers_recipe_sends_nothing_of_the_environment(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published(made), tmp_path / "got"))
    text = (folder / "recipe.yaml").read_text()
    for odd, code, words in (
        (text + "launch: {name: slurm, setup: [rm -rf /]}\n", 2, "its recipe says launch, which no published one does"),
        ("a: [", 3, "recipe.yaml cannot be read"),
    ):
        (folder / "recipe.yaml").write_text(odd)
        done = fmtrain("plan", "--from", str(folder))
        assert done.returncode == code and words in done.stderr, done.stderr
    (folder / "recipe.yaml").write_text(text.replace("- rows.jsonl", "- https://127.0.0.1:1/${oc.env:MY_TOKEN}"))
    done = fmtrain("plan", "--from", str(folder), MY_TOKEN="s3cret")
    assert done.returncode == 2 and "what stands in your environment is for you to give: data.files=.." in done.stderr
    assert "s3cret" not in done.stderr
    theirs = [f"model.path={made}/private/base", f"data.files={made}/private/rows.jsonl", f"store={tmp_path}/store"]
    done = fmtrain("plan", "--from", str(folder), *theirs, MY_TOKEN="s3cret")
    assert done.returncode == 0 and "every identity is that of" in done.stdout, done.stdout + done.stderr


def test_continued_pre_training_is_the_same_again(tiny_store: Path, tmp_path: Path) -> None:
    """Whose tokenizer is the base's: of that folder a stage reads some files alone."""
    base = base_of(tiny_store, tmp_path / "base")
    few = [
        "stages.examples=null",
        "stages.sft=null",
        "stages.reference=null",
        "stages.dpo=null",
        "stages.evaluate=null",
    ]
    few += ["stages.pretrain.steps=1", "stages.pretrain.schedule.warmup_steps=0", "launch=inline", "launch.ranks=1"]
    words = ["recipe=quickstart_tiny", "model=hf", f"model.path={base}", f"store={tmp_path}/store", *few]
    done = fmtrain("run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "store/artifacts/published/quickstart_tiny/v0001"
    again = fmtrain("plan", "--from", str(folder), f"model.path={base}", f"store={tmp_path}/other")
    assert again.returncode == 0 and f"every identity is that of {folder}" in again.stdout, again.stdout + again.stderr
