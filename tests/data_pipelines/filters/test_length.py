"""Limits of length, in characters and in words."""

import pytest

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.length import Length
from fmtrain.schema import rules

TEXT = "Don't count ten words where there are five... äöü"  # 49 characters, 10 words


@pytest.mark.parametrize(
    ("config", "drop"),
    [
        ({}, None),
        ({"min_chars": 49, "max_chars": 49, "min_words": 10, "max_words": 10}, None),
        ({"min_chars": 50}, Drop("length.too_few_chars", 49, 50)),
        ({"max_chars": 48}, Drop("length.too_many_chars", 49, 48)),
        ({"min_words": 11}, Drop("length.too_few_words", 10, 11)),
        ({"max_words": 9}, Drop("length.too_many_words", 10, 9)),
    ],
)
def test_limits(config: dict[str, int], drop: Drop | None) -> None:
    assert Length(rules.Length(**config))(Document("x", TEXT)) == drop


def test_words_are_those_of_the_document_s_splitter() -> None:
    class Half:
        def __call__(self, text: str):
            words = Document("x", text).words
            return type(words)(words.starts[:5], words.ends[:5], words.hashes[:5], words.symbols[:5], words.codes)

    doc = Document("x", TEXT)
    assert len(doc.words) == 10
    doc.split = Half()
    assert Length(rules.Length(min_words=6))(doc) == Drop("length.too_few_words", 5, 6)
