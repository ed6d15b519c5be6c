"""FineWeb's rules decide as datatrove's filter does, and say by how much."""

import dataclasses
from pathlib import Path

import pytest
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.utils.text import TERMINAL_PUNCTUATION
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.fineweb import FineWeb
from fmtrain.schema import rules
from tests.data_pipelines.datatrove_words import OUR_WORDS
from tests.data_pipelines.filters.peer import agree, made_texts, real_texts

REASONS = {
    "empty": "empty",
    "line_punct_ratio": "line_punct",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "char_duplicates",
    "list_ratio": "new_lines",
}
LINE = "A line that is long enough, and that ends as it should"


def reason(theirs: str) -> str:
    return f"fineweb.{REASONS[theirs]}"


def peer(config: rules.FineWeb) -> FineWebQualityFilter:
    limits = {name: value for name, value in dataclasses.asdict(config).items() if name != "view"}
    return FineWebQualityFilter(**limits, language=OUR_WORDS)


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        (f"{LINE} today.\n{LINE} tomorrow.", None),
        (f"{LINE} in Chinese。", None),
        ("\n \n", Drop("fineweb.empty", 0, 1)),
        (LINE, Drop("fineweb.line_punct", 0.0, 0.12)),
        ("Home.\nNews\nAbout\n" + f"{LINE}.", Drop("fineweb.short_lines", 0.75, 0.67)),
        (f"{LINE}.\n" * 2, Drop("fineweb.char_duplicates", 0.5, 0.01)),
        (f"{LINE}.{chr(10) * 6}", Drop("fineweb.new_lines", 6 / 14, 0.3)),
    ],
)
def test_reasons(text: str, drop: Drop | None) -> None:
    assert FineWeb(rules.FineWeb())(Document("x", text)) == drop


def test_limits_are_the_configuration_s() -> None:
    assert FineWeb(rules.FineWeb(line_punct_exclude_zero=True))(Document("x", LINE)) is None
    assert FineWeb(rules.FineWeb(short_line_length=3))(Document("x", "Home.\nNews.")) is None


def test_stops_are_single_characters() -> None:
    assert all(len(stop) == 1 for stop in TERMINAL_PUNCTUATION)


def test_real_texts_as_datatrove(shared_data: Path) -> None:
    config = rules.FineWeb()
    ours, theirs = FineWeb(config), peer(config)
    drops = [agree(ours, theirs, text, reason) for text in real_texts(shared_data)]
    assert len({drop.rule for drop in drops if drop}) >= 3


CONFIGS = st.builds(
    rules.FineWeb,
    line_punct_thr=st.sampled_from([0.0, 0.12, 0.9]),
    line_punct_exclude_zero=st.booleans(),
    short_line_thr=st.sampled_from([0.0, 0.67, 1.0]),
    short_line_length=st.sampled_from([0, 5, 30]),
    char_duplicates_ratio=st.sampled_from([0.01, 0.5]),
    new_line_ratio=st.sampled_from([0.01, 0.3, 2.0]),
)


@given(made_texts(), CONFIGS)
@settings(max_examples=400, deadline=None)
def test_any_text_as_datatrove(text: str, config: rules.FineWeb) -> None:
    agree(FineWeb(config), peer(config), text, reason)
