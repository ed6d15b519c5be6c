"""Which stage feeds which: the nearest before unless named, edges order the run, and what cannot be is refused."""

from pathlib import Path

import pytest

from fmtrain.errors import ConfigError
from launch import edges
from launch.compose import compose
from launch.edges import Pin
from launch.graph import build

SFT2 = ["+stage@stages.sft2=sft", "stages.sft2.max_rows=90"]


def fed(*overrides: str) -> dict[str, dict[str, edges.Origin]]:
    """Stage -> role -> what feeds it, in the order of the run."""
    found = edges.resolve(compose(list(overrides)))
    return {name: found.inputs[name] for name in found.at}


def test_an_input_is_the_nearest_stage_before_that_makes_such() -> None:
    found = fed("recipe=quickstart")
    assert found["tokens"] == {"corpus": "corpus", "tokenizer": "tokenizer"}
    assert found["pretrain"] == {"tokens": "tokens", "tokenizer": "tokenizer"}
    assert found["dpo"] == {"examples": "examples", "reference": "reference", "model": "sft"}
    assert found["publish"] == {"model": "dpo", "evaluation": "evaluate"}
    assert list(found["evaluate"])[-3:] == ["model.pretrain", "model.sft", "model.dpo"]
    assert found["evaluate"]["reference.reference"] == "reference"
    assert fed(*SFT2)["sft2"]["model"] == "dpo"  # written last
    assert fed("stages.dpo=null")["publish"]["model"] == "sft"


def test_a_stage_that_is_named_counts_wherever_it_is_written() -> None:
    named = [f"stages.{name}.inputs.model=sft2" for name in ("reference", "dpo")]
    found = fed(*SFT2, "stages.sft2.inputs.model=pretrain", *named)
    order = list(found)
    assert found["sft2"]["model"] == "pretrain" and found["reference"]["model"] == "sft2"
    assert order.index("pretrain") < order.index("sft2") < order.index("reference") < order.index("dpo")
    assert set(order) == set(fed("recipe=quickstart")) | {"sft2"}


def test_several_corpora_and_some_models() -> None:
    more = ["+stage@stages.web=corpus", "stages.tokens.inputs.corpus=[web,corpus]"]
    found = fed(*more, "stages.evaluate.inputs.model=[dpo,pretrain]")
    assert found["tokens"] == {"corpus.0": "web", "corpus.1": "corpus", "tokenizer": "tokenizer"}
    assert {"model.dpo", "model.pretrain"} <= set(found["evaluate"]) and "model.sft" not in found["evaluate"]
    pinned = fed("stages.evaluate.inputs.model=[dpo,old@v3,./base]")["evaluate"]
    assert isinstance(pinned["model.old@v3"], Pin) and pinned["model.base"] == edges.Path("base")


def test_evaluate_takes_every_model_that_does_not_descend_from_it() -> None:
    found = fed(*SFT2, "stages.publish.inputs.model=sft2")
    assert found["evaluate"]["model.sft2"] == "sft2"  # written after it
    order = list(found)
    assert order.index("sft2") < order.index("evaluate") < order.index("publish")


def test_a_version_and_a_folder() -> None:
    found = fed("stages.sft.inputs.model=pretrain@v1")
    assert found["sft"]["model"] == Pin("pretrain@v1", ("model", "published"), "stages.sft.inputs.model", "pretrain")
    assert fed("stages.sft.inputs.model=./here")["sft"]["model"] == edges.Path("here")
    assert fed("stages.sft.inputs.model=./own/er")["sft"]["model"] == edges.Path("own/er")  # a folder in any case
    for name in ("own/er", "own/er@main", "own/er@v1", f"own/er@{'a' * 40}"):
        assert fed(f"stages.sft.inputs.model='{name}'")["sft"]["model"] == edges.Path(name, may_be_hub=True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["stages.sft.inputs.model=pretrian"], "no such stage; did you mean 'pretrain'"),
        (["stages.sft.inputs.model=tokens"], "stages.tokens makes a tokens, and model is a model"),
        (["stages.sft.inputs.model=sft"], "cannot feed itself"),
        (
            ["stages.sft.inputs.model=owner/name/more"],
            r"no name on the hub \(OWNER/NAME@REVISION\); a folder is .*=./DIR",
        ),
        (["stages.sft.inputs.model=[sft,dpo]"], "one is taken"),
        (["stages.tokens.inputs.corpus=./dir"], "a folder is no corpus"),
        (["stages.sft.inputs.tokens=tokens"], "stage sft takes examples, model, not tokens"),
        ([*SFT2, "stages.sft.inputs.model=sft2"], "in a circle: sft -> sft2"),
        (
            ["stages.corpus=null", "stages.tokenizer=null"],
            "stages.tokens needs a corpus, and no stage of this run",
        ),
        (["stages.pretrain=null"], "stages.sft needs a model.* model=hf model.path=OWNER/NAME .* or DIR"),
    ],
)
def test_what_cannot_feed_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fed(*overrides)


def test_what_descends_from_a_stage_that_is_left_out_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some prose\n")
    given = ["data=local", f"data.files={tmp_path}/a.txt", "data.split=paragraphs", *SFT2]
    graph = build(compose(given))
    assert [node.stage for node in graph.nodes] == [
        "corpus", "tokenizer", "tokens", "pretrain", "evaluate", "publish",
    ]  # fmt: skip
    why = "left out, data=local holds no functions to make examples from"
    assert graph.left_out == [f"examples, sft, reference, dpo, sft2: {why}"]
    pinned = build(compose([*given, "stages.sft2.inputs.examples=rows@v1"]))
    assert "sft2" in [node.stage for node in pinned.nodes]  # its rows are named


