"""The learning rate is a pure function of the step."""

import math

from hypothesis import given
from hypothesis import strategies as st

from fmtrain.schema.training import Constant, Cosine
from fmtrain.train.schedule import SCHEDULES, factor

STEPS = st.integers(1, 500)


@given(STEPS, st.integers(0, 100), st.floats(0, 1))
def test_cosine(steps: int, warmup: int, final: float) -> None:
    cfg = Cosine(warmup_steps=warmup, final_factor=final)
    values = [factor(cfg, step, steps) for step in range(steps)]
    assert values[0] > 0 or steps - 1 == 0 or final == 0
    assert all(min(final, 1 / max(1, warmup)) - 1e-12 <= v <= 1 + 1e-12 for v in values)
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert all(a >= b - 1e-12 for a, b in zip(falling, falling[1:], strict=False))
    if steps > warmup + 1:
        assert math.isclose(falling[0], 1) and math.isclose(falling[-1], final, abs_tol=1e-12)


@given(STEPS, st.integers(0, 100))
def test_constant(steps: int, warmup: int) -> None:
    values = [factor(Constant(warmup_steps=warmup), step, steps) for step in range(steps)]
    assert values[0] > 0
    assert all(v == 1 for v in values[max(0, warmup - 1) :])


@given(STEPS, st.integers(1, 100))
def test_the_first_step_learns(steps: int, warmup: int) -> None:
    for name in SCHEDULES:
        cfg = {"cosine": Cosine, "constant": Constant}[name](warmup_steps=warmup)
        assert factor(cfg, 0, steps) > 0


def test_values() -> None:
    cfg = Cosine(warmup_steps=4, final_factor=0.1)
    values = [factor(cfg, step, 9) for step in range(9)]
    assert [round(v, 4) for v in values] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.8682, 0.55, 0.2318, 0.1]
