"""Counts of replicas and windows add up to those of one that saw everything; so does evidence."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import DriftDetector, ProfileError, Reference, State, build_reference
from detectors.drift.fleet import (
    ABSENT_UPDATES_MAX,
    LEVEL_MAX,
    EvidenceCusum,
    ReplicaCounts,
    Scores,
    merge_counts,
)

NAMES = ("age", "colour", "income")


def rows(seed: int, n: int, shift: float = 0.0) -> dict[str, NDArray[np.object_]]:
    """A number with gaps, a category, and a number with a heavy tail."""
    rng = np.random.default_rng(seed)
    age = np.where(rng.random(n) < 0.02, np.nan, rng.normal(40 + 9 * shift, 9, n))
    columns = {
        "age": age,
        "colour": rng.choice(["red", "green", "blue"], n),
        "income": rng.lognormal(size=n),
    }
    return {name: column.astype(object) for name, column in columns.items()}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return build_reference(rows(1, 20_000))


def part(columns: dict[str, NDArray[np.object_]], which: NDArray[np.bool_]) -> dict[str, object]:
    return {name: column[which] for name, column in columns.items()}


def counted(reference: Reference, columns: dict[str, object]) -> ReplicaCounts:
    detector = DriftDetector(reference)
    detector.update(columns)
    return ReplicaCounts.of(detector)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1_000),
    n=st.integers(1, 400),
    replicas=st.integers(1, 5),
    skew=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_counts_of_replicas_add_to_those_of_one_that_saw_every_row(
    reference: Reference, seed: int, n: int, replicas: int, skew: float
) -> None:
    columns = rows(seed, n)
    # Skewed: nearly all rows go to the first; some replicas get one row or none.
    share = np.exp(-skew * np.arange(replicas))
    to = np.random.default_rng(seed).choice(replicas, n, p=share / share.sum())
    parts = [counted(reference, part(columns, to == k)) for k in range(replicas)]
    merged = merge_counts(parts)
    whole = counted(reference, part(columns, np.ones(n, dtype=bool)))
    assert merged.rows == whole.rows == n
    assert np.array_equal(merged.bins, whole.bins)
    assert np.array_equal(merge_counts(reversed(parts)).bins, whole.bins)


@settings(max_examples=20)
@given(seed=st.integers(0, 1_000), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_counts_of_windows_add_to_those_of_the_whole_time(
    reference: Reference, seed: int, cuts: list[int]
) -> None:
    columns = rows(seed, 300)
    detector = DriftDetector(reference)
    moments = [ReplicaCounts.of(detector)]
    index = np.arange(300)
    limits = [0, *sorted(cuts), 300]
    for start, end in pairwise(limits):
        detector.update(part(columns, (index >= start) & (index < end)))
        moments.append(ReplicaCounts.of(detector))
    windows = [now.since(before) for before, now in pairwise(moments)]
    assert [window.rows for window in windows] == list(np.diff(limits))
    assert np.array_equal(merge_counts(windows).bins, moments[-1].bins)


def test_what_a_replica_counted_before_it_began_again_is_not_taken_off(
    reference: Reference,
) -> None:
    before, after = (counted(reference, dict(rows(seed, n))) for seed, n in ((2, 500), (3, 40)))
    assert after.since(before) is after


def test_an_empty_replica_changes_nothing(reference: Reference) -> None:
    some, empty = counted(reference, dict(rows(2, 100))), counted(reference, {})
    merged = merge_counts([empty, some, empty])
    assert merged.rows == 100
    assert np.array_equal(merged.bins, some.bins)


def test_merging_leaves_the_parts_as_they_are(reference: Reference) -> None:
    some = counted(reference, dict(rows(2, 100)))
    kept = some.bins.copy()
    merge_counts([some, some])
    assert np.array_equal(some.bins, kept)


def test_counts_by_another_reference_are_refused(reference: Reference) -> None:
    strange = counted(build_reference(rows(9, 5_000)), dict(rows(2, 100)))
    own = counted(reference, dict(rows(2, 100)))
    with pytest.raises(ProfileError, match=f"{strange.reference[:8]} do not add"):
        merge_counts([own, strange])
    with pytest.raises(ProfileError, match="do not add"):
        own.since(strange)
    with pytest.raises(ProfileError, match="different columns"):
        merge_counts(
            [
                own,
                ReplicaCounts(
                    reference=own.reference, names=("age",), bins=own.bins[:1], rows=own.rows
                ),
            ]
        )
    with pytest.raises(ValueError, match="no counts"):
        merge_counts([])


def test_the_readings_of_a_fleet_are_those_of_one_replica_with_all_rows(
    reference: Reference,
) -> None:
    fleet, alone = DriftDetector(reference), DriftDetector(reference)
    replicas = [DriftDetector(reference) for _ in range(3)]
    seen = [ReplicaCounts.of(one) for one in replicas]
    found = []
    for tick in range(30):
        columns = rows(100 + tick, 900, shift=0.0 if tick < 10 else 0.25)
        to = np.arange(900) % 9 // 4  # four, four and one of nine rows
        for k, one in enumerate(replicas):
            one.update(part(columns, to == k))
        now = [ReplicaCounts.of(one) for one in replicas]
        added = merge_counts([n.since(s) for n, s in zip(now, seen, strict=True)])
        seen = now
        said = fleet.observe(added.bins, rows=added.rows)
        assert said == alone.update(dict(columns))
        found += said
    assert [reading.subject for reading in found][:1] == ["age"]


def counters(*steps: float, start: tuple[float, float] = (0.0, 0.0)) -> list[Scores]:
    """One score of one feature as it is counted after each step."""
    up, down = start
    found: list[Scores] = []
    for step in steps:
        up, down = up + max(step, 0.0), down + max(-step, 0.0)
        found.append({"age": {"location_+0.14": (up, down)}})
    return found


def level(cusum: EvidenceCusum) -> float:
    return cusum.levels().get("age", {}).get("location_+0.14", 0.0)


@given(
    one=st.lists(st.floats(-20, 20), min_size=2, max_size=20),
    other=st.lists(st.floats(-20, 20), min_size=2, max_size=20),
)
def test_replicas_simply_add(one: list[float], other: list[float]) -> None:
    n = min(len(one), len(other))
    cusum, expected = EvidenceCusum(), 0.0
    for tick, (a, b) in enumerate(zip(counters(*one[:n]), counters(*other[:n]), strict=True)):
        cusum.update({"a": a, "b": b})
        if tick:  # the first sight of a replica adds nothing
            expected = min(max(expected + one[tick] + other[tick], 0.0), LEVEL_MAX)
        assert level(cusum) == pytest.approx(expected, abs=1e-9)


def test_a_missed_scrape_loses_nothing_and_a_long_absence_only_power() -> None:
    seen = counters(*[0.5] * 40)
    cusum = EvidenceCusum()
    cusum.update({"a": seen[0]})
    cusum.update({"a": seen[4]})  # what was added in between comes with the next scrape
    assert level(cusum) == pytest.approx(2.0)
    for _ in range(ABSENT_UPDATES_MAX - 1):
        cusum.update({})
    cusum.update({"a": seen[5]})
    assert level(cusum) == pytest.approx(2.5)
    for _ in range(ABSENT_UPDATES_MAX):
        cusum.update({})
    cusum.update({"a": seen[25]})
    assert level(cusum) == pytest.approx(2.5)
    cusum.update({"a": seen[26]})
    assert level(cusum) == pytest.approx(3.0)


def test_a_counter_that_begins_again_adds_nothing() -> None:
    cusum = EvidenceCusum()
    # Much evidence against drift was counted before: taking it off would invent evidence for it.
    cusum.update({"a": {"age": {"location_+0.14": (4.0, 900.0)}}})
    cusum.update({"a": {"age": {"location_+0.14": (5.0, 3.0)}}})
    assert level(cusum) == 0.0
    cusum.update({"a": {"age": {"location_+0.14": (7.0, 3.5)}}})
    assert level(cusum) == pytest.approx(1.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_counter_that_is_no_number_adds_nothing(bad: float) -> None:
    cusum = EvidenceCusum()
    for counter in ((0.0, 0.0), (bad, 0.0), (1.0, bad)):
        assert cusum.update({"a": {"age": {"location_+0.14": counter}}}) == []
    assert level(cusum) == 0.0


def test_a_warning_comes_at_the_threshold_once_and_ends_at_the_floor() -> None:
    seen = counters(0, *[9.0] * 6, *[-4.0] * 9)
    cusum = EvidenceCusum()
    said = [(tick, change) for tick, s in enumerate(seen) for change in cusum.update({"a": s})]
    assert cusum.threshold == pytest.approx(math.log(43_200))
    assert [(tick, change.state) for tick, change in said] == [(2, State.WARNING), (14, State.OK)]
    assert said[0][1].explain.startswith("age: its location moved")
    assert said[0][1].evidence == pytest.approx(18 / math.log(10))


def test_an_unchanged_fleet_stays_within_its_budget_and_a_shift_is_found() -> None:
    rng = np.random.default_rng(5)
    names = [f"f{i}" for i in range(10)]
    reference = build_reference({name: rng.normal(size=50_000) for name in names})
    replicas = [DriftDetector(reference) for _ in range(3)]
    cusum = EvidenceCusum()

    def tick(shift: float) -> Sequence[str]:
        for one in replicas:
            moved = {name: rng.normal(size=40) for name in names}
            moved["f3"] += shift
            one.update(moved)
        seen = {str(k): one.score_counters() for k, one in enumerate(replicas)}
        return [change.subject for change in cusum.update(seen)]

    assert [name for _ in range(1_500) for name in tick(0.0)] == []
    ticks = next(n for n in range(1, 60) if tick(0.3) == ["f3"])
    assert ticks * 120 <= 1_500  # rows of the fleet; no replica has seen a third of them


def test_restored_evidence_goes_on_as_if_nothing_had_happened() -> None:
    seen = counters(0, 3.0, -1.0, 8.0, 5.0, 2.0, -30.0, 1.0)
    whole, first = EvidenceCusum(), EvidenceCusum()
    said = [change for s in seen for change in whole.update({"a": s})]
    before = [change for s in seen[:4] for change in first.update({"a": s})]
    second = EvidenceCusum()
    second.restore(json.loads(json.dumps(first.state())))
    assert before + [change for s in seen[4:] for change in second.update({"a": s})] == said
    assert second.levels() == whole.levels()


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"seen": [], "absent": {}, "level": {}, "warned": [], "left_out": [0, 0]},
        {"seen": {}, "absent": {}, "level": {"x": {"s": 99}}, "warned": [], "left_out": [0, 0]},
        {"seen": {}, "absent": {}, "level": {}, "warned": ["x"], "left_out": [0, 0]},
    ],
)
def test_a_state_that_does_not_fit_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="fleet evidence"):
        EvidenceCusum().restore(broken)


def test_senseless_budgets_are_refused() -> None:
    for asked in (0.0, -1.0, math.nan, math.inf, 1e-9):
        with pytest.raises(ValueError, match="false"):
            EvidenceCusum(false_alarms_per_month=asked)
