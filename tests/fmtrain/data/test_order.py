"""The order of rows: every epoch visits every row once, however the batches are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fmtrain.data.order import batch_rows


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), batch=st.integers(1, 90))
def test_each_epoch_visits_every_row_once(seed: int, rows: int, batch: int) -> None:
    steps = -(-3 * rows // batch)
    stream = [r for step in range(steps) for r in batch_rows(seed, step, rows, batch)]
    for epoch in range(3):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), rows=st.integers(1, 40), one=st.integers(1, 30), other=st.integers(1, 30))
def test_the_stream_does_not_depend_on_the_batch_size(seed: int, rows: int, one: int, other: int) -> None:
    a = [r for step in range(other) for r in batch_rows(seed, step, rows, one)]
    b = [r for step in range(one) for r in batch_rows(seed, step, rows, other)]
    assert a == b


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    alone = batch_rows(7, 50, 33, 8)
    for step in range(60):
        batch_rows(7, step, 33, 8)
    assert batch_rows(7, 50, 33, 8) == alone


def test_seeds_and_epochs_differ() -> None:
    assert batch_rows(1, 0, 100, 100) != batch_rows(2, 0, 100, 100)
    assert batch_rows(1, 0, 100, 100) != batch_rows(1, 1, 100, 100)


def test_the_order_is_frozen() -> None:
    """Numbers written down: a change of numpy or of this module that moved them would break every resume."""
    assert batch_rows(1, 0, 10, 12) == [8, 4, 7, 0, 1, 2, 5, 9, 6, 3, 7, 2]
