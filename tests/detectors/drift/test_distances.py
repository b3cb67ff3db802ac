"""Distances against figures worked out by hand, and the properties each must have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.drift import distances

HALF = np.array([[0.5, 0.5]])
QUARTER = np.array([[0.25, 0.75]])
ORDERED = np.array([True])


def test_psi_by_hand() -> None:
    # (.25 - .5) ln(.25 / .5) + (.75 - .5) ln(.75 / .5)
    assert distances.psi(HALF, QUARTER)[0] == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))


def test_js_by_hand() -> None:
    assert distances.js(HALF, QUARTER)[0] == pytest.approx(0.2208, abs=1e-4)
    assert distances.js(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0] == 1.0


def test_ks_by_hand() -> None:
    p, q = np.array([[0.25, 0.25, 0.5]]), np.array([[0.0, 0.25, 0.75]])
    assert distances.ks(p, q, ORDERED)[0] == 0.25
    assert distances.ks(p, q, ~ORDERED)[0] == 0.25


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    p, q = np.array([[0.0, 0.5, 0.5, 0.0]]), np.array([[0.0, 0.0, 0.5, 0.5]])
    edges = np.array([[0.0, 10.0, 20.0, 30.0, 40.0]])
    assert distances.wasserstein(p, q, edges)[0] == pytest.approx(10.0)


def test_chi2_by_hand() -> None:
    statistic, freedom = distances.chi2(HALF, np.array([[25, 75]]))
    assert statistic[0] == pytest.approx(25.0)
    assert freedom[0] == 1


def test_no_rows_are_no_distance_and_no_warning() -> None:
    nothing = distances.shares(np.zeros((1, 2)))
    zero = np.zeros(1)
    assert distances.psi_corrected(HALF, nothing, zero, np.array([100.0]))[0] == 0
    gap, null = distances.ks(HALF, nothing, ORDERED), distances.ks_null(HALF, ORDERED)
    assert distances.less_chance(gap, null, zero, zero + 9)[0] == 0
    assert distances.wasserstein(HALF, nothing, np.array([[0.0, 1.0, 2.0]]))[0] == 0


def test_chance_alone_moves_plain_psi_and_not_the_corrected_one() -> None:
    rng = np.random.default_rng(0)
    p = np.full((2_000, 16), 1 / 16)
    rows, reference_rows = np.full(2_000, 48.0), np.full(2_000, 1e9)
    q = distances.shares(rng.multinomial(48, p[0], size=2_000))
    assert (distances.psi(p, q) > 0.2).mean() > 0.8
    corrected = distances.psi_corrected(p, distances.shares(q * 1), rows * 10, reference_rows)
    many = distances.shares(rng.multinomial(1_000, p[0], size=2_000))
    assert distances.psi_corrected(p, many, rows * 0 + 1_000, reference_rows).mean() < 0.004
    assert corrected.min() >= 0


SHARES = st.lists(st.integers(0, 50), min_size=6, max_size=6).filter(any)


@given(a=SHARES, b=SHARES)
def test_distances_are_never_negative_and_zero_only_for_the_same(
    a: list[int], b: list[int]
) -> None:
    p, q = distances.shares(np.array([a])), distances.shares(np.array([b]))
    edges = np.array([[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    for there, back, same in (
        (distances.psi(p, q), distances.psi(q, p), distances.psi(p, p)),
        (distances.js(p, q), distances.js(q, p), distances.js(p, p)),
        (distances.ks(p, q, ORDERED), distances.ks(q, p, ORDERED), distances.ks(p, p, ORDERED)),
        (
            distances.wasserstein(p, q, edges),
            distances.wasserstein(q, p, edges),
            distances.wasserstein(p, p, edges),
        ),
    ):
        assert there[0] >= 0
        assert there[0] == pytest.approx(back[0])
        assert same[0] == pytest.approx(0, abs=1e-6)
