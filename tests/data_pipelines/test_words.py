"""The word splitter."""

import pickle

import pytest

from data_pipelines.words import WORDS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't re-use v1.2 of it.", ["don't", "re-use", "v1.2", "of", "it", "."]),
        ("a->b... (c)", ["a", "->", "b", "...", "(", "c", ")"]),
        ("naïve café, 日本語", ["naïve", "café", ",", "日本語"]),
        ("  \n\t", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert WORDS.word_tokenize(text) == words


def test_sentences_have_their_spans() -> None:
    text = "One two.  Three! Four"
    assert WORDS.sent_tokenize(text) == ["One two.", "Three!", "Four"]
    assert WORDS.span_tokenize(text)[-1][1] == len(text)


def test_it_travels_to_a_worker() -> None:
    assert pickle.loads(pickle.dumps(WORDS)).word_tokenize("a b") == ["a", "b"]
