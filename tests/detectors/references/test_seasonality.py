"""Hours are compared with their own past: a cycle hides no shift, and is none itself."""

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import DriftDetector, Monitor, Reference, State, build_reference
from detectors.references.seasonality import CELL_ROWS_MIN, SeasonFitter, unix_seconds
from detectors.rows.binning import Binner, count_sorted, parts_of
from detectors.rows.bins import BINS, MISSING, NumericBins

Floats = NDArray[np.float64]

HOUR_S, DAY_H = 3_600.0, 24


def daily(
    first_h: int, hours: int, rng: np.random.Generator, *, per_hour: int = 300, shift: float = 0.0
) -> tuple[dict[str, Floats], Floats]:
    """A feature that swings by two standard deviations in a day, and one that does not."""
    rows = hours * per_hour
    times = first_h * HOUR_S + np.arange(rows) * HOUR_S / per_hour
    wave = 2 * np.sin(2 * np.pi * times / HOUR_S / DAY_H)
    steady = rng.normal(size=rows)
    return {"load": wave + rng.normal(size=rows) + shift, "steady": steady}, times


def built(days: int, rng: np.random.Generator, **options: object) -> Reference:
    columns, times = daily(0, days * DAY_H, rng)
    return build_reference(columns, timestamps=times, derive=False, **options)  # type: ignore[arg-type]


def rows_until_seen(detector: DriftDetector, start_h: int, rng: np.random.Generator) -> int | None:
    for hour in range(start_h, start_h + 10 * DAY_H):
        columns, times = daily(hour, 1, rng, shift=0.3)
        readings = detector.update(columns, times=times)
        if any(r.subject == "load" and r.state is not State.OK for r in readings):
            return (hour - start_h + 1) * 300
    return None


def test_a_daily_cycle_is_blind_without_seasons_and_sees_small_shifts_with_them() -> None:
    rng = np.random.default_rng(1)
    with_hours, pooled = built(7, rng), built(7, rng, seasonality="none")
    assert [len(p.phases) for p in with_hours.features] == [96, 0]
    assert [len(p.phases) for p in pooled.features] == [0, 0]
    detector, blind = DriftDetector(with_hours), DriftDetector(pooled)
    assert detector.detectable_shift()["load"] < 0.3 < blind.detectable_shift()["load"]
    seen = rows_until_seen(detector, 7 * DAY_H, rng)
    assert seen is not None
    assert seen <= 1_500
    assert rows_until_seen(blind, 7 * DAY_H, rng) is None


def test_the_season_itself_raises_no_alarm_for_a_month_of_days() -> None:
    rng = np.random.default_rng(2)
    detector = DriftDetector(built(7, rng))
    for hour in range(7 * DAY_H, 37 * DAY_H):
        columns, times = daily(hour, 1, rng)
        assert detector.update(columns, times=times) == []
    assert detector.rows == 30 * DAY_H * 300


def test_edges_that_rest_on_few_rows_of_an_hour_are_believed_no_more_than_these() -> None:
    """Cells of 300 rows each: an hour's mean is off by .06 standard deviations, and no drift."""
    rng = np.random.default_rng(3)
    columns, times = daily(0, 10 * DAY_H, rng, per_hour=30)
    reference = build_reference(columns, timestamps=times, derive=False)
    (load, _) = reference.features
    assert load.phases
    assert load.tolerance > 0.1
    detector = DriftDetector(reference)
    for hour in range(10 * DAY_H, 20 * DAY_H):
        columns, times = daily(hour, 1, rng, per_hour=1_000)
        assert detector.update(columns, times=times) == []


