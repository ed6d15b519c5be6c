"""The hash of a stage's source sees its code and nothing else, and stays in its wing."""

from pathlib import Path

import pytest

from fmtrain.kinds.table import KINDS
from launch import code
from launch.plan import code_of


def test_closures_stay_in_their_wing() -> None:
    corpus = code.closure("data_pipelines.stages.corpus")
    assert "data_pipelines.filters.code" in corpus and "fmtrain.kinds.corpus" in corpus
    assert not any(m.startswith(("launch", "fmtrain.train", "fmtrain.objectives")) for m in corpus)
    train = code.closure("fmtrain.train.__main__")
    assert {"fmtrain.objectives.dpo", "fmtrain.data.order"} <= train
    assert not any(m.startswith(("launch", "data_pipelines")) for m in train)
    assert len({code_of(kind) for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""New docs."""\n\nLIMIT = 1  # a comment\n\n\ndef f(x):\n    return x + LIMIT\n', True),
        ('"""Docs."""\nLIMIT = 2\ndef f(x):\n    return x + LIMIT\n', False),
        ('"""Docs."""\nLIMIT = 1\ndef f(x):\n    return x - LIMIT\n', False),
    ],
)
def test_the_hash_sees_code_alone(text: str, same: bool, tmp_path: Path) -> None:
    old = tmp_path / "old.py"
    old.write_text('"""Docs."""\nLIMIT = 1\ndef f(x):\n    """Adds."""\n    return x + LIMIT\n')
    new = tmp_path / "new.py"
    new.write_text(text)
    assert (code._parsed(old)[1] == code._parsed(new)[1]) is same
