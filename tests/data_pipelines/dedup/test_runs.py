"""Runs on disk: however they were written, merging them is sorting all records."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.dedup import runs
from data_pipelines.dedup.runs import Form, Writer, gather, merge, rows_in, runs_in, starts
from fmtrain.errors import StoreError

PAIR = [("key", "<u8"), ("ordinal", "<u8")]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=60), max_size=5),
    st.integers(16, 900),
    st.integers(16, 900),
    st.integers(1, 6),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_merging_is_sorting(
    tasks: list[list[tuple[int, int]]], written: int, budget: int, parts: int, unique: bool
) -> None:
    form = Form(PAIR, ("key", "ordinal"), unique)
    everything = [np.array(rows, form.dtype) for rows in tasks]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rank, records in enumerate(everything):
            with Writer(folder, f"{rank}", form, budget=written) as writer:
                writer.add(records)
        ranges = [r for p in range(parts) for r in merge(runs_in(folder), form, budget=budget, part=p, parts=parts)]
        assert rows_in(runs_in(folder), form) >= sum(map(len, ranges))
    keys = [set(r["key"].tolist()) for r in ranges]
    assert sum(map(len, keys)) == len(set().union(*keys)), "a key in two ranges"
    expected = np.sort(np.concatenate([form.empty(0), *everything]), order=["key", "ordinal"])
    assert np.array_equal(np.concatenate([form.empty(0), *ranges]), np.unique(expected) if unique else expected)


def test_ranges_stay_within_the_budget(tmp_path: Path) -> None:
    form = Form(PAIR, ("key", "ordinal"))
    numbers = np.random.default_rng(0)
    for rank in range(20):
        with Writer(tmp_path, f"{rank}", form) as writer:
            keys = numbers.integers(0, 1 << 63, 5000).astype("<u8")
            writer.add(form.make(key=keys, ordinal=np.arange(5000)))
    budget = 160_000  # bytes: ten thousand records
    sizes = [r.nbytes for r in merge(runs_in(tmp_path), form, budget=budget)]
    assert sum(sizes) == 20 * 5000 * 16
    assert max(sizes) <= 1.3 * budget
    assert len(sizes) <= 14


def test_ranges_of_more_runs_than_a_run_has_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run spans all keys: sampled at the same places, they would part into some eight ranges."""
    monkeypatch.setattr(runs, "_SAMPLES", 8)
    monkeypatch.setattr(runs, "_WEIGHED", 1000)
    form = Form(PAIR, ("key", "ordinal"))
    numbers = np.random.default_rng(0)
    with Writer(tmp_path, "0", form, budget=16 * 500) as writer:
        for _ in range(300):
            keys = numbers.integers(0, 1 << 63, 500).astype("<u8")
            writer.add(form.make(key=keys, ordinal=np.arange(500)))
    budget = 16 * 3000
    sizes = [r.nbytes for r in merge(runs_in(tmp_path), form, budget=budget)]
    assert sum(sizes) == 300 * 500 * 16
    assert max(sizes) <= 2 * budget and len(sizes) >= 40  # of twenty samples each


def test_one_key_with_more_than_the_budget_comes_whole(tmp_path: Path) -> None:
    form = Form(PAIR, ("key", "ordinal"))
    with Writer(tmp_path, "0", form, budget=160) as writer:
        writer.add(form.make(key=np.full(1000, 7), ordinal=np.arange(1000)[::-1]))
    [records] = merge(runs_in(tmp_path), form, budget=160)
    assert records["ordinal"].tolist() == list(range(1000))


def test_a_task_that_fails_leaves_no_last_run(tmp_path: Path) -> None:
    form = Form(PAIR, ("key",))
    try:
        with Writer(tmp_path, "0", form) as writer:
            writer.add(form.make(key=np.arange(3), ordinal=0))
            raise KeyError
    except KeyError:
        assert not runs_in(tmp_path)


def test_a_run_that_is_cut_is_told(tmp_path: Path) -> None:
    form = Form(PAIR, ("key",))
    with Writer(tmp_path, "0", form) as writer:
        writer.add(form.make(key=np.arange(1000), ordinal=0))
    ranges = merge(runs_in(tmp_path), form, budget=1600)
    next(ranges)
    [path] = runs_in(tmp_path)
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(StoreError, match=r"0\.00000\.run is damaged: 8000 bytes of the 16000 .* remove .* and run"):
        list(ranges)


def test_groups_and_single_records(tmp_path: Path) -> None:
    assert starts(np.array([1, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1])).tolist() == [0, 2, 3, 5]
    assert starts(np.empty(0)).tolist() == [0]
    np.arange(100, dtype="<u8").tofile(tmp_path / "f")
    assert gather(tmp_path / "f", "<u8", np.array([7, 99, 7])).tolist() == [7, 99, 7]
    assert len(gather(tmp_path / "f", "<u8", np.empty(0, np.int64))) == 0
