"""Both ways to count numbers, the grid and the sort, are held to the same oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.rows.binning import Binner
from tests.detectors.rows.test_binning import COLUMNS, SCALES, bins_for, near, oracle


@pytest.mark.parametrize("sorting", [True, False], ids=["sort", "grid"])
@given(column=COLUMNS, scale=SCALES, shift=st.sampled_from([0.0, 1.0, 1.7e9, -1e15]))
def test_counts_are_exact_at_every_edge_either_way(
    sorting: bool, column: list[float], scale: float, shift: float
) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        reference = np.array(column) * scale + shift
    bins = bins_for(reference)
    current = np.concatenate([reference, near(bins)])
    counted = Binner([("x", bins)], sorting=sorting).count({"x": current}, len(current))[0]
    assert counted.tolist() == oracle(current, bins)


@pytest.mark.parametrize("rows", [65_535, 65_536, 65_537, 140_000])
def test_more_rows_than_are_sorted_at_once_are_counted_alike(rows: int) -> None:
    rng = np.random.default_rng(rows)
    values = np.where(rng.random(rows) < 0.01, np.nan, rng.standard_t(2, rows))
    features = [("x", bins_for(values[:5_000]))]
    kept = values.copy()
    by_sort, by_grid = (
        Binner(features, sorting=sorting).count({"x": values}, rows) for sorting in (True, False)
    )
    assert by_sort.sum() == rows
    assert np.array_equal(by_sort, by_grid)
    assert np.array_equal(values, kept, equal_nan=True)  # the caller's rows stay in their order


def test_single_precision_and_whole_numbers_are_counted_as_well() -> None:
    values = np.arange(5_000) % 40
    features = [("x", bins_for(values.astype(float)))]
    expected = Binner(features, sorting=False).count({"x": values.astype(np.float64)}, 5_000)
    for kind in (np.float64, np.float32):
        found = Binner(features, sorting=True).count({"x": values.astype(kind)}, 5_000)
        assert np.array_equal(found, expected)
