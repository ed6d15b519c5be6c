"""Recipes of one's own: a file, a folder of options, stages added on the command line."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmtrain.errors import ConfigError
from fmtrain.schema import plugins
from fmtrain.schema.options import OPTIONS
from fmtrain.schema.rules import Filter
from launch.cli import main
from launch.compose import compose
from launch.recipes import comment, option, options
from launch.submit import _kept, _kept_options

MINE = """# My own.
defaults:
  - quickstart_tiny
  - _self_

stages:
  sft: {optim: {lr: 3e-4}}
  again: {kind: train, objective: sft, epochs: 2, optim: adamw, max_rows: 20}
"""


def test_a_recipe_in_a_file_may_extend_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    root = compose([f"recipe={tmp_path}/mine.yaml", "stages.again.optim.lr=1e-5"])
    again, sft = root.stages["again"], root.stages["sft"]
    assert (again.optim.lr, again.objective.name, again.epochs) == (1e-5, "sft", 2.0)  # type: ignore[union-attr]
    assert (sft.optim.lr, sft.steps) == (3e-4, 6)  # type: ignore[union-attr]
    assert list(root.stages)[-1] == "again" and root.recipe == "mine"


def test_a_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    compose([f"recipe={path}"])
    path.write_text(MINE.replace("epochs: 2", "epochs: 3"))
    assert compose([f"recipe={path}"]).stages["again"].epochs == 3.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("epochs: 2", "epocs: 2"), "there is no setting 'stages.again.epocs'; did you mean 'stages.again.epochs'"),
        (("kind: train", "kind: trian"), "stages.again.kind: 'trian' is not one of .* did you mean 'train'"),
        (("again: {kind: train, ", "sf: {"), "stages.sf has no kind; did you mean stages.sft[?] Or add one"),
        (("optim: adamw", "optim: adamx"), "stages.again.optim.name: 'adamx' is not one of"),
        (("kind: train, ", ""), "stages.again has no kind; add one: kind: corpus | "),
        (("  - quickstart_tiny", "  - quickstrt"), "quickstrt"),
        (("stages:", "stages: ["), "mine"),
        (("again:", "a.b:"), "stages.a.b: expected letters"),
        (("again:", "1:"), "the key stages.1 is no name"),
        (("kind: train,", "kind: [train],"), "stages.again.kind: .* is not one of"),
        (("stages:", "stages: text\nother:"), "stages is no map of names to stages"),
        (("defaults:", "defaults: quickstart\nother:"), "mine.yaml: "),
        (("  - quickstart_tiny", "  - given"), "mine.yaml: "),
    ],
)
def test_a_mistake_in_a_file_is_named(change: tuple[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE.replace(*change))
    with pytest.raises(ConfigError, match=says):
        compose([f"recipe={tmp_path}/mine.yaml"])


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"recipe=\./nowhere\.yaml: No such file .* one of corpus_code"):
        compose(["recipe=./nowhere.yaml"])


def test_a_folder_of_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "gentle.yaml").write_text(
        "# Little by little.\nkind: train\nobjective: {name: sft}\nepochs: 1\n"
    )
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(f"# @package _global_\n{MINE}recipe: mine\n")
    root = compose(["recipe=mine", "+stage@stages.last=gentle", "stages.last.max_rows=9"], tmp_path)
    assert root.recipe == "mine" and root.stages["last"].epochs == 1.0  # type: ignore[union-attr]
    assert "gentle" in options("stage", tmp_path) and "gentle" not in options("stage")
    assert comment(option("stage", "gentle", tmp_path)) == "Little by little."
    assert main(["recipes", f"--config-dir={tmp_path}"]) == 0
    assert "mine" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--config-dir="):
        compose([], tmp_path / "nowhere")


def test_stages_are_added_and_changed_from_the_command_line() -> None:
    root = compose(["+stage@stages.more=sft", "stages.more.inputs.model=dpo", "zero@stages.more.zero=stage3"])
    more = root.stages["more"]
    assert more is not None and more.inputs == {"model": ["dpo"]} and more.zero.stage == 3  # type: ignore[attr-defined]
    whole = compose(["+stages.more={kind: train, objective: sft, epochs: 2}"]).stages["more"]
    assert whole.epochs == 2.0 and whole.objective.name == "sft"  # type: ignore[union-attr]
    part = compose(["stages.sft={optim: {lr: 3e-5}}"]).stages["sft"].optim  # type: ignore[union-attr]
    assert (part.lr, part.weight_decay) == (3e-5, 0.0)
    kept = compose(["schedule@stages.sft.schedule=constant"]).stages["sft"].schedule  # type: ignore[union-attr]
    assert (kept.name, kept.warmup_steps) == ("constant", 5)
    with pytest.raises(ConfigError, match=r"stages\.nowhere is not part of recipe=quickstart"):
        compose(["zero@stages.nowhere.zero=stage3"])


def test_what_is_composed_can_be_printed_and_given_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "recipe=quickstart_tiny", "seed=7", "--cfg", "job"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["seed"] == 7
    (tmp_path / "printed.yaml").write_text(printed)
    assert compose([f"recipe={tmp_path}/printed.yaml"]) == compose(["recipe=quickstart_tiny", "seed=7"])


def test_an_option_by_its_name_is_the_whole_option(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - corpus_code\n  - _self_\nfilter: gopher\ndedup: {name: web, rows: 4}\n"
        "stages:\n  more: {kind: corpus, filter: code, dedup: {name: exact}}\n"
    )
    root = compose([f"recipe={tmp_path}/mine.yaml"])
    more = root.stages["more"]
    assert root.filter.rules == ["gopher_repetition", "gopher_quality"] and more.filter.rules == ["code"]  # type: ignore[union-attr]
    assert (root.dedup.steps[-1], root.dedup.rows, more.dedup.steps) == ("paragraphs", 4, ["exact"])  # type: ignore[union-attr]


@pytest.mark.parametrize("group", ["model={name: hf, path: /x}", "tokenizer={name: wordpiece, alphabet: 9}"])
def test_another_option_of_a_group_leaves_nothing_of_the_usual_one(group: str, tmp_path: Path) -> None:
    name, _, value = group.partition("=")
    (tmp_path / "mine.yaml").write_text(f"defaults:\n  - finetune\n  - _self_\n{name}: {value}\n")
    root = compose([f"recipe={tmp_path}/mine.yaml", *(["model.path=/x"] if name == "tokenizer" else [])])
    found = getattr(root, name)
    assert (found.name, getattr(found, "alphabet", 9), getattr(found, "vocab_size", 4096)) == (
        "hf" if name == "model" else "wordpiece", 9, 4096,
    )  # fmt: skip


def test_a_secret_in_a_recipe_is_shown_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_SECRET", "abcdefghijkl")
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - corpus_web\n  - _self_\ndata: {files: ['${ oc.env:MY_SECRET}/x.jsonl']}\n"
    )
    assert main(["plan", f"recipe={tmp_path}/mine.yaml", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "abcdefghijkl" not in shown and "oc.env:MY_SECRET" in shown


def test_a_recipe_names_its_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_recipe.py").write_text(
        "import dataclasses\n@dataclasses.dataclass\nclass Seen:\n    least: int = 1\n"
        "def register(registry):\n    registry.rule('seen', Seen, lambda settings: None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(OPTIONS, Filter, dict(OPTIONS[Filter]))  # what it registers goes with the test
    monkeypatch.setattr(plugins, "_done", set())
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - corpus_code\n  - _self_\nplugins: [of_a_recipe]\nfilter: {rules: [seen], seen: {least: 3}}\n"
    )
    assert compose([f"recipe={tmp_path}/mine.yaml"]).filter.seen.least == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["recipe=tokens", "recipe=quickstart"], "chosen twice"),
        (["filter@filter=gopher"], "chosen for the whole run it is filter=gopher"),
        (["+stages.m={kind: '${'}"], "^[^\n]*$"),
        (["recipe=finetune", "model.path=/x", "data.heldout_modulus=1"], "data.heldout_modulus=1 sets every document"),
        (["recipe@foo=quickstart"], "chosen for the whole run it is recipe=quickstart"),
    ],
)
def test_odd_choices_are_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compose(overrides)


def test_a_job_of_a_queue_keeps_the_recipe_that_was_planned(tmp_path: Path) -> None:
    (tmp_path / "it's mine.yaml").write_text(MINE)
    (tmp_path / "run").mkdir()
    given = [f'recipe="{tmp_path}/it\'s mine.yaml"', "seed=3"]
    kept = _kept(given, tmp_path / "run")
    (tmp_path / "it's mine.yaml").write_text("recipe: another\n")
    root = compose(kept)
    assert root.stages["again"].epochs == 2.0 and root.recipe == "it's mine"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "rules"),
    [
        (["recipe=corpus_code", "filter=gopher"], ["gopher_repetition", "gopher_quality"]),
        (["recipe={mine}"], ["code", "pii"]),  # those of the recipe that it extends
        (["recipe={mine}", "filter=auto"], ["gopher_repetition", "gopher_quality"]),  # those of its data
        (["recipe={mine}", "filter=code"], ["code"]),
        (["recipe={mine}", "filter.rules=[length]"], ["length"]),
    ],
)
def test_the_command_line_counts_before_the_recipe(overrides: list[str], rules: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - corpus_code\n  - _self_\ndata: {name: local, files: [a.txt]}\nmodel: {name: hf, path: /x}\n"
    )
    given = [word.format(mine=tmp_path / "mine.yaml") for word in overrides]
    assert compose(given).filter.rules == rules
    if "{mine}" in overrides[0]:
        assert compose([*given, "model=llama_tiny"]).model.name == "llama"


def test_a_recipe_of_a_folder_is_as_one_of_a_file(tmp_path: Path) -> None:
    body = (
        "defaults:\n  - quickstart_tiny\n  - _self_\nrecipe: mine\ndedup: {name: exact}\ntokenizer: {name: unigram}\n"
    )
    (tmp_path / "recipe").mkdir()
    for name in ("recipe/mine.yaml", "mine.yaml"):
        (tmp_path / name).write_text(f"# @package _global_\n{body}")
    assert compose(["recipe=mine"], tmp_path) == compose([f"recipe={tmp_path}/mine.yaml"])


def test_another_option_by_value_leaves_nothing_of_the_one_before() -> None:
    root = compose(["stages.sft.schedule={name: constant}", "stages.corpus.filter={name: gopher}"])
    assert root.stages["sft"].schedule.name == "constant"  # type: ignore[union-attr]
    assert root.stages["corpus"].filter.rules == ["gopher_repetition", "gopher_quality"]  # type: ignore[union-attr]
    added = compose(["+stages.more={kind: train, objective: sft, epochs: 2}", "stages.more.epochs=3"]).stages["more"]
    assert added.epochs == 3.0  # type: ignore[union-attr]
    own = compose(["data@stages.corpus.data=local", "stages.corpus.data.files=a.txt", "stages.examples=null",
                   "stages.sft=null", "stages.reference=null", "stages.dpo=null"]).stages["corpus"]  # fmt: skip
    assert own.filter.name == "gopher"  # type: ignore[union-attr]


GOPHER = ("gopher", ["gopher_repetition", "gopher_quality"])


@pytest.mark.parametrize(
    ("overrides", "filters"),
    [
        ([], [("code", ["code"]), None, GOPHER]),
        (["data=local"], [GOPHER, None, GOPHER]),
        (["data=local", "filter=auto"], [GOPHER, None, GOPHER]),
        (["data=local", "filter.rules=[length]"], [("gopher", ["length"]), None, GOPHER]),
        (["filter=none"], [("none", []), None, None]),  # what was chosen holds wherever nothing else was
        (["filter=none", "filter@stages.own.filter=auto"], [("none", []), None, GOPHER]),
        (["filter=none", "filter@stages.plain.filter=auto"], [("none", []), ("code", ["code"]), None]),
        (["data@stages.plain.data=local"], [("code", ["code"]), GOPHER, GOPHER]),
        (["stages.plain.data={name: local, files: [a]}"], [("code", ["code"]), GOPHER, GOPHER]),
        (["stages.own.filter={name: auto, rules: [pii]}"], [("code", ["code"]), None, ("gopher", ["pii"])]),
        (["stages.own.data={name: stdlib}"], [("code", ["code"]), None, ("code", ["code"])]),
        (["stages.own.filter.rules=[length]"], [("code", ["code"]), None, ("gopher", ["length"])]),
    ],
)
def test_auto_follows_the_data(overrides: list[str], filters: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "stages:\n  plain: {kind: corpus}\n  own: {kind: corpus, data: {name: local, files: [a.txt]}}\n"
    )
    root = compose([f"recipe={tmp_path}/mine.yaml", *overrides])
    found = [root.filter, *(root.stages[name].filter for name in ("plain", "own"))]
    assert [one and (one.name, one.rules) for one in found] == filters


def test_a_value_beside_auto_stays(tmp_path: Path) -> None:
    (tmp_path / "filter").mkdir()
    (tmp_path / "filter" / "gopher.yaml").write_text(
        "name: gopher\nrules: [gopher_quality, length]\nlength: {min_chars: 3}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "defaults: [tokens, _self_]\ndata: local\n"
        "filter: {length: {min_words: 2}, gopher_quality: {min_stop_words: 1}}\n"
    )
    found = compose([f"recipe={tmp_path}/mine.yaml", "filter.length.max_words=9"], tmp_path).filter
    assert vars(found.length) == {"min_chars": 3, "max_chars": 0, "min_words": 2, "max_words": 9}
    assert (found.rules, found.gopher_quality.min_stop_words) == (["gopher_quality", "length"], 1)
    with pytest.raises(ConfigError, match=r"stages\.nowhere is not part of recipe=quickstart"):
        compose(["stages.nowhere.filter={name: auto}"])
    with pytest.raises(ConfigError, match=r"^[^\n]*filter[^\n]*$"):
        compose(["stages.corpus.filter={name: auto, rules: '${'}"])


def test_a_plan_says_what_auto_stands_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    given = ["plan", "recipe=tokens", f"store={tmp_path}", "data=local", f"data.files={tmp_path}/a.txt"]
    given += ["data.heldout_modulus=0"]
    assert main(given) == 0
    assert "corpus: filter=gopher, as data=local has it (gopher_repetition, gopher_quality)" in capsys.readouterr().out
    code = ["plan", "recipe=corpus_code", f"store={tmp_path}"]  # which chooses itself, more than stdlib has
    for words in ([*given, "filter=none"], [*given, "filter.rules=[unicode]"], code):
        assert main(words) == 0
        assert "filter=" not in capsys.readouterr().out


def test_what_a_recipes_plug_ins_refer_to_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [corpus_code]\nplugins: ['${oc.env:NOT_SET_ANYWHERE}']\n")
    with pytest.raises(ConfigError, match="plugins.*NOT_SET_ANYWHERE"):
        compose([f"recipe={tmp_path}/mine.yaml"])


def test_a_recipe_that_is_a_file_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is read it would leave a copy, which may hold a secret."""
    (tmp_path / "mine.yaml").write_text(MINE + "# never composed before\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert compose([f"recipe={tmp_path}/mine.yaml"]).stages["again"]


def test_a_recipe_extends_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("defaults: [corpus_code]\nseed: 5\ndedup: {threshold: 0.7}\n")
    (tmp_path / "middle.yaml").write_text("defaults: [base, _self_]\ndedup: {threshold: 0.8}\n")
    (tmp_path / "mine.yaml").write_text("defaults:\n  - middle\n  - _self_\nstages: {corpus: {shard_mb: 7}}\n")
    (tmp_path / "run").mkdir()
    for given in ([f"recipe={tmp_path}/mine.yaml"], _kept([f"recipe={tmp_path}/mine.yaml"], tmp_path / "run")):
        root = compose(given)
        assert (root.recipe, root.seed, root.dedup.threshold) == ("mine", 5, 0.8)
        assert root.stages["corpus"].shard_mb == 7  # type: ignore[union-attr]
        (tmp_path / "base.yaml").unlink(missing_ok=True)  # the job has its own
    with pytest.raises(ConfigError, match="recipe=base, and there is no such option"):
        compose([f"recipe={tmp_path}/middle.yaml"])


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_file_that_is_extended_says_what_it_says_alone(tmp_path: Path) -> None:
    """Who names an option says all of it, in whichever file; a later file may change a setting of that."""
    written(
        tmp_path,
        base="defaults: [corpus_code, _self_]\ndata: {name: local, files: [a.txt]}\n",
        other="defaults: [base, _self_]\nseed: 4\n",
        more="defaults: [base, _self_]\ndata: {heldout_modulus: 3}\n",
        given="defaults: [quickstart_tiny, _self_]\nmodel: {name: hf, path: /x}\nseed: 7\n",
        mine="defaults: [given, _self_]\nseed: 9\n",
    )
    base, other, more = (compose([f"recipe={tmp_path}/{name}.yaml"]) for name in ("base", "other", "more"))
    assert base.data == other.data and (base.data.heldout_modulus, more.data.heldout_modulus) == (20, 3)
    mine = compose([f"recipe={tmp_path}/mine.yaml"])
    assert (mine.recipe, mine.seed, mine.model.name) == ("mine", 9, "hf")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("defaults: [/quickstart_tiny, _self_]\n", "mine.yaml: "),
        ("defaults: [sub/base, _self_]\n", "mine.yaml: .*sub/base"),
        ("seed: 3\n", "recipe=mine: it names no stages; extend one of ours"),
    ],
)
def test_odd_files_are_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        compose([f"recipe={written(tmp_path, mine=text)}/mine.yaml"])
    with pytest.raises(ConfigError, match="recipe=~nosuch-user/x.yaml: .*whole path"):
        compose(["recipe='~nosuch-user/x.yaml'"])