@pytest.mark.parametrize("seed", range(3))
def test_minutes_of_a_busier_stream_are_no_drift_within_their_hour(seed: int) -> None:
    """The reference is a sample of 60 rows an hour; live ticks last a few minutes each."""
    rng = np.random.default_rng(seed)
    columns, times = daily(0, 20 * DAY_H, rng, per_hour=60)
    reference = build_reference(columns, timestamps=times, derive=False)
    assert len(reference.features[0].phases) == 96
    detector = DriftDetector(reference)
    for hour in range(20 * DAY_H, 25 * DAY_H):
        columns, times = daily(hour, 1, rng, per_hour=5_000)
        for start in range(0, 5_000, 500):
            rows = slice(start, start + 500)
            tick = {name: column[rows] for name, column in columns.items()}
            assert detector.update(tick, times=times[rows]) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_autocorrelated_rows_with_a_season_raise_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 34 * DAY_H * 60
    times = np.arange(rows, dtype=np.float64) * 60.0
    noise, values = rng.normal(size=(rows, 5)), np.empty((rows, 5))
    values[0] = noise[0]
    for i in range(1, rows):
        values[i] = 0.9 * values[i - 1] + np.sqrt(1 - 0.81) * noise[i]
    values += 2 * np.sin(2 * np.pi * times / 86_400)[:, None]
    columns = {f"f{j}": values[:, j] for j in range(5)}
    known = 14 * DAY_H * 60
    first = {name: column[:known] for name, column in columns.items()}
    reference = build_reference(first, timestamps=times[:known], derive=False, tick_rows=60)
    assert any(profile.phases for profile in reference.features)
    detector = DriftDetector(reference)
    for start in range(known, rows, 60):
        tick = {name: column[start : start + 60] for name, column in columns.items()}
        assert detector.update(tick, times=times[start : start + 60]) == []


def test_of_too_many_columns_no_hours_are_kept_and_that_is_said() -> None:
    fitter = SeasonFitter()
    fitter.update({f"f{i}": np.zeros(3) for i in range(1_100)}, np.arange(3.0))
    assert fitter.finish() == {}
    assert "no seasons" in fitter.note


def test_a_week_is_a_season_where_weekends_differ_and_hours_have_enough_rows() -> None:
    rng = np.random.default_rng(4)
    rows = 4 * 7 * DAY_H * 100
    times = np.arange(rows) * HOUR_S / 100
    weekend = (times / HOUR_S / DAY_H).astype(int) % 7 >= 5
    columns = {"load": rng.normal(size=rows) + 3 * weekend}
    (week,) = build_reference(columns, timestamps=times).features
    assert len(week.phases) in (168, 672)
    (day,) = build_reference(columns, timestamps=times, seasonality="day").features
    assert len(day.phases) in (0, 24, 96)
    seldom = slice(None, None, 2)  # 200 rows in each hour of the week
    (few,) = build_reference({"load": columns["load"][seldom]}, timestamps=times[seldom]).features
    assert len(few.phases) < 168
    assert CELL_ROWS_MIN > 200


@pytest.mark.parametrize(("hours", "found"), [(47, 0), (49, 96)])
def test_a_reference_of_less_than_two_cycles_has_no_season(hours: int, found: int) -> None:
    columns, times = daily(0, hours, np.random.default_rng(5), per_hour=600)
    load = build_reference(columns, timestamps=times, derive=False).features[0]
    assert len(load.phases) == found


def test_few_different_values_and_missing_ones_have_no_season() -> None:
    rng = np.random.default_rng(6)
    columns, times = daily(0, 72, rng)
    coarse = np.round(columns["load"])
    empty = np.full(len(times), np.nan)
    reference = build_reference({"coarse": coarse, "empty": empty}, timestamps=times)
    assert [p.phases for p in reference.features] == [(), ()]