def test_a_model_of_its_own_is_one_stages_alone(tmp_path: Path) -> None:
    own = [*SFT2, "model@stages.sft2.model=hf", f"stages.sft2.model.path={tmp_path}"]
    found = fed(*own)
    assert found["sft2"]["model"] == edges.Path(str(tmp_path)) and "model" not in found["pretrain"]
    assert compose(own).stages["pretrain"].model is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["+stage@stages.m=masked", "stages.m.steps=30"],
            "stages.m.objective=mlm trains a masked model, and",
        ),
        (["data.heldout_modulus=0"], "stages.evaluate would have nothing to evaluate on"),
        (["data=local", "data@stages.corpus.data=stdlib", "stages.corpus.data.heldout_modulus=0"], "nothing out"),
        (
            ["data@stages.corpus.data=local", "stages.corpus.data.files=a.txt", "stages.examples.inputs.corpus=corpus"],
            "data=local holds no functions",
        ),
        (["model@stages.sft.model=hf", "stages.sft.model.path=/x", "stages.sft.inputs.model=dpo"], "model is a folder"),
    ],
)
def test_what_feeds_a_stage_must_do(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fed(*overrides)


def test_a_corpus_of_its_own_data_decides_what_is_made_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some prose\n")
    words = ["data=local", f"data.files={tmp_path}/a.txt", "data@stages.corpus.data=stdlib"]
    graph = build(compose([*words, "stages.corpus.data.modules=[json]"]))
    assert "dpo" in [node.stage for node in graph.nodes] and not graph.left_out
    jobs = {node.stage: node.job for node in graph.nodes}
    assert jobs["corpus"].data.name == jobs["examples"].data.name == "stdlib"


def test_each_preference_model_is_scored_against_its_own_reference() -> None:
    branch = ["+stage@stages.ref2=reference", "+stage@stages.dpo2=dpo", "stages.dpo2.max_rows=100"]
    found = fed(*SFT2, *branch, "stages.ref2.inputs.model=sft2", "stages.dpo2.inputs.model=sft2")
    assert found["dpo"]["reference"] == "reference" and found["dpo2"]["reference"] == "ref2"
    assert {"reference.reference", "reference.ref2", "model.dpo", "model.dpo2"} <= set(found["evaluate"])


def test_a_reference_that_nobody_wrote_is_implied() -> None:
    found = fed("stages.reference=null")
    assert found["dpo"]["reference"] == "dpo_reference" and found["dpo_reference"]["model"] == "sft"
    order = list(found)
    assert order.index("dpo_reference") < order.index("dpo")
    other = fed("stages.dpo.inputs.model=pretrain")  # the one that is written is of another model
    assert other["dpo"]["reference"] == "dpo_reference" and other["reference"]["model"] == "sft"
    assert other["dpo_reference"] == {"model": "pretrain", "examples": "examples"}


def test_an_input_that_is_null_is_not_named() -> None:
    assert fed("stages.sft.inputs.model=null")["sft"]["model"] == "pretrain"


@pytest.mark.parametrize(
    "overrides",
    [
        ["stages.dpo.inputs.model=sft@v1"],
        ["stages.dpo.inputs.examples=rows@v1"],
        ["stages.dpo.inputs.model=sft@v1", "stages.reference.inputs.model=sft@v1"],
        ["model@stages.dpo.model=hf", "stages.dpo.model.path=dir"],
        ["stages.reference=null", "+stage@stages.dpo2=dpo", "stages.dpo2.inputs.model=sft", "stages.dpo2.max_rows=400"],
    ],
)
def test_a_reference_is_found_or_implied_whatever_feeds_it(overrides: list[str]) -> None:
    found = fed(*overrides)
    reference = found[str(found["dpo"]["reference"])]
    assert (reference["model"], reference["examples"]) == (found["dpo"]["model"], found["dpo"]["examples"])
    if "dpo2" in found:
        assert found["dpo2"]["reference"] == found["dpo"]["reference"] == "dpo_reference"  # one for both


def test_an_implied_stage_takes_a_name_of_its_own() -> None:
    own = ["stages.reference=null", "+stage@stages.dpo_reference=corpus"]
    found = edges.resolve(compose(own))
    assert found.at["dpo_reference"].cfg.kind == "corpus" and found.inputs["dpo"]["reference"] == "dpo_reference_"


def test_positions_are_those_of_the_model_that_feeds_a_stage() -> None:
    own = ["model@stages.pretrain.model=llama_tiny", "stages.pretrain.model.max_position_embeddings=2048"]
    fed(*own, "stages.sft.sequence_length=1024", "stages.reference=null", "stages.dpo=null")
    own[1] = "stages.pretrain.model.max_position_embeddings=256"
    with pytest.raises(ConfigError, match=r"stages\.sft\.sequence_length=384 is above stages\.pretrain\.model\."):
        fed(*own)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["stages.evaluate.inputs.model=[./a/m,./b/m]"], "two are called m"),
        (["stages.tokens.inputs.corpus=[corpus,corpus]"], "two are called corpus"),
        (["stages.reference.artifact=x", "+stage@stages.r2=reference", "stages.r2.artifact=x"], "is the name of"),
        (["stage@stages.dpo=dpo"], "stages.dpo stands already"),
    ],
)
def test_two_of_one_name_are_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fed(*overrides)
