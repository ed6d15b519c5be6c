"""What two texts, and two addresses, must share to have one key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.dedup import normalise, normalise_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!\n", "helloworld"),
        ("Chapter 12: The End", "chaptertheend"),
        ("ÉTÉ à Zürich", "étéàzürich"),
        ("東京は、日本の首都。", "東京は日本の首都"),
        ("x = 1, 2, 3", "x=1,2,3"),  # more digits than letters: only case and white space go
        ("", ""),
        ("a\ud800b c", "abc"),
    ],
)
def test_normalised_text(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_white_space_and_case_never_count(text: str) -> None:
    assert normalise(" \n".join(text.lower())) == normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://www.Example.org:80/a/b/?y=2&x=1&utm_source=feed#top",
        "https://example.org/a/b?x=1&y=2",
        "HTTPS://EXAMPLE.ORG:443/a/b/index.html?x=1&y=2&fbclid=z",
        " example.org/a/b?y=2&x=1 ",
    ],
)
def test_one_page_has_one_address(url: str) -> None:
    assert normalise_url(url) == "example.org/a/b?x=1&y=2"


def test_pages_that_differ_keep_their_addresses() -> None:
    pages = ["a.org/x?id=1", "a.org/x?id=2", "a.org/X?id=1", "a.org:8080/x?id=1", "b.org"]
    assert len({normalise_url(f"http://{page}") for page in pages}) == len(pages)
    assert normalise_url("http://[bad") == "http://[bad"


def test_examples_of_the_documentation() -> None:
    assert normalise("CHAPTER 2. The end!") == normalise("Chapter 12: the end")
    assert normalise("x = 1, 2, 3") != normalise("x = 1, 2, 4")
    assert normalise_url("https://example.org/a?utm_source=feed") == normalise_url("http://www.example.org/a/")
