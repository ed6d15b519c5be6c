"""Who stays in a cluster of copies, and datatrove's signatures in bounded memory."""

import random
from pathlib import Path

import numpy as np
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

from data_pipelines.dedup import _Signatures, choose
from data_pipelines.documents import Entry
from data_pipelines.words import WORDS


def entry(id_: str, size: int, heldout: bool = False) -> Entry:
    return Entry("f", hash(id_), id_, heldout, size, "0", 0, 0, 0)


@pytest.mark.parametrize(
    ("cluster", "keeper"),
    [
        ([entry("a", 5), entry("b", 9), entry("c", 7)], "b"),
        ([entry("b", 9), entry("a", 9)], "a"),
        ([entry("a", 5), entry("b", 9, True)], "a"),
        ([entry("c", 5, True), entry("b", 9, True), entry("a", 9, True)], "a"),
    ],
)
def test_choice_is_by_document_not_by_order(cluster: list[Entry], keeper: str) -> None:
    for _ in range(5):
        random.shuffle(cluster)
        removed = choose([cluster])
        assert {e.id for e in removed} == {e.id for e in cluster} - {keeper}
        assert {e.id for e in removed.values()} == {keeper}


@pytest.mark.parametrize("words", [5, 4096 + 4, 9000])
def test_signatures_are_datatrove_s(tmp_path: Path, words: int) -> None:
    numbers = random.Random(words)
    text = " ".join(f"w{numbers.randrange(10**6)}x" for _ in range(words))
    config = MinhashConfig()
    ours, theirs = (c(str(tmp_path), config=config, language=WORDS) for c in (_Signatures, MinhashDedupSignature))
    shingles = theirs.get_shingles(text)
    assert np.array_equal(ours.get_signature(shingles), theirs.get_signature(shingles))
