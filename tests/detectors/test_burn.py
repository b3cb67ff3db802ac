"""Burn rates and what is left of a budget: against counting by hand, over restarts and resets."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.burn import DAY_S, HOUR_S, MINUTE_S, WINDOWS, Burn


def fed(burn: Burn, minutes: int, *, bad: float, total: float, start: float = 0.0) -> float:
    """Steady requests from `start` on, told every minute; the time at the end."""
    burn.update(bad=0, total=0, at=start)
    for minute in range(1, minutes + 1):
        burn.update(bad=bad * minute, total=total * minute, at=start + minute * MINUTE_S)
    return start + minutes * MINUTE_S


def test_a_tenth_of_a_percent_failing_is_the_whole_budget_of_three_nines() -> None:
    burn = Burn(0.999)
    now = fed(burn, 400, bad=1, total=1_000)
    for window_s in (300.0, 1_800.0, 3_600.0, 21_600.0):
        assert burn.rate(window_s, now) == pytest.approx(1.0)
    assert burn.remaining(now) == pytest.approx(0.0)


def test_short_windows_forget_what_long_ones_remember() -> None:
    burn = Burn(0.99)
    now = fed(burn, 30, bad=50, total=100)
    burn.update(bad=1_500, total=3_000 + 6_000, at=now + HOUR_S)
    assert burn.rate(300.0, now + HOUR_S) == 0.0
    assert burn.rate(21_600.0, now + HOUR_S) == pytest.approx(1_500 / 9_000 / 0.01)


def test_without_requests_nothing_burns() -> None:
    burn = Burn(0.99)
    burn.update(bad=0, total=0, at=0.0)
    burn.update(bad=0, total=0, at=60.0)
    assert burn.rate(300.0, 60.0) is None
    assert burn.remaining(60.0) == 1.0


def test_the_first_counts_after_a_start_are_no_requests() -> None:
    burn = Burn(0.99)
    burn.update(bad=500, total=1_000_000, at=0.0)
    assert burn.rate(3_600.0, 0.0) is None
    burn.update(bad=500, total=1_000_100, at=60.0)
    assert burn.rate(3_600.0, 60.0) == 0.0


def test_counters_that_begin_anew_count_from_zero() -> None:
    burn = Burn(0.9)
    fed(burn, 2, bad=0, total=100)
    burn.update(bad=5, total=50, at=180.0)
    assert burn.rate(3_600.0, 180.0) == pytest.approx(5 / 250 / 0.1)


def test_more_than_the_budget_leaves_less_than_nothing() -> None:
    burn = Burn(0.9, window_s=DAY_S)
    now = fed(burn, 60, bad=50, total=100)
    assert burn.remaining(now) == pytest.approx(1 - 5.0)


def test_what_is_older_than_the_objective_is_forgotten() -> None:
    burn = Burn(0.9, window_s=2 * DAY_S)
    now = fed(burn, 60, bad=100, total=100)
    assert burn.remaining(now + 3 * DAY_S) == 1.0


def test_a_month_of_minutes_is_a_thousand_numbers() -> None:
    burn = Burn(0.9)
    for minute in range(0, 60 * 24 * 40, 7):
        burn.update(bad=minute, total=minute * 2, at=minute * MINUTE_S)
    state = burn.state()
    assert len(state["minutes"]) <= 361
    assert len(state["hours"]) <= 721


@given(
    st.lists(
        st.tuples(st.floats(0, 7_200), st.integers(0, 50), st.integers(0, 50)),
        min_size=1,
        max_size=60,
    )
)
def test_every_window_is_what_counting_by_hand_gives(steps: list[tuple[float, int, int]]) -> None:
    burn = Burn(0.95)
    now, bad, good = 1e9, 0, 0
    burn.update(bad=0, total=0, at=now)
    seen: list[tuple[float, int, int]] = []
    for wait_s, more_bad, more_good in steps:
        now += wait_s
        bad, good = bad + more_bad, good + more_good
        burn.update(bad=bad, total=bad + good, at=now)
        seen.append((now, more_bad, more_good))
    again = Burn(0.95)
    again.restore(json.loads(json.dumps(burn.state())))
    for window_s in WINDOWS:
        width_s = MINUTE_S if window_s <= 6 * HOUR_S else HOUR_S
        first = math.floor((now - window_s) / width_s)
        inside = [(b, g) for at, b, g in seen if math.floor(at / width_s) > first]
        total = sum(b + g for b, g in inside)
        expected = sum(b for b, _ in inside) / total / 0.05 if total else None
        assert burn.rate(window_s, now) == (None if expected is None else pytest.approx(expected))
        assert again.rate(window_s, now) == burn.rate(window_s, now)


@pytest.mark.parametrize("objective", [0.0, 1.0, 1.5, -1.0, math.nan])
def test_an_objective_without_a_budget_is_refused(objective: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Burn(objective)
