"""C4's rules decide as datatrove's filter does, leave the same text, and count the lines they take out."""

import dataclasses
from pathlib import Path

import pytest
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.c4 import C4
from fmtrain.schema import rules
from tests.data_pipelines.datatrove_words import OUR_WORDS
from tests.data_pipelines.filters.peer import agree, made_texts, real_texts

GOOD = "One line of text that ends well. It has two sentences!\n" * 3


def reason(theirs: str) -> str:
    return f"c4.{theirs}"


def peer(config: rules.C4) -> C4QualityFilter:
    return C4QualityFilter(**dataclasses.asdict(config), language=OUR_WORDS)


@pytest.mark.parametrize(
    ("line", "left", "count"),
    [
        ("A menu of no sentence\n", "", "no_terminal_punct"),
        ("This line does not end ...\n", "", "no_terminal_punct"),
        ("Too short.\n", "", "few_words"),
        (f"A {'long' * 251} word.\n", "", "long_word"),
        ("Please enable JavaScript to go on.\n", "", "javascript"),
        ("We have a Privacy Policy for you.\n", "", "policy"),
        ("This site needs coo\u212aies: it uses coo\u212aies.\n", "", "policy"),  # the Kelvin sign's lower case is k
        ("The java[1]script of the citation.\n", "", "javascript"),
        ("The town[3] is old.[citation needed]\n", "The town is old.\n", ""),
        ("  White space goes at both ends. \r\n", "White space goes at both ends.\n", ""),
    ],
)
def test_lines(line: str, left: str, count: str) -> None:
    doc = Document("x", f"{GOOD}{line}{GOOD}")
    assert C4(rules.C4())(doc) is None
    assert doc.text == f"{GOOD}{left}{GOOD}".strip()
    assert doc.counts == ({f"c4.lines.{count}": 1} if count else {})
    assert len(doc.words) == len(OUR_WORDS.word_tokenize(doc.text))


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        ("This is one. That is two.\nAnd this is three.", Drop("c4.too_few_sentences", 3, 5)),
        (GOOD + "Here comes the Lorem Ipsum dolor sit.", Drop("c4.lorem_ipsum", "lorem ipsum")),
        (GOOD + "if (a) { return b; } is code.", Drop("c4.curly_bracket", "{")),
        (GOOD + "if (a) {\n", None),  # the line goes before its bracket is looked at, as in datatrove
        ("", Drop("c4.too_few_sentences", 0, 5)),
    ],
)
def test_documents(text: str, drop: Drop | None) -> None:
    doc = Document("x", text)
    assert C4(rules.C4())(doc) == drop
    if drop:
        assert doc.text == text and not doc.counts


def test_a_clean_text_keeps_its_words() -> None:
    doc = Document("x", GOOD.strip())
    words = doc.words
    assert C4(rules.C4())(doc) is None and doc.words is words


def test_limits_are_the_configuration_s() -> None:
    loose = rules.C4(filter_no_terminal_punct=False, min_num_sentences=0, min_words_per_line=1, filter_policy=False)
    doc = Document("x", "menu\n\ncookie policy[1]")
    assert C4(loose)(doc) is None and doc.text == "menu\ncookie policy"


def test_only_two_characters_have_ascii_lower_cases() -> None:
    """What the quick look for phrases rests on."""
    found = [c for c in map(chr, range(128, 0x110000)) if any(low < "\x80" for low in c.lower())]
    assert found == ["\u0130", "\u212a"]


def test_real_texts_as_datatrove(shared_data: Path) -> None:
    for config in (rules.C4(), rules.C4(filter_no_terminal_punct=False)):  # FineWeb's way of it
        ours, theirs = C4(config), peer(config)
        drops = [agree(ours, theirs, text, reason) for text in real_texts(shared_data)]
        assert len({drop.rule for drop in drops if drop}) >= 2


CONFIGS = st.builds(
    rules.C4,
    filter_no_terminal_punct=st.booleans(),
    min_num_sentences=st.sampled_from([0, 1, 2, 5]),
    min_words_per_line=st.sampled_from([-1, 0, 1, 3]),
    max_word_length=st.sampled_from([-1, 5, 38, 1000]),
    remove_citations=st.booleans(),
    filter_lorem_ipsum=st.booleans(),
    filter_javascript=st.booleans(),
    filter_curly_bracket=st.booleans(),
    filter_policy=st.booleans(),
)


@given(made_texts(), CONFIGS)
@settings(max_examples=600, deadline=None)
def test_any_text_as_datatrove(text: str, config: rules.C4) -> None:
    agree(C4(config), peer(config), text, reason)
