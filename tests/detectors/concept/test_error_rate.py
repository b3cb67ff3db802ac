"""The error-stream detector: how seldom it errs, how soon it sees, and what it says afterwards."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.concept.error_rate import CALM_ROWS, ConceptChange, ErrorRateDetector

CHUNK = 10


def detector(rate: float = 0.05, *, alarm_rows: float = 1e6, rows: int = 5_000) -> Any:
    """Budgeted for one false alarm in `alarm_rows` rows, when fed CHUNK rows at a time."""
    return ErrorRateDetector(
        errors=round(rate * rows),
        rows=rows,
        false_alarms_per_month=float(CHUNK),
        ticks_per_month=alarm_rows,
    )


def feed(
    watching: ErrorRateDetector, rate: float, rows: int, rng: np.random.Generator
) -> list[tuple[int, ConceptChange]]:
    """Rows of an error rate; the changes, and after how many rows each came."""
    found = []
    for number, errors in enumerate(rng.binomial(CHUNK, rate, rows // CHUNK).tolist()):
        for change in watching.update(rows=CHUNK, errors=errors):
            found.append(((number + 1) * CHUNK, change))
    return found


def delays(before: float, after: float, seeds: range) -> list[float]:
    """Rows until the change is drift, each with a baseline of 5,000 rows of its own."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        watching = detector(float(rng.binomial(5_000, before)) / 5_000)
        assert feed(watching, before, 2_000, rng) == []
        changes = feed(watching, after, 5_000, rng)
        assert changes[0][1].state == "drift"
        found.append(float(changes[0][0]))
    return found


@pytest.mark.parametrize(("before", "after", "rows_max"), [(0.05, 0.1, 550), (0.2, 0.3, 400)])
def test_a_change_is_seen_soon(before: float, after: float, rows_max: int) -> None:
    assert np.median(delays(before, after, range(10, 40))) <= rows_max


