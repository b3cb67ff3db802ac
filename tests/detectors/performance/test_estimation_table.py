"""Isotonic rates against scikit-learn."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.performance.estimation_table import isotonic


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9)), min_size=1, max_size=70))
def test_isotonic_rates_are_those_of_scikit_learn(pairs: list[tuple[float, int]]) -> None:
    from sklearn.isotonic import isotonic_regression

    rates, weights = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    mine = isotonic(rates, weights)
    wanted = isotonic_regression(rates, sample_weight=np.maximum(weights, 1e-9))
    np.testing.assert_allclose(mine, wanted, atol=1e-9)