def test_a_filter_chosen_on_the_line_leaves_what_it_does_not_apply(tmp_path: Path) -> None:
    text = "defaults: [corpus_code]\nfilter: {name: gopher, gopher_quality: {min_stop_words: 1}}\n"
    (tmp_path / "filter").mkdir()
    written(tmp_path, mine=text)
    written(tmp_path / "filter", own="name: none\nrules: [length]\nlength: {min_words: '${seed}'}\n")
    mine = f"recipe={tmp_path}/mine.yaml"
    assert compose([mine]).filter.gopher_quality.min_stop_words == 1
    assert compose([mine, "filter=none"]).filter.rules == []
    assert compose([mine, "filter=fineweb"]).filter.gopher_quality.min_stop_words == 1  # which it applies too
    assert compose([mine, "filter=own", "seed=6"], tmp_path).filter.length.min_words == 6


def test_a_job_of_a_queue_keeps_the_options_of_a_folder(tmp_path: Path) -> None:
    for group in ("stage", "notes"):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "gentle.yaml").write_text("kind: train\nobjective: {name: sft}\nepochs: 1\n")
    kept = _kept_options(tmp_path / "own", tmp_path / "run")
    (tmp_path / "own" / "stage" / "gentle.yaml").unlink()
    assert options("stage", kept) == sorted([*options("stage"), "gentle"])
    assert [p.name for p in kept.iterdir()] == ["stage"]  # nothing that is no option
