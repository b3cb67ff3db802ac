"""Cron lines fire when cron would, in their own time zone, with time as an argument."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.schedule import Schedule, ScheduleError


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def after(cron: str, text: str, zone: str = "UTC") -> str:
    found = Schedule(cron=cron, timezone=zone).next_after(at(text, zone))
    assert found is not None
    return datetime.fromtimestamp(found, ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M")


def test_the_next_time_is_strictly_after() -> None:
    assert after("0 3 * * *", "2026-11-23T02:59") == "Mon 2026-11-23 03:00"
    assert after("0 3 * * *", "2026-11-23T03:00") == "Tue 2026-11-24 03:00"


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * 0", "Sun 2026-11-29 03:00"),
        ("0 3 * * 7", "Sun 2026-11-29 03:00"),
        ("0 3 * * 1", "Mon 2026-11-30 03:00"),
        ("0 3 * * 1-5", "Tue 2026-11-24 03:00"),
        ("0 3 * * sat-sun", "Sat 2026-11-28 03:00"),
        ("0 3 * * */3", "Wed 2026-11-25 03:00"),
        ("@weekly", "Sun 2026-11-29 00:00"),
        ("*/15 * * * *", "Mon 2026-11-23 12:15"),
        ("0 0 1 * *", "Tue 2026-12-01 00:00"),
        # Both days restricted: cron takes either, the 13th or any Friday.
        ("0 0 13 * 5", "Fri 2026-11-27 00:00"),
        ("0 0 24 * 5", "Tue 2026-11-24 00:00"),
    ],
)
def test_fields_mean_what_they_mean_to_cron(cron: str, expected: str) -> None:
    assert after(cron, "2026-11-23T12:00") == expected


def test_local_time_moves_with_the_clocks() -> None:
    assert after("0 3 * * *", "2026-03-28T12:00", "Europe/Berlin") == "Sun 2026-03-29 03:00"
    berlin = Schedule(cron="0 3 * * *", timezone="Europe/Berlin")
    assert berlin.next_after(at("2026-07-01T00:00")) == at("2026-07-01T01:00")
    assert berlin.next_after(at("2026-12-01T00:00")) == at("2026-12-01T02:00")


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/20 * * * *", "0 * * * *"])
def test_changes_of_the_clocks_neither_stop_nor_stutter(cron: str) -> None:
    schedule = Schedule(cron=cron, timezone="Europe/Berlin")
    for day in ("2026-03-28T00:00", "2026-10-24T00:00"):
        moment = at(day)
        for _ in range(300):
            following = schedule.next_after(moment)
            assert following is not None
            assert moment < following <= moment + 2 * 86_400
            moment = following


@given(st.floats(0, 4e9), st.sampled_from(["0 3 * * *", "*/7 * * * *", "5 4 1 * 2"]))
def test_there_is_always_a_later_time(moment: float, cron: str) -> None:
    following = Schedule(cron=cron).next_after(moment)
    assert following is not None
    assert following > moment


def test_a_date_that_never_comes_never_fires() -> None:
    assert Schedule(cron="0 0 30 2 *").next_after(datetime.now(UTC).timestamp()) is None


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "61 * * * *", "x * * * *", "* * * * 8", "* * * * 5-2", "* * * * */0"]
)
def test_nonsense_is_refused_with_a_reason(cron: str) -> None:
    with pytest.raises(ScheduleError, match=r"\S"):
        Schedule(cron=cron)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", ""])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ScheduleError, match="no time zone"):
        Schedule(cron="0 3 * * *", timezone=zone)
