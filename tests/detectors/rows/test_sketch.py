"""Constant memory, with the error that the docstring promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.rows.sketch import KEYS_MAX, POINTS_MAX, KeyTable, Points, QuantileSketch


def sketch_of(values: np.ndarray, chunk: int = 1_000) -> QuantileSketch:
    sketch = QuantileSketch()
    for start in range(0, len(values), chunk):
        sketch.update(values[start : start + chunk])
    return sketch


def rank_error(points: Points, values: np.ndarray) -> float:
    wanted = np.arange(1, 100) / 100
    found = [points.quantile(share) for share in wanted]
    ranks = np.searchsorted(np.sort(values), found, side="right") / len(values)
    return float(np.abs(ranks - wanted).max())


@pytest.mark.parametrize("order", ["random", "rising", "sawtooth"])
def test_rank_error_stays_small_over_many_rows(order: str) -> None:
    values = np.random.default_rng(0).normal(size=300_000)
    if order == "rising":
        values.sort()
    elif order == "sawtooth":
        values = np.sort(values).reshape(300, 1_000).T.reshape(-1)
    assert rank_error(sketch_of(values).points(), values) < 0.008


def test_memory_does_not_grow_with_the_rows() -> None:
    sketch = sketch_of(np.random.default_rng(1).normal(size=500_000), chunk=10_000)
    assert sum(len(level) for level in sketch._levels) < 512 * 13
    assert len(sketch.points().values) <= POINTS_MAX


@given(values=st.lists(st.integers(-100, 100), max_size=400), cut=st.integers(0, 400))
def test_few_different_values_are_counted_exactly_however_cut(values: list[int], cut: int) -> None:
    array = np.array(values, dtype=np.float64)
    whole = sketch_of(array).points()
    parts = sketch_of(array[:cut]).points().merged(sketch_of(array[cut:]).points())
    assert whole == parts
    assert whole.exact
    assert sum(whole.weights) == len(values)


@given(seed=st.integers(0, 20), cut=st.integers(0, 5_000))
def test_merging_does_not_care_who_comes_first(seed: int, cut: int) -> None:
    values = np.random.default_rng(seed).lognormal(size=5_000)
    a, b = sketch_of(values[:cut]).points(), sketch_of(values[cut:]).points()
    assert a.merged(b) == b.merged(a)
    assert sum(a.merged(b).weights) == pytest.approx(5_000)
    assert rank_error(a.merged(b), values) < 0.02


def test_an_empty_sketch_has_no_quantile() -> None:
    assert np.isnan(QuantileSketch().points().quantile(0.5))


def test_heavy_keys_survive_a_storm_within_the_promised_error() -> None:
    table, rows = KeyTable(), 0
    for wave in range(20):
        table.update({"heavy": 500} | {f"storm{wave}-{i}": 1 for i in range(500)})
        rows += 1_000
    assert not table.exact
    assert len(table.counts) <= KEYS_MAX
    assert 10_000 - rows / KEYS_MAX <= table.counts["heavy"] <= 10_000
