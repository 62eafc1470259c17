"""Bootstrap intervals, against the normal law and their own bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model.estimate import estimate


def test_intervals_are_those_of_the_normal_law_for_many_queries() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, (400, 1))
    (found,) = estimate(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.003)
    assert found.high == pytest.approx(values.mean() + half, abs=0.003)


def test_a_constant_difference_has_no_interval() -> None:
    values = np.random.default_rng(2).random((50, 1))
    low, high, difference = estimate(np.hstack([values, values + 0.25, np.full((50, 1), 0.25)]))
    assert (high.low - low.low, difference.low, difference.high) == pytest.approx((0.25, 0.25, 0.25))


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(0, 1)))
def test_an_interval_stays_within_the_values_and_repeats(values: np.ndarray) -> None:
    found = estimate(values, resamples=50)
    assert found == estimate(values, resamples=50)
    for column, each in zip(values.T, found, strict=True):
        assert column.min() - 1e-9 <= each.low <= each.high <= column.max() + 1e-9
