"""Outliers: what a score means, what is kept of odd rows, and that nothing is too odd to score."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import Reference, build_reference
from detectors.groups.outliers import KEPT_MAX, RECENT_ROWS, Outliers
from detectors.rows.binning import Binner
from detectors.rows.columns import as_table

Columns = dict[str, NDArray[Any]]


def rows(n: int, rng: np.random.Generator) -> Columns:
    return {
        "x": rng.normal(size=n),
        "skewed": rng.lognormal(0, 2, n),
        "tailed": rng.standard_t(3, n),
        "n": rng.poisson(3, n).astype(float),
        "city": rng.choice(np.array(["a", "b", "c"], dtype=object), n),
        "flag": rng.random(n) < 0.3,
    }


def reference(n: int, seed: int = 0) -> Reference:
    return build_reference(
        rows(n, np.random.default_rng(seed)), kinds={"city": "categorical", "flag": "boolean"}
    )


REFERENCE = reference(50_000)


@pytest.mark.parametrize("n", [5_000, 50_000])
def test_a_score_says_how_few_reference_rows_are_as_odd(n: int) -> None:
    known = reference(n, seed=1)
    scores = Outliers(known).score(as_table(rows(400_000, np.random.default_rng(2))))
    for level in (1.0, 2.0, 3.0):
        share = float((scores >= level).mean())
        assert share <= 2.0 * 10**-level  # an upper bound, but for what the tails' shape adds
    assert (scores >= 1.0).mean() > 0.02  # a score that is always 0 would pass the rest


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("x", 30.0, "high"),
        ("x", -30.0, "low"),
        ("skewed", 1e9, "high"),
        ("x", np.nan, "missing"),
        ("x", np.inf, "high"),
        ("city", "Atlantis", "unseen"),
    ],
)
def test_the_feature_that_makes_a_row_odd_is_named(name: str, value: Any, what: str) -> None:
    columns = rows(1_000, np.random.default_rng(3))
    columns[name][17] = value
    outliers = Outliers(REFERENCE)
    assert 1 <= outliers.update(as_table(columns), at=60.0) <= 6
    first = outliers.oddest()[0]
    assert (first.row, first.at) == (17, 60.0)
    assert first.features[0] == (name, what)


def test_counting_is_scoring_whatever_helps_it() -> None:
    rng = np.random.default_rng(4)
    counter = Binner([(profile.name, profile.bins) for profile in REFERENCE.features])
    helped, alone = Outliers(REFERENCE), Outliers(REFERENCE)
    for _ in range(20):
        columns = rows(2_000, rng)
        columns["x"][rng.random(2_000) < 0.01] *= 6
        columns["tailed"][rng.random(2_000) < 0.01] = np.nan
        table = as_table(columns)
        expected = int((alone.score(table) >= 3.0).sum())
        assert alone.update(table) == expected
        assert helped.update(table, counts=counter.count(columns, 2_000)) == expected
    assert helped.oddest() == alone.oddest()
    assert 0.005 < alone.ratio() < 0.05


def test_the_oddest_recent_rows_are_kept_and_no_more() -> None:
    rng = np.random.default_rng(5)
    outliers = Outliers(REFERENCE)
    columns = rows(1_000, rng)
    columns["x"] = np.linspace(50, 150, 1_000)
    assert outliers.update(as_table(columns)) == 1_000
    kept = outliers.oddest()
    assert len(kept) == KEPT_MAX
    assert kept[0].row == 999
    assert [row.score for row in kept] == sorted((row.score for row in kept), reverse=True)
    for _ in range(RECENT_ROWS // 10_000 + 1):
        outliers.update(as_table(rows(10_000, rng)))
    assert all(row.row >= 1_000 for row in outliers.oddest())


def test_at_most_three_features_are_named_the_oddest_first() -> None:
    columns = rows(300, np.random.default_rng(6))
    for name, value in (("x", 40.0), ("skewed", 1e30), ("tailed", 1e6), ("n", 99.0)):
        columns[name][0] = value
    outliers = Outliers(REFERENCE)
    outliers.update(as_table(columns))
    assert len(outliers.oddest()[0].features) == 3


def test_a_restart_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    straight, halved = Outliers(REFERENCE), Outliers(REFERENCE)
    for tick in range(20):
        columns = rows(500, rng)
        columns["x"][rng.random(500) < 0.02] *= 9
        if tick == 9:
            state = json.loads(json.dumps(halved.state()))
            halved = Outliers(REFERENCE)
            halved.restore(state)
        assert straight.update(as_table(columns)) == halved.update(as_table(columns))
    assert straight.oddest() == halved.oddest()
    assert straight.state() == halved.state()


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(width=64),
            st.none(),
            st.text(max_size=3),
            st.integers(-(10**400), 10**400),
            st.sampled_from([1e308, -1e308, 5e-324, b"x", [1], True]),
        ),
        max_size=20,
    ),
    st.sampled_from(["x", "skewed", "n", "city", "flag"]),
)
def test_nothing_is_too_odd_to_score(values: list[Any], name: str) -> None:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    outliers = Outliers(REFERENCE)
    scores = outliers.score(as_table({name: column}))
    assert scores.shape == (len(values),)
    assert ((scores >= 0) & (scores <= 300)).all()
    assert outliers.update(as_table({name: column})) == int((scores >= 3.0).sum())


@pytest.mark.parametrize("values", [[1.0], [np.nan] * 500, [3.0] * 500, [np.inf] * 300])
def test_a_reference_without_a_distribution_scores_too(values: list[float]) -> None:
    outliers = Outliers(build_reference({"x": np.array(values)}))
    odd = np.array([0.0, 3.0, 1e308, np.nan, np.inf])
    assert np.isfinite(outliers.score(as_table({"x": odd}))).all()
    outliers.update(as_table({"x": odd}))
