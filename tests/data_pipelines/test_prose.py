"""The prose of Markdown and reStructuredText: what is left out, what is told, and that the text stays as it was."""

import re
import time

import hypothesis
import pytest
from hypothesis import strategies

from data_pipelines.document import Document
from data_pipelines.prose import prose
from data_pipelines.words import splitter

MARKDOWN = """---
title: Harbour
---
<!-- toc -->
# The **old** wall

The committee met in the [town hall](https://example.org/a_(b)) and agreed
that `mend(wall)` must be *called* [1]; see <https://example.org> or https://example.org/x.

- First it is measured from one end to the other,
  by two people.
1. Then it is mended.

| stone | price |
|-------|------:|
| slate | 3     |

```python
wall = mend(wall)
```

    also = code(1)

<details><summary>More</summary>Nobody was against it.</details>

![a picture](wall.png)
[note]: https://example.org/note
"""

RST = """PEP: 1
Title: A wall
Author: A
        B

The wall
========

It stands, as :pep:`8` says in `the guide <https://example.org>`_, since ``build()`` [#a]_ was called::

    build(wall)

    mend(wall)

.. code-block:: python

   wall = 1

.. note:: Stones are dear in the whole winter, and cheap
   in spring.

.. _target: https://example.org
.. a remark
   of two lines

====  =====
a     b
====  =====
1     2
====  =====

+---+---+
| a | b |
+---+---+

    A whole paragraph that is indented as a quotation is told, for it reads as one.

.. [#a] It was found in the archive.
"""


def test_markdown() -> None:
    assert prose(MARKDOWN).split("\n") == [
        "The old wall",
        "The committee met in the town hall and agreed that mendwall must be called ; see or .",
        "First it is measured from one end to the other, by two people.",
        "Then it is mended.",
        "MoreNobody was against it.",
    ]


def test_restructuredtext() -> None:
    assert prose(RST).split("\n") == [
        "The wall",
        "It stands, as 8 says in the guide, since build was called::",
        "Stones are dear in the whole winter, and cheap in spring.",
        "A whole paragraph that is indented as a quotation is told, for it reads as one.",
        "It was found in the archive.",
    ]


def test_lines_of_a_menu_are_not_joined() -> None:
    assert prose("Home\nAbout us\nContact") == "Home\nAbout us\nContact"


def test_a_document_gives_it_once_and_keeps_its_text() -> None:
    doc = Document("a", MARKDOWN)
    assert doc.prose is doc.prose and doc.seen("prose") is doc.prose and doc.seen("text") is doc
    assert doc.text == MARKDOWN and doc.prose.text == prose(MARKDOWN)
    doc.text = "Another."
    assert doc.prose.text == "Another."
    doc.split = splitter("spacy-en")
    assert doc.prose.split is doc.split


WORDS = strategies.lists(strategies.sampled_from(["the", "wall", "stands", "in", "harbour"]), min_size=5, max_size=30)


@hypothesis.given(strategies.lists(WORDS, min_size=1, max_size=6))
def test_plain_paragraphs_are_told_whole(paragraphs: list[list[str]]) -> None:
    told = [" ".join(words) + "." for words in paragraphs]
    assert prose("\n\n".join(told)).split("\n") == told


@hypothesis.given(strategies.text(alphabet="ab .:`~*_[]()<>!#|=+-\n\t\\\"'", max_size=300))
def test_no_word_comes_from_nowhere(text: str) -> None:
    """Letters are left out and joined, never made; and what is told has no empty line."""
    told = prose(text)
    letters = iter(re.sub(r"[^ab]", "", text))
    assert all(letter in letters for letter in re.sub(r"[^ab]", "", told))
    assert "" not in told.split("\n") or not told


@pytest.mark.parametrize(
    "unit",
    ["a ", "[", "`", "*", "<", "<!--", "```x\n", "    a b c d e f\n\n", "    x=1\n\n", "=== ===\n", "=== ===\na\n\n",
     ".. a::\n", ".. a\n b\n", "a: b\n", "a::\n\n  b\n", "| a |\n", "![", "[a](", "a,", "https://", "- ", "1. a\n"],
)  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        begun = time.process_time()
        prose(text)
        return time.process_time() - begun

    assert seconds(800_000) < 8 * seconds(200_000) + 0.5
