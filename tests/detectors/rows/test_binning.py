"""Rows to counts against an oracle that looks at one value at a time."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.rows.binning import (
    BINS,
    MISSING,
    OUTSIDE,
    WIDTH,
    Binner,
    CategoryBins,
    NumericBins,
    fit_numeric,
)
from detectors.rows.columns import digest_of
from detectors.rows.sketch import QuantileSketch

Values = NDArray[np.float64]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e300, -1e300, 3.5e38, 1e-40]


def bins_for(values: Values) -> NumericBins:
    finite = values[np.isfinite(values)]
    sketch = QuantileSketch()
    sketch.update(finite)
    if not len(finite):
        return fit_numeric(sketch.points(), np.nan, np.nan)
    return fit_numeric(sketch.points(), float(finite.min()), float(finite.max()))


def oracle(values: Values, bins: NumericBins) -> list[int]:
    """The definition: bin b holds edges[b-1] < x <= edges[b], in the precision of the feature."""
    counts = [0] * WIDTH
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(np.float32).astype(np.float64) if bins.lines else values
    for x in cast.tolist():
        if x != x:
            counts[MISSING] += 1
        elif not bins.low <= x <= bins.high:
            counts[OUTSIDE] += 1
        else:
            counts[sum(edge < x for edge in bins.edges)] += 1
    return counts


def near(bins: NumericBins) -> Values:
    """Each edge and limit, and the numbers next to it, in both precisions."""
    around = []
    for edge in [*bins.edges, bins.low, bins.high]:
        around += [edge, np.nextafter(edge, np.inf), np.nextafter(edge, -np.inf)]
        with np.errstate(over="ignore"):
            single = np.float32(edge)
            around += [float(np.nextafter(single, np.float32(way))) for way in (-np.inf, np.inf)]
    return np.array([*around, *SPECIAL])


SCALES = st.sampled_from([1.0, 1e-6, 1e6, 1e30, 1e-42, 1e200])
COLUMNS = st.one_of(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=300),
    st.lists(st.integers(-5, 20).map(float), min_size=1, max_size=300),
    st.lists(st.sampled_from([0.0, 0.1, 0.30000001, 7.0]), min_size=1, max_size=100),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=100),
)


@given(column=COLUMNS, scale=SCALES, shift=st.sampled_from([0.0, 1.0, 1.7e9, -1e15]))
def test_counts_are_exact_at_every_edge(column: list[float], scale: float, shift: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        reference = np.array(column) * scale + shift
    bins = bins_for(reference)
    current = np.concatenate([reference, near(bins)])
    counted = Binner([("x", bins)]).count({"x": current}, len(current))[0]
    assert counted.tolist() == oracle(current, bins)


@pytest.mark.parametrize(
    "shape", ["normal", "lognormal", "cauchy", "poisson", "zero_inflated", "clock"]
)
def test_common_shapes_are_counted_exactly(shape: str) -> None:
    rng = np.random.default_rng(4)
    draws = {
        "normal": rng.normal(size=5_000),
        "lognormal": rng.lognormal(sigma=2, size=5_000),
        "cauchy": rng.standard_cauchy(5_000),
        "poisson": rng.poisson(3, 5_000).astype(float),
        "zero_inflated": np.where(rng.random(5_000) < 0.5, 0.0, rng.gamma(2, size=5_000)),
        "clock": 1.7e9 + rng.random(5_000) * 1e4,
    }[shape]
    bins = bins_for(draws)
    current = np.concatenate([draws, near(bins)])
    counted = Binner([("x", bins)]).count({"x": current}, len(current))[0]
    assert counted.tolist() == oracle(current, bins)
    assert len(bins.edges) >= 9


def test_a_heavy_tail_still_gets_all_its_bins_on_the_grid() -> None:
    bins = bins_for(np.random.default_rng(0).lognormal(sigma=2, size=20_000))
    assert len(bins.edges) == BINS - 1
    assert bins.lines


def test_edges_stay_close_to_the_quantiles_they_stand_for() -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    wanted = np.quantile(values, np.arange(1, BINS) / BINS)
    assert np.abs(np.array(bins_for(values).edges) - wanted).max() < 0.05


def test_any_other_value_of_a_constant_column_is_outside() -> None:
    bins = bins_for(np.full(100, 0.1))
    counts = Binner([("x", bins)]).count({"x": np.array([0.1, 0.1, 0.2, -5.0])}, 4)[0]
    assert counts[0] == 2
    assert counts[OUTSIDE] == 2


def test_anything_in_an_all_missing_column_is_outside() -> None:
    bins = bins_for(np.full(10, np.nan))
    counts = Binner([("x", bins)]).count({"x": np.array([1.0, np.nan])}, 2)[0]
    assert counts[OUTSIDE] == 1
    assert counts[MISSING] == 1


def test_few_values_get_a_bin_each() -> None:
    bins = bins_for(np.array([1.0, 2.0, 2.0, 5.0]))
    counts = Binner([("x", bins)]).count({"x": np.array([5.0, 2.0, 1.0, 1.0])}, 4)[0]
    assert counts[:3].tolist() == [2, 1, 1]


@given(cuts=st.lists(st.integers(0, 3_000), max_size=6), seed=st.integers(0, 5))
def test_how_the_rows_were_cut_does_not_matter(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {f"f{i}": rng.normal(size=3_000) * 10.0**i for i in range(40)}
    columns["f3"][::7] = np.nan
    binner = Binner([(name, bins_for(column[:500])) for name, column in columns.items()])
    whole = binner.count(columns, 3_000)
    limits = sorted({0, 3_000, *cuts})
    parts = [
        binner.count({name: column[a:b] for name, column in columns.items()}, b - a)
        for a, b in pairwise(limits)
    ]
    assert np.array_equal(sum(parts), whole)
    assert (whole.sum(axis=1) == 3_000).all()


def test_single_and_double_precision_columns_agree() -> None:
    values = np.random.default_rng(2).normal(size=4_000).astype(np.float32)
    binner = Binner([("x", bins_for(values.astype(np.float64)))])
    as_single = binner.count({"x": values}, 4_000)
    assert np.array_equal(as_single, binner.count({"x": values.astype(np.float64)}, 4_000))


def test_categories_go_to_their_own_other_unseen_and_missing() -> None:
    bins = CategoryBins(
        top=(digest_of("a"), digest_of("b")), others=frozenset({digest_of("c")}), open=False
    )
    column = np.array(["a", "b", "c", "storm", None, float("nan"), "a"], dtype=object)
    counts = Binner([("x", bins)]).count({"x": column}, 7)[0]
    assert counts[:2].tolist() == [2, 1]
    assert counts[[BINS - 1, OUTSIDE, MISSING]].tolist() == [1, 1, 2]


def test_an_open_category_table_calls_nothing_unseen() -> None:
    bins = CategoryBins(top=(digest_of("a"),), others=frozenset(), open=True)
    counts = Binner([("x", bins)]).count({"x": np.array(["a", "zz"])}, 2)[0]
    assert counts[[0, BINS - 1, OUTSIDE]].tolist() == [1, 1, 0]


def test_an_absent_column_has_no_counts() -> None:
    binner = Binner([("x", bins_for(np.arange(100.0))), ("y", bins_for(np.arange(100.0)))])
    counts = binner.count({"y": np.arange(10.0)}, 10)
    assert counts.sum(axis=1).tolist() == [0, 10]