@pytest.mark.parametrize(("before", "after", "rows_max"), [(0.05, 0.1, 750), (0.2, 0.3, 600)])
def test_a_change_is_seen_soon_under_its_share_of_the_agents_budget(
    before: float, after: float, rows_max: int
) -> None:
    """A tenth of a false alarm a month, and a hundred labelled rows a minute, ten at a time."""
    found = []
    for seed in range(10, 30):
        rng = np.random.default_rng(seed)
        watching = ErrorRateDetector(
            errors=int(rng.binomial(5_000, before)), rows=5_000, false_alarms_per_month=0.1
        )
        for rate, rows in ((before, 2_000), (after, 5_000)):
            for number, errors in enumerate(rng.binomial(CHUNK, rate, rows // CHUNK).tolist()):
                if watching.update(rows=CHUNK, errors=errors, ticks=0.1):
                    assert rate == after
                    found.append((number + 1) * CHUNK)
                    break
    assert len(found) == 20
    assert np.median(found) <= rows_max


def test_beginning_anew_forgets_what_was_latched() -> None:
    watching = detector(0.05)
    fresh = watching.state()
    feed(watching, 0.3, 500, np.random.default_rng(11))
    assert watching.status == "drift"
    watching.rearm()
    assert watching.state() == fresh


def test_a_rate_of_something_else_is_called_by_its_name() -> None:
    watching = ErrorRateDetector(errors=500, rows=5_000, what="the share of label 'yes'")
    [(_, change)] = feed(watching, 0.4, 500, np.random.default_rng(12))
    assert change.explain.startswith("the share of label 'yes' rose from 0.100 to 0.")


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_false_alarms_stay_within_the_budget(rate: float) -> None:
    # 50 baselines with 20,000 rows each: a million rows, one alarm of the budget.
    alarms = 0
    for seed in range(50):
        rng = np.random.default_rng([seed, 77])
        watching = detector(float(rng.binomial(5_000, rate)) / 5_000)
        alarms += len(feed(watching, rate, 20_000, rng))
    assert alarms <= 1


def test_a_baseline_that_is_right_is_hardly_ever_alarmed_on() -> None:
    for rate in (0.01, 0.3, 0.9):
        assert feed(detector(rate), rate, 30_000, np.random.default_rng(3)) == []


def test_the_reading_says_what_happened() -> None:
    rng = np.random.default_rng(1)
    watching = detector(0.05)
    feed(watching, 0.05, 5_000, rng)
    [(row, change)] = feed(watching, 0.2, 500, rng)
    assert (change.state, change.direction) == ("drift", "up")
    assert change.baseline_rate == pytest.approx(0.05, abs=0.001)
    assert change.rate == pytest.approx(0.2, abs=0.06)
    assert abs(change.rows - row) <= 100  # it began about where it is said to have begun
    assert change.log10_evidence >= 0.0
    assert change.explain.startswith("the error rate rose from 0.050 to 0.")


def test_better_is_seen_as_well() -> None:
    rng = np.random.default_rng(2)
    watching = detector(0.3)
    [(row, change)] = feed(watching, 0.15, 1_500, rng)
    assert (change.state, change.direction) == ("drift", "down")
    assert row < 800


def test_a_return_is_said_and_the_next_change_is_seen() -> None:
    rng = np.random.default_rng(4)
    watching = detector(0.05)
    said: list[str] = []
    for rate, rows in ((0.05, 3_000), (0.2, 3_000), (0.05, 3_000), (0.2, 3_000), (0.4, 4_000)):
        said += [f"{c.state} {c.direction}" for _, c in feed(watching, rate, rows, rng)]
    # The last step is a change on top of a change: it is seen against the new level.
    assert said == ["drift up", "ok down", "drift up", "drift up"]
    assert watching.status == "drift"


def test_a_short_outburst_does_not_last_for_ever() -> None:
    rng = np.random.default_rng(5)
    watching = detector(0.05)
    changes = [c for _, c in feed(watching, 0.5, 60, rng) + feed(watching, 0.05, 9_000, rng)]
    assert [change.state for change in changes] == ["drift", "ok"]
    assert changes[1].direction == "down"


def large_baseline(effect_min: float) -> ErrorRateDetector:
    return ErrorRateDetector(
        errors=5_000,
        rows=100_000,
        false_alarms_per_month=CHUNK,
        ticks_per_month=1e5,
        effect_min=effect_min,
    )


def test_a_small_change_is_a_warning_once_and_is_taken_back() -> None:
    rng = np.random.default_rng(6)
    watching = large_baseline(effect_min=0.05)
    small = [c.state for _, c in feed(watching, 0.062, 30_000, rng)]
    assert small == ["warning"]
    assert watching.status == "warning"
    back = [c.state for _, c in feed(watching, 0.05, 3 * CALM_ROWS, rng)]
    assert back == ["ok"]


def test_a_warning_grows_into_a_drift() -> None:
    rng = np.random.default_rng(7)
    watching = large_baseline(effect_min=0.05)
    said = [c.state for _, c in feed(watching, 0.062, 10_000, rng) + feed(watching, 0.2, 900, rng)]
    assert said == ["warning", "drift"]


def test_without_a_baseline_the_first_rows_are_it() -> None:
    rng = np.random.default_rng(8)
    watching = ErrorRateDetector()
    assert (watching.status, watching.baseline_rate) == ("insufficient_data", None)
    assert feed(watching, 0.1, 1_000, rng) == []
    assert watching.status == "ok"
    assert watching.baseline_rate == pytest.approx(0.1, abs=0.03)
    assert [c.state for _, c in feed(watching, 0.4, 500, rng)] == ["drift"]


def test_a_new_version_starts_with_its_own_baseline() -> None:
    watching = detector(0.05)
    feed(watching, 0.3, 500, np.random.default_rng(9))
    watching.rebase(errors=300, rows=1_000)
    assert watching.status == "ok"
    assert feed(watching, 0.3, 2_000, np.random.default_rng(10)) == []
    watching.rebase()
    assert watching.status == "insufficient_data"


def test_time_without_rows_and_rows_without_time() -> None:
    watching = detector(0.05)
    before = watching.state()
    assert watching.update(rows=0, errors=0) == []
    assert watching.state() == before
    # No share of the budget passes, so none is spent, whatever is seen.
    for _ in range(100):
        assert watching.update(rows=10, errors=10, ticks=0.0) == []


@pytest.mark.parametrize("bad", [(5, 6), (5, -1), (-1, 0)])
def test_counts_that_cannot_be_are_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="errors in"):
        detector().update(rows=bad[0], errors=bad[1])
    with pytest.raises(ValueError, match="baseline"):
        ErrorRateDetector(rows=bad[0], errors=bad[1])


@pytest.mark.parametrize("baseline", [(0, 100), (100, 100), (0, 1), (1, 1), (50_000, 10**6)])
def test_no_baseline_breaks_the_arithmetic(baseline: tuple[int, int]) -> None:
    watching = ErrorRateDetector(errors=baseline[0], rows=baseline[1])
    for errors in (0, 10, 100_000, 0):
        watching.update(rows=max(errors, 100_000), errors=errors)
        assert np.isfinite(watching.log10_evidence)


STREAM = st.lists(
    st.tuples(st.integers(0, 300), st.floats(0, 1), st.sampled_from([1.0, 0.3, 0.0])), max_size=60
)


@settings(max_examples=60)
@given(stream=STREAM, cut=st.integers(0, 60), known=st.booleans())
def test_a_restart_changes_nothing(
    stream: list[tuple[int, float, float]], cut: int, known: bool
) -> None:
    def fresh() -> ErrorRateDetector:
        rows = 2_000 if known else 0
        return ErrorRateDetector(
            errors=rows // 10, rows=rows, learn_rows=300, rearm_rows=300, ticks_per_month=50
        )

    def run(watching: ErrorRateDetector, part: list[tuple[int, float, float]]) -> list[Any]:
        return [
            watching.update(rows=rows, errors=int(rows * share), ticks=ticks)
            for rows, share, ticks in part
        ]

    through = fresh()
    expected = run(through, stream)
    before, after = fresh(), fresh()
    got = run(before, stream[:cut])
    saved = json.loads(json.dumps(before.state()))
    after.restore(saved)
    assert after.state() == saved
    assert got + run(after, stream[cut:]) == expected
    assert after.state() == through.state()


@given(parts=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=4))
def test_counts_of_replicas_add(parts: list[tuple[int, float]]) -> None:
    """A fleet's detector is fed sums: nothing of who saw which row is needed."""
    rows = [count for count, _ in parts]
    errors = [int(count * share) for count, share in parts]
    one, other = detector(), detector()
    for _ in range(5):
        one.update(rows=sum(rows), errors=sum(errors))
        other.update(rows=sum(reversed(rows)), errors=sum(reversed(errors)))
    assert one.state() == other.state()
