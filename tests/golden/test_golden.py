"""Every kind of stage makes what it made, or its revision says otherwise; and a changed constant is seen, in each."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fmtrain.kinds.objectives import Objective
from fmtrain.kinds.table import KINDS
from fmtrain.schema.options import OPTIONS
from tests.golden import golden, run
from tests.golden.forking import Edit, Forks
from tests.golden.golden import Entry, Golden, Word
from tests.golden.outputs import Lines, differences
from tests.golden.run import Made

# Stage of the golden run -> what a careless hand might do to the source behind it.
EDITS = {
    "text": Edit("data_pipelines.sources.stdlib", '"PSF-2.0"', '"PSF"'),
    "code": Edit("data_pipelines.filters.code", "MARKER_LINES = 5", "MARKER_LINES = 0"),
    "prose": Edit("data_pipelines.filters.c4", 'JAVASCRIPT = "lorem ipsum"', 'JAVASCRIPT = "lorem gypsum"'),
    "bpe": Edit("data_pipelines.vocabulary", '"mask", "cls"', '"cls", "mask"'),
    "tokens": Edit("data_pipelines.token_shards", 'dtype="<u8"', 'dtype="<u4"'),
    "examples": Edit("data_pipelines.corruptions", "SIMILAR_LENGTH = 0.2", "SIMILAR_LENGTH = 0.4"),
    "clm": Edit("fmtrain.objectives.clm", "tokens[:, 1:].numel()", "tokens.numel()"),
    "mlm": Edit("fmtrain.objectives.mlm", "_MASKED, _RANDOM = 0.8, 0.1", "_MASKED, _RANDOM = 0.7, 0.1"),
    "sft": Edit("fmtrain.train.schedule", "* 0.5 *", "* 0.4 *"),
    "dpo": Edit("fmtrain.objectives.dpo", "-F.logsigmoid(margin)", "-F.logsigmoid(0.9 * margin)"),
    "reference": Edit("fmtrain.objectives.logprob", "-F.cross_entropy(logits[i", "-0.999 * F.cross_entropy(logits[i"),
    "evaluate_base": Edit("fmtrain.evaluate.evaluate", "TEMPERATURE = 0.8", "TEMPERATURE = 2.0"),
    "publish": Edit("fmtrain.publish.card", "The Python standard library, under", "Some library, under"),
}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with run.forks() as found:
        yield found


@pytest.fixture(scope="module")
def made(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return run.make(tmp_path_factory.mktemp("golden"), forks)


@pytest.fixture(scope="module")
def now(made: dict[str, Made]) -> Golden:
    return golden.entries(made.values())


@pytest.mark.parametrize("stage", golden.read())
def test_a_stage_makes_what_it_made(stage: str, now: Golden) -> None:
    assert stage in now, f"the recipes beside this test have no stage {stage} any more: renew with `{golden.COMMAND}`"
    word, text = golden.judge(golden.read(), now, stage)
    if word in (Word.FOLLOWS, Word.LIBRARIES):
        pytest.skip(text)
    assert word is Word.SAME, text


def test_every_kind_and_objective_has_its_golden_stage(made: dict[str, Made]) -> None:
    """Of ours: a plug-in's are its own affair."""
    kinds = {name for name, kind in KINDS.items() if type(kind).__module__.startswith("fmtrain.")}
    objectives = {name for name, cls in OPTIONS[Objective].items() if cls.__module__.startswith("fmtrain.")}
    found = {stage: one.manifest.payload for stage, one in made.items()}
    learnt = {s: p["job"]["stage"]["objective"]["name"] for s, p in found.items() if p["kind"] == "train"}
    assert {payload["kind"] for payload in found.values()} == set(golden.UNDER) == kinds
    assert set(learnt.values()) == objectives
    assert {found[stage]["kind"] for stage in EDITS} == kinds
    assert {learnt[stage] for stage in EDITS if stage in learnt} == objectives
    assert made.keys() == golden.read().keys(), f"renew with `{golden.COMMAND}`"


