"""Edges against numpy's quantiles, and bins found by a table against bins found by searching."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.performance.score_bins import BinFinder, BinTable, quantile_edges

Floats = NDArray[np.float64]
EVERY = slice(0, 1)
ODD = [0.0, -0.0, 5e-324, -5e-324, 1e-300, 1.0, -1.0, 1e308, -1e308]


def around(edges: Floats) -> Floats:
    """Each edge and its next neighbours on both sides, and what is odd."""
    return np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf), ODD])


def scores(kind: str, rng: np.random.Generator, count: int) -> Floats:
    drawn = {
        "even": rng.random(count),
        "rare": rng.beta(0.05, 5.0, count),
        "sure": rng.beta(8.0, 0.3, count),
        "tiny": rng.random(count) ** 60,
        "rounded": np.round(rng.random(count), 2),
        "margins": rng.standard_normal(count) * 1e6,
        "two": (rng.random(count) > 0.3).astype(np.float64),
    }
    return drawn[kind]


@pytest.mark.parametrize("bins", [64, 1_024])
@pytest.mark.parametrize("kind", ["even", "rare", "sure", "tiny", "rounded", "margins", "two"])
def test_a_finder_finds_what_a_search_finds(kind: str, bins: int) -> None:
    rng = np.random.default_rng(1)
    values = scores(kind, rng, 20_000)
    edges = quantile_edges(values[:10_000], bins)
    asked = np.concatenate([values, around(edges)])
    np.testing.assert_array_equal(BinFinder(edges).places(asked), np.searchsorted(edges, asked))


@given(
    edges=st.lists(st.floats(0.0, 1e300), min_size=0, max_size=80, unique=True),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40),
)
@settings(max_examples=300)
def test_a_finder_is_exact_for_any_edges(edges: list[float], values: list[float]) -> None:
    rising = np.unique(np.array(edges, dtype=np.float64))
    asked = np.concatenate([np.array(values, dtype=np.float64), around(rising)])
    np.testing.assert_array_equal(BinFinder(rising).places(asked), np.searchsorted(rising, asked))


def test_a_finder_takes_columns_that_are_not_contiguous_and_no_rows() -> None:
    rng = np.random.default_rng(2)
    both = rng.random((1_000, 2))
    edges = quantile_edges(both[:, 1])
    found = BinFinder(edges).places(both[:, 1])
    np.testing.assert_array_equal(found, np.searchsorted(edges, both[:, 1]))
    assert len(BinFinder(edges).places(np.empty(0))) == 0


@pytest.mark.parametrize("kind", ["even", "rare", "sure", "tiny", "rounded", "margins", "two"])
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 777, 16_384])
def test_edges_are_quantiles_of_the_values(kind: str, rows: int) -> None:
    values = scores(kind, np.random.default_rng(rows), rows)
    for bins in (64, 1_024):
        distinct = np.unique(values)
        wanted = distinct[:-1]
        if len(distinct) > bins:
            shares = np.arange(1, bins) / bins
            quantiles = np.quantile(values, shares, method="inverted_cdf")
            wanted = np.unique(quantiles[quantiles < distinct[-1]])
        np.testing.assert_array_equal(quantile_edges(values, bins), wanted)


@given(
    cuts=st.tuples(st.integers(0, 3_000), st.integers(0, 3_000)),
    seed=st.integers(0, 20),
    other=st.booleans(),
)
@settings(max_examples=60)
def test_merging_loses_no_row_and_order_does_not_matter(
    cuts: tuple[int, int], seed: int, other: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.beta(0.5, 2.0, 3_000)
    a, b = sorted(cuts)
    parts = [values[:a], values[a:b], values[b:] * 2.0 if other else values[b:]]
    tables = [
        BinTable.empty(part if other and len(part) else values, 2).plus(
            part, (part > 0.2).astype(np.intp)
        )
        for part in parts
    ]
    rows = slice(0, 2)
    one = tables[0].merged(tables[1], rows).merged(tables[2], rows)
    two = tables[2].merged(tables[0].merged(tables[1], rows), rows)
    np.testing.assert_allclose(one.edges, two.edges)
    np.testing.assert_allclose(one.sums, two.sums, atol=1e-9)
    whole = np.concatenate(parts)
    assert (one.low, one.high) == (whole.min(), whole.max())
    counted = [np.count_nonzero(whole <= 0.2), np.count_nonzero(whole > 0.2)]
    assert one.sums.sum(axis=0).tolist() == pytest.approx(counted)
    if not other:  # the same edges: exactly what all rows at once give
        at_once = BinTable.empty(values, 2).plus(whole, (whole > 0.2).astype(np.intp))
        np.testing.assert_array_equal(one.sums, at_once.sums)


def test_sums_below_a_limit_are_those_of_rows_spread_evenly_within_bins() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.random(40_000), 0.25 + rng.random(40_000)
    place = np.zeros(40_000, dtype=np.intp)
    tables = [BinTable.empty(values, 1).plus(values, place) for values in (one, two)]
    merged = tables[0].merged(tables[1], EVERY)
    assert merged.bins <= 64
    both = np.concatenate([one, two])
    below = merged.sums[:, 0].cumsum()[:-1]
    wanted = [np.count_nonzero(both <= edge) for edge in merged.edges]
    # Within a bin of 1/64 of 40,000 rows even spacing is as good as its rows are even.
    assert np.abs(below - wanted).max() < 100


def test_merged_bins_are_of_about_equal_size_by_rows_and_not_by_amounts() -> None:
    rng = np.random.default_rng(5)
    parts = [rng.random(30_000), 1.0 + rng.random(1_000)]
    zeros, ones = (np.full(30_000, place, dtype=np.intp) for place in (0, 1))
    tables = []
    for part in parts:
        table = BinTable.empty(part, 2).plus(part, zeros[: len(part)])
        tables.append(table.plus(part, ones[: len(part)], part**40))
    merged = tables[0].merged(tables[1], EVERY)
    assert merged.sums[:, 0].max() < 2.5 * 31_000 / 64


def test_a_table_of_one_score_merges_with_one_of_many() -> None:
    many, place = np.random.default_rng(4).random(1_000), np.zeros(1_000, dtype=np.intp)
    one = BinTable.empty(np.full(1_000, 0.5), 1).plus(np.full(1_000, 0.5), place)
    two = BinTable.empty(many, 1).plus(many, place)
    for merged in (one.merged(two, EVERY), two.merged(one, EVERY)):
        assert (merged.low, merged.high) == (many.min(), many.max())
        assert merged.sums.sum() == pytest.approx(2_000)
        lower, upper = merged.edges[merged.edges < 0.5], merged.edges[merged.edges >= 0.5]
        below = merged.sums[:, 0].cumsum()
        # All rows of the one score lie in the bin that it is in.
        assert below[len(lower) - 1] == pytest.approx(np.count_nonzero(many <= lower[-1]), abs=20)
        wanted = 1_000 + np.count_nonzero(many <= upper[0])
        assert below[len(lower)] == pytest.approx(wanted, abs=20)


def test_tables_with_other_columns_do_not_merge() -> None:
    values = np.arange(10.0)
    with pytest.raises(ValueError, match="2 columns and 1"):
        BinTable.empty(values, 2).merged(BinTable.empty(values, 1), EVERY)
