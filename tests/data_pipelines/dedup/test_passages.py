"""Paragraphs and lines beside their definitions in plain Python."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.dedup.passages import passages

TEXTS = st.text("ab é\n\r\t \x1f\u2028", max_size=40) | st.text(max_size=30)


def lines(text: str) -> Iterator[tuple[int, int, int]]:
    """Start and end of every line, and where the next begins."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        stop, start_of_next = (len(text), len(text)) if end < 0 else (end, end + 1)
        yield start, stop, start_of_next
        start = start_of_next


def paragraphs(text: str) -> Iterator[tuple[int, int, int]]:
    """Start and end of every run of lines that are not blank, and where the next begins."""
    begun, last = -1, 0
    for start, end, _ in lines(text):
        if text[start:end].isspace() or start == end:
            continue
        if begun < 0:
            begun = start
        elif text[last:start].count("\n") > 1:
            yield begun, last, start
            begun = start
        last = end
    if begun >= 0:
        yield begun, last, len(text)


@pytest.mark.parametrize("whole", [False, True])
@settings(deadline=None)  # the first compiles
@given(text=TEXTS, least=st.integers(1, 3))
def test_where_they_stand(whole: bool, text: str, least: int) -> None:
    wanted = (paragraphs if whole else lines)(text)
    high, low, starts, afters = passages(text, whole, least)
    expected = [(a, c, text[a:b].strip()) for a, b, c in wanted if len(text[a:b].split()) >= least]
    assert list(zip(starts.tolist(), afters.tolist(), strict=True)) == [(a, c) for a, c, _ in expected]
    keys = defaultdict(set)
    for key, (_, _, part) in zip(zip(high.tolist(), low.tolist(), strict=True), expected, strict=True):
        keys[part].add(key)
    assert all(len(found) == 1 for found in keys.values())
    assert len({key for found in keys.values() for key in found}) == len(keys)


def test_each_half_of_a_hash_tells_apart() -> None:
    """A million lines that differ in little: 64 bits collide there with a probability of 1 in 40 million."""
    text = "\n".join(f"{n % 1000} {n // 1000}" for n in range(1_000_000))
    high, low, *_ = passages(text, False, 1)
    assert len(set(high.tolist())) == len(set(low.tolist())) == 1_000_000
