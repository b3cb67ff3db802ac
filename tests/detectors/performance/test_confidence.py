"""Confidence sequences: how often they ever fail somebody who looks after every few rows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.performance.confidence import (
    ALPHA,
    STAKES,
    asymptotic_estimate,
    asymptotic_half,
    betting_interval,
    mean_estimate,
    share_estimate,
)

Floats = NDArray[np.float64]

# Looks are dense where few rows are known, for there an interval fails most easily.
LOOKS = np.unique(np.geomspace(1, 2_500, 32).astype(int))


def ever_missed(
    draw: Callable[[np.random.Generator], Floats], mean: float, runs: int, seed: int
) -> float:
    """The share of runs in which some look's betting interval did not hold the mean."""
    missed = 0
    for run in range(runs):
        outcomes = draw(np.random.default_rng([seed, run]))
        for look in LOOKS:
            lower, upper = betting_interval(outcomes[:look])
            if not lower <= mean <= upper:
                missed += 1
                break
    return missed / runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "draw", "mean"),
    [
        ("right", lambda rng: (rng.random(2_500) < 0.9).astype(float), 0.9),
        ("rare", lambda rng: (rng.random(2_500) < 0.01).astype(float), 0.01),
        ("brier", lambda rng: rng.beta(0.3, 2.0, 2_500), 0.3 / 2.3),
        ("rarely dear", lambda rng: np.where(rng.random(2_500) < 0.02, 1.0, 0.01), 0.0298),
    ],
)
def test_a_betting_interval_ever_misses_in_one_run_of_twenty_at_most(
    name: str, draw: Callable[[np.random.Generator], Floats], mean: float
) -> None:
    # 5 % of 60 runs are 3; more than 8 would come once in a hundred if it were just 5 %.
    assert ever_missed(draw, mean, runs=60, seed=len(name)) <= 8 / 60


@pytest.mark.slow
def test_shares_of_whole_rows_are_held_at_every_row() -> None:
    missed = 0
    for run in range(150):
        hits = np.cumsum(np.random.default_rng(run).random(400) < 0.8)
        for rows in range(1, 401, 3):
            figure = share_estimate(float(hits[rows - 1]), float(rows - hits[rows - 1]))
            assert figure is not None
            if not figure.lower <= 0.8 <= figure.upper:
                missed += 1
                break
    assert missed / 150 <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / 150) ** 0.5


def test_an_interval_for_one_look_fails_somebody_who_keeps_looking() -> None:
    """What betting is for: the usual 1.96 standard errors miss at some look in most runs."""
    missed = 0
    for run in range(100):
        outcomes = np.random.default_rng(run).random(2_500)
        rows = np.arange(30, 2_501)
        means = outcomes.cumsum()[29:] / rows
        missed += bool((np.abs(means - 0.5) > 1.96 * (1 / 12 / rows) ** 0.5).any())
    assert missed > 30


def test_the_asymptotic_sequence_rarely_misses_from_thirty_rows_on() -> None:
    missed = 0
    rows = np.arange(30, 2_501)
    for run in range(200):
        outcomes = np.random.default_rng(run).exponential(1.0, 2_500)
        means = outcomes.cumsum()[29:] / rows
        variances = (outcomes**2).cumsum()[29:] / rows - means**2
        halves = [
            asymptotic_half(variance / count, count, tuned_rows=2_500)
            for variance, count in zip(variances.tolist(), rows.tolist(), strict=True)
        ]
        missed += bool((np.abs(means - 1.0) > np.array(halves)).any())
    assert missed / 200 <= 0.08


@given(outcomes=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=60))
def test_limits_are_where_the_bets_of_the_grid_become_forty_times_as_rich(
    outcomes: list[float],
) -> None:
    """Against plain multiplication of what each stake has after each row."""
    lower, upper = betting_interval(np.array(outcomes))
    assert 0.0 <= lower <= np.mean(outcomes) + 1e-9
    assert np.mean(outcomes) - 1e-9 <= upper <= 1.0

    def wealth(mean: float, rows: Floats) -> float:
        total = 0.0
        for stake in STAKES:
            part = 1.0
            for row in rows:
                part *= 1.0 + min(stake, 0.95 / mean) * (row - mean)
            total += part
        return total / len(STAKES)

    for limit, rows in ((lower, np.array(outcomes)), (1.0 - upper, 1.0 - np.array(outcomes))):
        if limit > 0.001:
            assert wealth(limit - 1e-4, rows) >= 39.0
        if limit < 0.99:
            assert wealth(limit + 1e-3, rows) <= 41.0


@given(outcomes=st.lists(st.floats(0, 1), min_size=1, max_size=100), seed=st.integers(0, 9))
def test_the_order_of_the_rows_does_not_matter(outcomes: list[float], seed: int) -> None:
    rows = np.array(outcomes)
    mixed = np.random.default_rng(seed).permutation(rows)
    assert betting_interval(rows) == pytest.approx(betting_interval(mixed), abs=1e-4)


def test_counted_outcomes_are_those_outcomes_as_often() -> None:
    rows = np.repeat([1.0, 0.0], [700, 300])
    counted = betting_interval(np.array([1.0, 0.0]), np.array([700.0, 300.0]))
    assert betting_interval(rows) == pytest.approx(counted, abs=1e-4)


def test_intervals_narrow_with_the_square_root_of_the_rows() -> None:
    widths = []
    for rows in (500, 2_000, 8_000):
        figure = share_estimate(0.9 * rows, 0.1 * rows)
        assert figure is not None
        widths.append((figure.upper - figure.lower) * rows**0.5 / 0.3 / 2)
    assert all(3.0 < width < 3.8 for width in widths), widths


def test_nothing_known_is_between_nothing_and_all() -> None:
    assert share_estimate(0.0, 0.0) is None
    assert mean_estimate(np.empty(0), most=1.0) is None
    assert betting_interval(np.empty(0)) == (0.0, 1.0)
    one = share_estimate(1.0, 0.0)
    assert one is not None
    assert (one.value, one.upper, one.kind) == (1.0, 1.0, "betting")
    assert one.lower < 0.1
    few = asymptotic_estimate(0.5, 0.1, rows=29, worth=29.0, tuned_rows=100)
    assert few.kind == "none"
    assert np.isnan(few.lower)


def test_a_mean_of_outcomes_within_a_range_is_scaled_back() -> None:
    outcomes = np.random.default_rng(3).beta(1.0, 3.0, 1_000) * 20.0
    figure = mean_estimate(outcomes, most=20.0)
    assert figure is not None
    assert figure.value == pytest.approx(outcomes.mean())
    assert 3.5 < figure.lower < 5.0 < figure.upper < 6.0