def test_hours_without_rows_have_the_edges_of_all() -> None:
    rng = np.random.default_rng(7)
    columns, times = daily(0, 7 * DAY_H, rng)
    by_day = parts_of(times, 24) >= 8
    columns = {name: column[by_day] for name, column in columns.items()}
    load = build_reference(columns, timestamps=times[by_day], derive=False).features[0]
    assert load.phases
    assert isinstance(load.bins, NumericBins)
    night, pooled = (
        np.array(load.phases[3 * len(load.phases) // 24].edges),
        np.array(load.bins.edges),
    )
    assert np.abs(night - pooled).max() < 0.05


def test_every_row_is_counted_with_the_edges_of_its_hour_and_none_without_a_time() -> None:
    rng = np.random.default_rng(8)
    load = built(7, rng).features[0]
    columns, times = daily(1_000, 30, rng)
    values = columns["load"]
    values[::7] = np.nan
    times[5::50] = np.nan
    counts = Binner([("load", load.bins)]).count({"load": values}, len(values), times)[0]
    expected = np.zeros(18, dtype=np.int64)
    for place, bins in enumerate(load.phases):
        own = np.isfinite(times) & (parts_of(times, len(load.phases)) == place)
        expected += count_sorted(values[own].astype(np.float32).astype(float), bins)
    assert counts.tolist() == expected.tolist()
    assert counts.sum() == np.isfinite(times).sum()
    assert counts[MISSING] > 0
    assert Binner([("load", load.bins)]).count({"load": values}, len(values)).sum() == 0


def test_bins_of_the_reference_are_uniform_hour_by_hour() -> None:
    load = built(7, np.random.default_rng(9)).features[0]
    p = load.probabilities()[:BINS]
    assert np.abs(p - 1 / 16).max() < 0.008


def test_a_season_survives_the_file() -> None:
    reference = built(4, np.random.default_rng(10))
    again = Reference.from_bytes(reference.to_bytes())
    assert again == reference
    assert again.features[0].phases == reference.features[0].phases


@pytest.mark.parametrize("bad", [[np.nan] * 3, [np.inf, -np.inf, 1e308], [0.0, -1e300, 5.0]])
def test_times_of_any_kind_raise_nothing(bad: list[float]) -> None:
    fitter = SeasonFitter()
    fitter.update({"x": [1.0, 2.0, 3.0]}, np.array(bad))
    assert all(seasons for seasons in fitter.finish().values())


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="known are auto, day, week"):
        SeasonFitter(wanted="year")
    with pytest.raises(ValueError, match="1 times for 2 rows"):
        SeasonFitter().update({"x": [1.0, 2.0]}, np.zeros(1))


def test_dates_are_seconds_and_what_is_no_time_is_none() -> None:
    dates = np.array(["1970-01-01T01:00", "NaT"], dtype="datetime64[m]")
    assert unix_seconds(dates)[0] == 3_600
    assert np.isnan(unix_seconds(dates)[1])
    assert np.isnan(unix_seconds(np.array(["soon"], dtype=object))).all()


def fitted(days: int) -> int:
    """The peak memory of looking for seasons in so many days, in bytes."""
    rng = np.random.default_rng(0)
    fitter = SeasonFitter()
    tracemalloc.start()
    for day in range(days):
        columns, times = daily(day * DAY_H, DAY_H, rng, per_hour=400)
        fitter.update(columns, times)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_looking_for_seasons_takes_no_memory_for_rows() -> None:
    """A sketch grows by a level when rows double: four times the rows are two of some eight."""
    assert fitted(200) < 1.6 * fitted(50)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_rows_may_be_dates_as_they_may_be_for_the_reference(unit: str) -> None:
    rng = np.random.default_rng(31)

    def rows(days: float) -> tuple[np.ndarray, np.ndarray]:
        times = 1_700_000_000 + np.arange(0, days * 86_400, 6.0)
        level = 3 * np.sin(2 * np.pi * times / 86_400)
        dates = (times * 1e3).astype("datetime64[ms]").astype(f"datetime64[{unit}]")
        return rng.normal(level, 1.0), dates

    values, dates = rows(4)
    monitor = Monitor(build_reference({"x": values}, timestamps=dates))
    assert monitor.reference.features[0].phases
    values, dates = rows(1)
    for start in range(0, len(values), 100):
        part = slice(start, start + 100)
        assert monitor.update({"x": values[part]}, times=dates[part]) == []
