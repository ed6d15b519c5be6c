"""A rule of ours beside datatrove's filter: texts to try them on, and what both must agree on."""

import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datatrove.data
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from hypothesis import strategies as st

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop, Rule
from data_pipelines.words import FAST, Splitter

PIECES = [
    *("the ", "of ", "and ", "with ", "be", "to ", "have ", "that ", "word ", "a ", "don't ", "re-use", "v1.2"),
    *("\n", "\n\n", "\n\n\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", " ", "\t"),
    *("x" * 40, "\u00a0", "\u3000", "\u200b", ". ", ".\n", "?\n", '"\n', "!", "...", "...\n", "....", "…", "…\n"),
    *("#", "# ", "- ", "• ", "--", "_", "__ ", "%", "'", "’", "日本語", "。\n", "？", "Ⅷ", "１", "٣", "²"),
    *("\u0301", "e\u0301", "ß", "\ud800", "\udc00", "\U0001f600", "\x00", "İ", "\u212a"),
    *("lorem ipsum ", "Lorem Ipsum", "JavaScript ", "java[1]script ", "{", "}", "[1]", "[edit]", "[citation needed]"),
    *("privacy policy ", "Terms of Use ", "coo\u212aie policy", "use cookies", "USES COOKIES.", "of use cookies. "),
    *("one two three four five.\n", "Six seven eight nine ten? ", "- a point of the list\n", "It ends with this ...\n"),
]


def made_texts() -> st.SearchStrategy[str]:
    """Text of what rules look at and odd characters, repeated now and then; or any text at all, surrogates included."""
    parts = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
    repeated = st.builds(lambda a, n, b, m: (a * n + b) * m, parts, st.integers(1, 6), parts, st.integers(1, 3))
    return st.one_of(parts, repeated, st.text(st.characters(exclude_categories=()), max_size=80))


@functools.cache
def real_texts(folder: Path) -> list[str]:
    """Web pages, all of them, and of the books, PEPs and RFCs some, cut."""

    def rows(name: str) -> list[str]:
        with gzip.open(folder / name, "rt") as f:
            return [json.loads(line)["text"] for line in f]

    pages = [str(path.relative_to(folder)) for path in sorted((folder / "web").rglob("*.jsonl.gz"))]
    found = [text for name in pages for text in rows(name)]
    for name in ("gutenberg", "peps", "rust_rfcs"):
        found += [text[:20_000] for text in rows(f"pretrain/{name}.jsonl.gz")[::50]]
    return found


def agree(
    rule: Rule, peer: BaseFilter, text: str, ours_of: Callable[[str], str] | None = None, split: Splitter = FAST
) -> Drop | None:
    """Both keep the text, and leave the same one, or drop it, for the same reason where `ours_of` theirs is known."""
    ours, theirs = Document("x", text), datatrove.data.Document(text=text, id="x")
    ours.split = split
    drop = rule(ours)
    kept, reason = get_filter_result(peer.filter(theirs))
    assert (drop is None) == kept, (text, drop, reason)
    assert kept or ours_of is None or drop.rule == ours_of(reason), (text, drop, reason)
    assert ours.text == theirs.text
    return drop
