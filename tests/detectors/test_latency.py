"""Quantiles by a sketch: as exact as it says, mergeable, and the same after a restart."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.latency import (
    DURATION_S_MAX,
    DURATION_S_MIN,
    RELATIVE_ERROR,
    QuantileSketch,
    RecentQuantiles,
)

DURATIONS = st.lists(st.floats(DURATION_S_MIN, DURATION_S_MAX), min_size=1, max_size=200)
SHARES = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0]


def sketched(durations: list[float]) -> QuantileSketch:
    sketch = QuantileSketch()
    for duration in durations:
        sketch.update(duration)
    return sketch


def exact(durations: list[float], share: float) -> float:
    """The smallest duration that at least this share does not exceed."""
    return float(np.quantile(durations, share, method="inverted_cdf"))


@given(DURATIONS)
def test_every_quantile_is_within_the_relative_error(durations: list[float]) -> None:
    found = sketched(durations).quantiles(SHARES)
    assert found is not None
    for share, quantile in zip(SHARES, found, strict=True):
        assert quantile == pytest.approx(exact(durations, share), rel=RELATIVE_ERROR * 1.0001)


@given(DURATIONS, DURATIONS)
def test_two_sketches_merge_to_the_sketch_of_both(one: list[float], two: list[float]) -> None:
    merged = sketched(one)
    merged.merge(sketched(two))
    assert merged.state() == sketched(one + two).state()
    assert merged.quantiles(SHARES) == sketched(one + two).quantiles(SHARES)


@given(DURATIONS)
def test_a_restart_changes_nothing(durations: list[float]) -> None:
    sketch = sketched(durations)
    again = QuantileSketch.restore(json.loads(json.dumps(sketch.state())))
    assert again.quantiles(SHARES) == sketch.quantiles(SHARES)
    assert again.weight == sketch.weight


@given(DURATIONS, st.integers(2, 9))
def test_a_weight_is_as_good_as_so_many_of_them(durations: list[float], weight: int) -> None:
    weighted = QuantileSketch()
    for duration in durations:
        weighted.update(duration, weight)
    assert weighted.quantiles(SHARES) == sketched(durations * weight).quantiles(SHARES)


def test_the_order_of_what_is_asked_does_not_matter() -> None:
    sketch = sketched([1.0, 2.0, 3.0])
    forward, backward = sketch.quantiles([0.1, 0.9]), sketch.quantiles([0.9, 0.1])
    assert forward is not None
    assert backward is not None
    assert forward == backward[::-1]


@pytest.mark.parametrize("duration", [-1.0, math.nan])
def test_what_is_no_duration_is_refused(duration: float) -> None:
    sketch = QuantileSketch()
    with pytest.raises(ValueError, match="no duration"):
        sketch.update(duration)
    assert sketch.quantiles([0.5]) is None


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="no duration"):
        QuantileSketch().update(1.0, weight)


@pytest.mark.parametrize(
    ("duration", "counted"),
    [(0.0, DURATION_S_MIN), (5e-324, DURATION_S_MIN), (1e300, DURATION_S_MAX)],
)
def test_beyond_its_range_a_duration_counts_as_the_nearest(duration: float, counted: float) -> None:
    found = sketched([duration]).quantiles([0.5])
    assert found is not None
    assert found[0] == pytest.approx(counted, rel=RELATIVE_ERROR * 1.0001)


def test_the_bins_are_bounded() -> None:
    everywhere = np.geomspace(DURATION_S_MIN, DURATION_S_MAX, 50_000).tolist()
    assert len(sketched(everywhere).state()["bins"]) <= 1_383


def test_what_is_older_than_the_window_is_forgotten() -> None:
    recent = RecentQuantiles(window_s=300.0, parts=5)
    recent.update(9.0, 1.0, 0.0)
    for second in range(60, 600, 10):
        recent.update(1.0, 1.0, float(second))
    found = recent.window(600.0).quantiles([1.0])
    assert found is not None
    assert found[0] == pytest.approx(1.0, rel=0.01)
    assert recent.window(10_000.0).quantiles([0.5]) is None


def test_a_clock_that_goes_back_a_little_loses_nothing() -> None:
    recent = RecentQuantiles()
    recent.update(1.0, 1.0, 100.0)
    recent.update(1.0, 1.0, 30.0)
    assert recent.window(100.0).weight == 2.0
