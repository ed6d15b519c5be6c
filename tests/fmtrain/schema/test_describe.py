"""The JSON Schema says what `load` says: every recipe passes, every limit broken by one does not."""

import dataclasses
from typing import Any

import jsonschema
import pytest
from omegaconf import OmegaConf

from fmtrain.errors import ConfigError
from fmtrain.schema.describe import comments, json_schema, settings, told
from fmtrain.schema.load import dump, load
from fmtrain.schema.options import OPTIONS
from fmtrain.schema.root import Root
from fmtrain.schema.training import AdamW, Zero
from launch.cli import main
from launch.compose import compose
from launch.recipes import options
from tests.conftest import REPOSITORY
from tests.fmtrain.schema.test_limits import LIMITED, beyond, leaf

FOLDER = {"finetune": ["model.path=/x"]}


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    made = json_schema(Root)
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize("recipe", options("recipe"))
def test_every_recipe_passes(recipe: str, schema: jsonschema.Draft202012Validator) -> None:
    whole = dump(compose([f"recipe={recipe}", *FOLDER.get(recipe, [])]))
    assert [error.message for error in schema.iter_errors(whole)] == []


@pytest.mark.parametrize("folder", ["conf/recipe", "docs/recipes"])
def test_every_recipe_passes_as_it_is_written(folder: str, schema: jsonschema.Draft202012Validator) -> None:
    for path in (REPOSITORY / folder).glob("*.yaml"):
        assert [error.message for error in schema.iter_errors(OmegaConf.to_container(OmegaConf.load(path)))] == [], path


def test_every_setting_stands_on_the_page() -> None:
    page = (REPOSITORY / "docs/settings.md").read_text()
    for base, found in OPTIONS.items():
        for name, cls in found.items():
            section = page.partition(f"**{cls.__name__}**")[2].partition("**")[0]
            missing = [s.key for s in settings(cls) if f"`{s.key}`" not in section]
            assert not missing, (base, name, missing)


def test_a_written_recipe_passes_and_a_misspelt_one_does_not(schema: jsonschema.Draft202012Validator) -> None:
    mine: dict[str, Any] = {"stages": {"sft": {"kind": "train", "objective": "sft", "epochs": 1}}, "filter": "code"}
    assert schema.is_valid(mine) and schema.is_valid({**mine, "launch": {"name": "inline", "ranks": 2}})
    for wrong in ({"epocs": 1}, {"kind": "trian"}, {"objective": "sfd"}, {"optim": {"name": "adamw", "lr": -1}}):
        assert not schema.is_valid({"stages": {"sft": {**mine["stages"]["sft"], **wrong}}}), wrong


@pytest.mark.parametrize(
    ("cls", "name", "hint"), LIMITED, ids=lambda value: getattr(value, "__name__", str(value)[:20])
)
def test_a_limit_broken_by_one_breaks_the_schema(cls: type, name: str, hint: Any) -> None:
    made = jsonschema.Draft202012Validator(json_schema(cls))
    kind, limits = leaf(hint).__args__[0], leaf(hint).__metadata__[0]
    for value in beyond(kind, limits):
        assert not made.is_valid({name: value}), (name, value)
        with pytest.raises(ConfigError):
            load(cls, {name: value})


def test_a_setting_is_told_with_its_limits_and_its_comment() -> None:
    found = {s.key: s for s in settings(AdamW)}
    assert (found["lr"].default, found["lr"].kind) == ("0.001", "a number above 0 and at most 10")
    assert comments(AdamW)["max_grad_norm"] == "0: gradients are not clipped"
    assert comments(Zero)["stage"].startswith("parted over the ranks")
    assert told(list[str] | None) == "list of text, or null"
    assert [f.name for f in dataclasses.fields(AdamW)] == list(found)


def test_the_page_of_settings_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", "--markdown"]) == 0
    page = (REPOSITORY / "docs/settings.md").read_text()
    assert page == capsys.readouterr().out, "fmtrain options --markdown > docs/settings.md"


@pytest.mark.parametrize("name", ["", "train", "dedup", "recipe", "stage", "objective", "dpo", "tokenizer"])
def test_what_can_be_set_is_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", *([name] if name else [])]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 4


def test_an_unknown_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", "dedupe"]) == 2
    assert "did you mean 'dedup'" in capsys.readouterr().err
    assert main(["schema"]) == 0
