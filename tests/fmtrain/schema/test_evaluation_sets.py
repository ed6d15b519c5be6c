"""How an evaluation set is written."""

import re

import pytest

from fmtrain.errors import ConfigError
from fmtrain.schema.evaluation_sets import NAMED, EvaluationSet, parse


def test_what_an_entry_stands_for() -> None:
    assert parse("gsm8k", "k") == EvaluationSet("openai/gsm8k", None, "main", "test")
    assert parse("a/b@v1.0:test", "k") == EvaluationSet("a/b", "v1.0", None, "test")
    assert parse("~/evals/a@b:c:train", "k") == EvaluationSet("~/evals/a@b", None, "c", "train")
    assert parse("./evals/mine:test", "k").label == "mine:test"
    assert parse("gsm8k@v1", "k") == EvaluationSet("openai/gsm8k", "v1", "main", "test")
    for entry in [*NAMED, "a/b@0123:c:d", "/data/x:test"]:
        found = parse(entry, "k")
        assert parse(str(found), "k") == found and "@" not in found.label


@pytest.mark.parametrize(
    "entry", ["", "gms8k", "a/b", "a/b:", "a/b::test", "a/b:c:d:e", "a b/c:test", "a/b@:test", "./x", "a/b:test[:5%]"]
)
def test_what_names_no_set(entry: str) -> None:
    with pytest.raises(ConfigError, match=rf"k: '{re.escape(entry)}' names no evaluation set;.* OWNER/NAME:SPLIT"):
        parse(entry, "k")


def test_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean gsm8k?"):
        parse("gms8k", "k")