@pytest.mark.parametrize("stage", EDITS)
def test_a_changed_constant_shows(stage: str, made: dict[str, Made], now: Golden, forks: Forks, tmp_path: Path) -> None:
    """The real worker, on the folder that it was planned in, of an edited source."""
    edited = run.again(made[stage], tmp_path, forks, EDITS[stage])
    found = golden.entries([*(one for one in made.values() if one.stage != stage), edited])
    word, text = golden.judge(now, found, stage)
    assert word is Word.CHANGED
    assert f"stage {stage}" in text and "raise the revision in fmtrain/kinds/" in text


def entry(**changes: Any) -> Entry:
    fields = {"kind": "tokens", "revision": 3, "under": {"tokenizers": "1"}, "given": "g", "inputs": ["before"]}
    return Entry(**{**fields, "outputs": {"index.json": "a", "loss": [1.0]}, **changes})


BEFORE = entry(kind="corpus", inputs=[])
OTHER: Lines = {"index.json": "b", "loss": [1.0]}


@pytest.mark.parametrize(
    ("before", "new", "word", "said"),
    [
        (BEFORE, entry(), Word.SAME, ""),
        (BEFORE, entry(outputs={"index.json": "a", "loss": [1.0001]}), Word.SAME, ""),
        (BEFORE, entry(under={"tokenizers": "2"}, given="h"), Word.SAME, ""),
        (BEFORE, entry(outputs=OTHER), Word.CHANGED, "raise the revision in fmtrain/kinds/tokens.py"),
        (BEFORE, entry(outputs={"index.json": "a", "loss": [1.001]}), Word.CHANGED, "loss: 1.0 -> 1.001"),
        (BEFORE, entry(outputs={"index.json": "a"}), Word.CHANGED, "loss: 1.0 -> none"),
        (BEFORE, entry(outputs=OTHER, revision=4), Word.RENEW, "`make golden`"),
        (BEFORE, entry(revision=4), Word.RENEW, "written under 3"),
        (BEFORE, entry(outputs=OTHER, given="h"), Word.RENEW, "other settings"),
        (BEFORE, entry(outputs=OTHER, under={"tokenizers": "2"}), Word.LIBRARIES, "tokenizers 1 -> 2"),
        (replace(BEFORE, revision=4, outputs=OTHER), entry(outputs=OTHER), Word.FOLLOWS, "follows before"),
        (replace(BEFORE, revision=4), entry(outputs=OTHER), Word.CHANGED, "raise the revision"),
    ],
)
def test_what_is_said_of_a_difference(before: Entry, new: Entry, word: Word, said: str) -> None:
    found, text = golden.judge({"before": BEFORE, "it": entry()}, {"before": before, "it": new}, "it")
    assert (found, said in text) == (word, True), text


def test_nothing_is_written_over_in_silence(tmp_path: Path) -> None:
    was = {"before": BEFORE, "it": entry()}
    for new, libraries, refused in (
        (entry(outputs=OTHER), True, True),
        (entry(outputs=OTHER, under={"tokenizers": "2"}), False, True),
        (entry(outputs=OTHER, under={"tokenizers": "2"}), True, False),
        (entry(outputs=OTHER, revision=4), False, False),
    ):
        found, said = golden.renewed(was, {"before": BEFORE, "it": new}, libraries)
        assert (found is None) is refused and len(said) == 1 and said[0].startswith("refused") is refused
    assert found is not None
    golden.write(found, tmp_path / "golden.yaml")
    assert golden.read(tmp_path / "golden.yaml") == found
    close = entry(outputs={"index.json": "a", "loss": [1.0001]}, given="h")
    kept, _ = golden.renewed(was, {"before": BEFORE, "it": close}, False)
    assert kept == {"before": BEFORE, "it": entry(given="h")}


def test_of_counts_those_that_differ_are_told() -> None:
    was: Lines = {"counts": '{"read": 3, "kept": 2}'}
    assert differences(was, {"counts": '{"read": 3, "kept": 1, "gone": 1}'}) == ["counts: kept 2 -> 1, gone None -> 1"]
