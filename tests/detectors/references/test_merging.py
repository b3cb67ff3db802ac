"""References of parts add up to the reference of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DriftDetector, ProfileError, build_reference, merge
from detectors.references.merging import dropped
from detectors.rows.binning import MISSING


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


def related(seed: int, rows: int = 3_000) -> dict[str, np.ndarray]:
    """Two features that go together, a score and what came true."""
    rng = np.random.default_rng(seed)
    a, p = rng.normal(size=rows), rng.random(rows)
    truth = (rng.random(rows) < p).astype(float)
    return {"a": a, "b": a + 0.3 * rng.normal(size=rows), "p": p, "y": truth}


def test_what_is_derived_in_two_ways_is_dropped_and_that_is_said() -> None:
    a, b = (build_reference(related(seed), score="p", label="y") for seed in (0, 1))
    assert a.projections
    assert b.projections
    merged = merge(a, b)
    assert merged.projections == ()
    assert merged.derivation is None
    assert merged.feature_names == ("a", "b")
    assert any("derived" in what for what in dropped(a, b))
    assert dropped(a, a) == []
    same = merge(a, a)
    assert [p.rows for p in same.projections] == [6_000] * len(a.projections)


def test_labels_and_errors_of_parts_add() -> None:
    a, b = (build_reference(related(seed), score="p", label="y") for seed in (0, 1))
    merged = merge(a, b)
    assert merged.label is not None
    assert merged.label.rows == 6_000
    assert merged.baseline is not None
    assert a.baseline is not None
    assert b.baseline is not None
    assert merged.baseline.errors == a.baseline.errors + b.baseline.errors
    assert merged.baseline.estimation is not None
    assert merged.baseline.estimation["rows"] == 6_000


def test_parts_with_different_outputs_or_tasks_are_refused() -> None:
    rows = related(0)
    scored, bare = build_reference(rows, score="p"), build_reference(rows, ignored=["p"])
    with pytest.raises(ProfileError, match="the prediction"):
        merge(scored, bare)
    with pytest.raises(ProfileError, match="task"):
        merge(
            build_reference(rows, task="classification"), build_reference(rows, task="regression")
        )


@given(skew=st.floats(1, 6), cut=st.integers(0, 3_000), seed=st.integers(0, 3))
def test_skewed_parts_keep_every_row_and_the_limits(skew: float, cut: int, seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(sigma=skew, size=3_000)
    a, b = (build_reference({"x": np.sort(part)}) for part in (values[:cut], values[cut:]))
    (feature,) = merge(a, b).features
    assert feature.rows == pytest.approx(3_000)
    assert (feature.minimum, feature.maximum) == (values.min(), values.max())


def test_seasons_with_other_edges_are_refused_and_with_the_same_ones_add() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(7 * 24 * 60) * 60.0
    wave = 2 * np.sin(2 * np.pi * times / 86_400)
    parts = [
        build_reference({"load": wave + rng.normal(size=len(times))}, timestamps=times)
        for _ in range(2)
    ]
    assert all(part.features[0].phases for part in parts)
    with pytest.raises(ProfileError, match="'load' has seasons"):
        merge(*parts)
    twice = merge(parts[0], parts[0]).features[0]
    assert twice.bins == parts[0].features[0].bins
    assert twice.counts == tuple(2 * count for count in parts[0].features[0].counts)
