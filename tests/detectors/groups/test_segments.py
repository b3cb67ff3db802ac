"""Segments: each is watched against its own rows, bounded, and every word of it is marked."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import Moment, ProfileError, Reading, Reference, ReferenceBuilder, build_reference
from detectors.groups.segments import PAIRS_MAX, SegmentWatch, split
from detectors.rows.columns import as_table

Columns = dict[str, NDArray[Any]]


def rows(n: int, rng: np.random.Generator, **shifts: float) -> Columns:
    """Segments differ in level: what is usual in one is drift in another."""
    region = rng.choice(np.array(["north", "south", "west"], dtype=object), n, p=[0.6, 0.3, 0.1])
    levels = {"north": 0.0, "south": 5.0, "west": -5.0}
    level = np.array([levels[name] + shifts.get(name, 0.0) for name in region])
    return {"x": level + rng.normal(size=n), "y": rng.normal(size=n), "region": region}


def reference(seed: int = 0) -> Reference:
    return build_reference(
        rows(40_000, np.random.default_rng(seed)), kinds={"region": "categorical"}, segment="region"
    )


REFERENCE = reference()


def feed(watch: SegmentWatch, columns: Columns, row: int = 1_000) -> list[Reading]:
    return watch.update(as_table(columns), moment=Moment(row=row, at=None))


def test_a_drift_in_one_segment_is_said_of_that_segment_and_marked() -> None:
    rng = np.random.default_rng(1)
    watch = SegmentWatch(REFERENCE)
    assert [feed(watch, rows(1_000, rng)) for _ in range(40)] == [[]] * 40
    heard = [r for _ in range(20) for r in feed(watch, rows(1_000, rng, west=1.0), row=60_000)]
    assert heard
    for reading in heard:
        assert (reading.subject, reading.detector, reading.row) == (
            "x",
            "e_detector:segment=west",
            60_000,
        )
        assert reading.explain.endswith("(segment region=west, outside the budget)")
        assert reading.window.end == 60_000
    assert set(watch.detectors()) == {"north", "south", "west"}


def test_rows_of_other_segments_count_for_none() -> None:
    rng = np.random.default_rng(2)
    watch = SegmentWatch(REFERENCE)
    for _ in range(20):
        columns = rows(1_000, rng)
        columns["region"] = np.array([f"new {k}" for k in range(1_000)], dtype=object)
        assert feed(watch, columns) == []
    assert watch.detectors() == {}


def test_the_segment_may_be_given_beside_the_columns() -> None:
    rng = np.random.default_rng(3)
    watch, other = SegmentWatch(REFERENCE), SegmentWatch(REFERENCE)
    for _ in range(10):
        columns = rows(1_000, rng, south=2.0)
        region = columns.pop("region")
        moment = Moment(row=1_000, at=None)
        given_apart = watch.update(as_table(columns), moment=moment, segment=region)
        alone = feed(other, columns | {"region": region})
        assert given_apart == [r for r in alone if r.subject != "region"]
        assert feed(watch, columns) == []  # nobody says which rows are whose


def test_a_restart_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    straight, halved = SegmentWatch(REFERENCE), SegmentWatch(REFERENCE)
    heard = 0
    for tick in range(30):
        columns = rows(800, rng, north=0.4 if tick > 9 else 0.0)
        if tick == 12:
            state = halved.state()
            halved = SegmentWatch(REFERENCE)
            halved.restore(state)
        first = feed(straight, columns)
        assert first == feed(halved, columns)
        heard += len(first)
    assert heard
    with pytest.raises(ValueError, match="'north'"):
        SegmentWatch(build_reference({"x": np.arange(500.0)})).restore(straight.state())


def test_pairs_of_segment_and_feature_are_bounded() -> None:
    rng = np.random.default_rng(5)
    wide: Columns = {f"c{j}": rng.normal(size=400) for j in range(300)}
    wide["segment"] = np.array([f"s{k % 20}" for k in range(400)], dtype=object)
    known = build_reference(wide, kinds={"segment": "categorical"}, segment="segment")
    watch = SegmentWatch(known)
    assert len(watch.names) * len(known.features) <= PAIRS_MAX
    assert known.segments is not None
    assert (*watch.names, *watch.left_out) == known.segments.names
    feed(watch, wide)
    assert set(watch.detectors()) == set(watch.names)


def test_a_reference_without_segments_has_nothing_watched() -> None:
    watch = SegmentWatch(build_reference({"x": np.arange(500.0)}))
    assert feed(watch, {"x": np.full(1_000, 1e9)}) == []
    with pytest.raises(ValueError, match="above 0"):
        SegmentWatch(REFERENCE, false_alarms_per_month=0.0)


CELLS = st.sampled_from(["a", "b", None, 1, 1.0, float("nan"), [1], "other", "missing"])


@given(st.lists(CELLS, max_size=30), st.permutations(["a", "1", "missing", "other"]))
def test_every_row_is_in_one_segment_or_in_none(cells: list[Any], names: list[str]) -> None:
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    parts = split(column, tuple(names[:3]))
    seen = [row for _, rows_ in parts for row in rows_.tolist()]
    assert len(set(seen)) == len(seen)
    if "other" in names[:3]:
        assert sorted(seen) == list(range(len(cells)))
    for name, rows_ in parts:
        assert all(rows_ == np.sort(rows_))
        if name == "1":
            assert all(cells[row] == 1 for row in rows_.tolist())


def test_segments_of_a_sensitive_column_are_refused_for_they_would_be_named() -> None:
    with pytest.raises(ProfileError, match="'sex' is sensitive"):
        ReferenceBuilder(segment="sex", sensitive=["sex"])
