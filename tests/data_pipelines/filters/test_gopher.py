"""The Gopher filter is datatrove's, with our splitter and the configuration's limits."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter

from data_pipelines import filters
from data_pipelines.words import WORDS
from fmtrain.schema.corpus import GopherFilter, NoFilter

PROSE = "The people of the town have to be with the river, and that is the end of the story they tell. " * 10


def verdict(text: str, config: GopherFilter) -> str:
    (step,) = filters.make(config)
    result = step.filter(Document(text=text, id="x"))
    return "" if result is True else str(result[1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        (PROSE[:60], "gopher_short_doc"),
        ("".join(f"- {line}\n" for line in PROSE.split(".") if line.strip()), "gopher_too_many_bullets"),
        (PROSE.replace("the", "#"), "gopher_too_many_hashes"),
        ("banana orange melon cherry lemon grape " * 20, "gopher_enough_stop_words"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    assert verdict(text, GopherFilter()) == reason


def test_limits_are_the_configuration_s() -> None:
    assert verdict(PROSE[:60], GopherFilter(min_doc_words=5)) == ""
    assert verdict(PROSE, GopherFilter(max_doc_words=60)) == "gopher_long_doc"


def test_none_keeps_all() -> None:
    assert filters.make(NoFilter()) == []


def test_agrees_with_datatrove_s_defaults(shared_data: Path) -> None:
    ours, theirs = filters.make(GopherFilter())[0], GopherQualityFilter(language=WORDS)
    with gzip.open(shared_data / "pretrain" / "peps.jsonl.gz", "rt") as f:
        for line in itertools.islice(f, 40):
            doc = Document(text=json.loads(line)["text"][:20_000], id="x")
            assert ours.filter(doc) == theirs.filter(doc)
