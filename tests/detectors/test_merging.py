"""References of parts add up to the reference of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DriftDetector, ProfileError, build_reference, merge
from detectors.binning import MISSING


@given(
    values=st.lists(st.integers(0, 9) | st.none(), min_size=1, max_size=200),
    cut=st.integers(0, 200),
)
def test_counts_of_parts_add(values: list[int | None], cut: int) -> None:
    column = np.array(values, dtype=object)
    kinds = {"n": "numeric", "c": "categorical"}
    a, b, whole = (
        build_reference({"n": part, "c": part}, kinds=kinds, ordered=False)
        for part in (column[:cut], column[cut:], column)
    )
    merged = merge(a, b)
    assert merged.rows == whole.rows
    for mine, theirs in zip(merged.features, whole.features, strict=True):
        assert mine.counts == theirs.counts
        assert mine.bins == theirs.bins


@given(seed=st.integers(0, 10), cut=st.integers(0, 4_000))
def test_which_part_comes_first_does_not_matter(seed: int, cut: int) -> None:
    values = np.random.default_rng(seed).lognormal(size=4_000)
    values[::50] = np.nan
    a, b = (build_reference({"x": part}) for part in (values[:cut], values[cut:]))
    merged = merge(a, b)
    assert merged.digest == merge(b, a).digest
    (feature,) = merged.features
    assert feature.rows == pytest.approx(4_000)
    assert feature.counts[MISSING] == 80
    assert feature.probabilities()[:16].max() < 1 / 16 + 0.02


def test_a_merged_reference_raises_no_alarm_on_its_own_distribution() -> None:
    rng = np.random.default_rng(3)
    a, b = (build_reference({"x": rng.normal(size=20_000)}) for _ in range(2))
    monitor = DriftDetector(merge(a, b))
    assert [r for _ in range(200) for r in monitor.update({"x": rng.normal(size=1_000)})] == []
    assert monitor.update({"x": rng.normal(0.5, 1, size=1_000)})


def test_an_empty_part_changes_nothing() -> None:
    whole = build_reference({"x": np.arange(100.0)})
    empty = build_reference({"x": np.array([])})
    assert merge(whole, empty) == whole
    assert merge(empty, whole) == whole


def test_parts_of_different_data_are_refused_by_name() -> None:
    a, b = build_reference({"x": [1.0], "y": [1.0]}), build_reference({"x": [1.0]})
    with pytest.raises(ProfileError, match=r"\['y'\]"):
        merge(a, b)
    text = build_reference({"x": np.array(["a"], dtype=object)})
    with pytest.raises(ProfileError, match="'x' is numeric in one"):
        merge(b, text)
