"""Bets on what scores mean: how seldom they err, how soon they see, and what they leave alone."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.concept.calibration_drift import CALM_ROWS, CalibrationDetector
from detectors.concept.score_levels import Cells, Floats, score_level
from detectors.reading import Change, Kind, State

Meaning = Callable[[Floats], Floats]
BINS = 64


def odds(scores: Floats, *, slope: float = 1.0, shift: float = 0.0) -> Floats:
    """How often scores come true when their log-odds are stretched and moved."""
    logit = np.log(scores / (1 - scores))
    true: Floats = 1 / (1 + np.exp(-(slope * logit + shift)))
    return true


def honest(scores: Floats) -> Floats:
    """Scores that mean what they say."""
    return scores


def drawn(rng: np.random.Generator, rows: int, shape: tuple[float, float] = (1.0, 3.0)) -> Floats:
    return np.clip(rng.beta(*shape, rows), 1e-6, 1 - 1e-6)


def table(scores: Floats, outcomes: Floats) -> dict[str, Any]:
    """The labelled reference as counts per score bin."""
    edges = np.unique(np.quantile(scores, np.arange(1, BINS) / BINS))
    bins = np.searchsorted(edges, scores, side="left")
    count = len(edges) + 1
    return {
        "edges": edges,
        "rows": np.bincount(bins, minlength=count).astype(np.float64),
        "positives": np.bincount(bins, outcomes, count),
        "score_sums": np.bincount(bins, scores, count),
    }


def detector(
    seed: int,
    *,
    meaning: Meaning = honest,
    rows: int = 5_000,
    shape: tuple[float, float] = (1.0, 3.0),
    **options: Any,
) -> CalibrationDetector:
    """Budgeted for one false alarm in a million rows, when fed as `feed` does."""
    rng = np.random.default_rng([seed, 1])
    scores = drawn(rng, rows, shape)
    outcomes = (rng.random(rows) < meaning(scores)).astype(np.float64)
    limits = {"false_alarms_per_month": 1.0, "ticks_per_month": 1_000.0} | options
    return CalibrationDetector(**table(scores, outcomes), **limits)


def feed(
    watching: CalibrationDetector,
    rng: np.random.Generator,
    rows: int,
    *,
    meaning: Meaning = honest,
    shape: tuple[float, float] = (1.0, 3.0),
    at_once: int = 100,
) -> list[tuple[int, Change]]:
    """Rows with scores that mean so much; the changes, and after how many rows each came."""
    found = []
    for start in range(0, rows, at_once):
        scores = drawn(rng, at_once, shape)
        outcomes = rng.random(at_once) < meaning(scores)
        changes = watching.update(scores, outcomes, ticks=at_once / 1_000)
        found += [(start + at_once, change) for change in changes]
    return found


CHANGES: dict[str, tuple[Meaning, int]] = {
    "more often": (lambda s: odds(s, shift=0.5), 700),
    "less often": (lambda s: odds(s, shift=-0.5), 1_000),
    # The mean residual stays near zero: the rows that the score puts first are no longer first.
    "separates worse": (lambda s: odds(s, slope=0.5, shift=-0.47), 1_000),
    "high scores alone": (lambda s: np.where(s > 0.35, odds(s, shift=-1.0), s), 900),
    "upside down": (lambda s: odds(s, slope=-1.0, shift=-2.2), 200),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_what_scores_mean_is_seen_soon(name: str) -> None:
    meaning, rows_max = CHANGES[name]
    found = []
    for seed in range(10):
        watching, rng = detector(seed), np.random.default_rng([seed, 2])
        assert feed(watching, rng, 2_000) == []
        changes = feed(watching, rng, 5_000, meaning=meaning)
        assert changes[0][1].state is State.DRIFT
        found.append(changes[0][0])
    assert np.median(found) <= rows_max


def test_a_change_that_keeps_the_mean_residual_at_zero_is_seen() -> None:
    watching, rng = detector(3, shape=(2.0, 2.0)), np.random.default_rng(3)
    flatter = partial(odds, slope=0.4)
    scores = drawn(np.random.default_rng(0), 200_000, (2.0, 2.0))
    assert abs(float((flatter(scores) - scores).mean())) < 0.002
    [(rows, change), *_] = feed(watching, rng, 4_000, meaning=flatter, shape=(2.0, 2.0))
    assert rows <= 1_000
    assert change.state is State.DRIFT
    assert change.explain.startswith("scores tell rows apart less than they did")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "rows"), [((1.0, 3.0), 5_000), ((0.3, 0.3), 1_000), ((1.0, 30.0), 1_000)]
)
def test_false_alarms_stay_within_the_budget(shape: tuple[float, float], rows: int) -> None:
    # 50 references with 40,000 rows each: two alarms of the budget.
    alarms = 0
    for seed in range(50):
        watching = detector(seed, rows=rows, shape=shape)
        rng = np.random.default_rng([seed, 3])
        found = feed(watching, rng, 40_000, shape=shape, at_once=1_000)
        alarms += sum(change.state is not State.OK for _, change in found)
    assert alarms <= 2


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_move_are_no_change_of_what_they_mean(seed: int) -> None:
    """Also not where the model was never calibrated: only the reference counts."""

    def boasting(s: Floats) -> Floats:
        return odds(s, slope=0.6, shift=-0.3)

    watching, rng = detector(seed, meaning=boasting, rows=6_000), np.random.default_rng([seed, 4])
    for shape in ((1.5, 2.5), (1.0, 6.0), (2.0, 2.0)):
        assert feed(watching, rng, 5_000, meaning=boasting, shape=shape, at_once=1_000) == []


@pytest.mark.parametrize("told", ["sums", "rates", "neither"])
def test_scores_that_take_few_values_are_ordinary(told: str) -> None:
    """Each stands at the upper edge of its bin, which is nothing to be alarmed by."""
    rng = np.random.default_rng(14)
    values = np.array([0.1, 0.5, 0.9])
    rows, positives = np.array([2_000.0] * 3), np.array([300.0, 1_000.0, 1_700.0])
    given = {"sums": {"score_sums": rows * values}, "rates": {"calibrated": positives / rows}}
    watching = CalibrationDetector(
        edges=[0.1, 0.5],
        rows=rows,
        positives=positives,
        ticks_per_month=100.0,
        **given.get(told, {}),
    )
    for _ in range(30):
        which = rng.integers(0, 3, 1_000)
        outcomes = rng.random(1_000) < (positives / rows)[which]
        assert watching.update(values[which], outcomes) == []
    outcomes = rng.random(1_000) < 0.5
    assert watching.update(rng.choice(values, 1_000), outcomes)[0].state is State.DRIFT


def test_a_return_is_said_and_the_next_change_is_seen() -> None:
    watching, rng = detector(5), np.random.default_rng(5)
    said: list[str] = []
    for shift, rows in ((0.0, 3_000), (0.8, 4_000), (0.0, 3 * CALM_ROWS), (-0.8, 4_000)):
        found = feed(watching, rng, rows, meaning=partial(odds, shift=shift))
        said += [change.state.value for _, change in found]
    assert said == ["drift", "ok", "drift"]


def test_a_change_on_top_of_a_change_is_seen() -> None:
    watching, rng = detector(6), np.random.default_rng(6)
    first = feed(watching, rng, 4_000, meaning=lambda s: odds(s, shift=-0.8))
    second = feed(watching, rng, 4_000, meaning=lambda s: odds(s, shift=-2.0))
    assert [c.state.value for _, c in first + second] == ["drift", "drift"]
    assert watching.status == "drift"


def test_a_small_change_is_a_warning_once() -> None:
    watching = detector(7, rows=200_000, effect_min=0.1, ticks_per_month=100.0)
    rng = np.random.default_rng(7)
    found = feed(watching, rng, 20_000, meaning=lambda s: odds(s, shift=0.35), at_once=1_000)
    assert [c.state.value for _, c in found] == ["warning"]
    back = feed(watching, rng, 4 * CALM_ROWS, at_once=1_000)
    assert [c.state.value for _, c in back] == ["ok"]


def test_the_change_says_what_happened() -> None:
    watching, rng = detector(8), np.random.default_rng(8)
    [(_, change)] = feed(watching, rng, 1_000, meaning=lambda s: odds(s, shift=1.5))
    assert (change.kind, change.subject) == (Kind.CONCEPT_DRIFT, "calibration")
    assert change.evidence is not None
    assert change.evidence >= 0.0
    assert change.effect is not None
    assert change.effect.value > 0.05
    assert change.explain.startswith("rows turn out positive more often than their scores meant")


def test_without_a_reference_the_first_rows_are_it() -> None:
    watching = CalibrationDetector(learn_rows=2_000, ticks_per_month=100.0)
    rng = np.random.default_rng(9)
    assert watching.state()["status"] == "insufficient_data"
    assert feed(watching, rng, 2_000) == []
    assert watching.status == "ok"
    assert feed(watching, rng, 3_000) == []
    turned = feed(watching, rng, 1_000, meaning=partial(odds, slope=-1.0))
    assert [change.state.value for _, change in turned] == ["drift"]


def test_no_budget_no_alarm() -> None:
    watching = detector(10)
    for _ in range(20):
        assert watching.update(np.full(100, 0.1), np.ones(100), ticks=0.0) == []


BAD = (float("nan"), float("inf"), -float("inf"), -0.1, 1.1, 1e308, -5e-324)


@pytest.mark.parametrize("score", BAD)
def test_what_is_no_probability_is_left_out_and_counted(score: float) -> None:
    watching = detector(11)
    before = watching.state()
    assert watching.update(np.array([score] * 5), np.ones(5)) == []
    assert watching.update(np.array([0.5] * 5), np.array([0.5, 2.0, np.nan, np.inf, -1.0])) == []
    after = watching.state()
    assert after.pop("skipped") == 10
    before.pop("skipped")
    assert after == before
    assert watching.update(np.empty(0), np.empty(0)) == []


@pytest.mark.parametrize(
    ("rows", "positives"), [([0, 5], [0, 0]), ([1, 1], [1, 1]), ([10**9, 1], [10**9, 0])]
)
def test_no_reference_breaks_the_arithmetic(rows: list[float], positives: list[float]) -> None:
    watching = CalibrationDetector(edges=[0.5], rows=rows, positives=positives)
    for outcome in (0.0, 1.0):
        for score in (0.0, 1.0, 5e-324, 0.5):
            watching.update(np.full(3_001, score), np.full(3_001, outcome))
            assert np.isfinite(watching.log10_evidence)
            json.dumps(watching.state(), allow_nan=False)


def test_counts_that_cannot_be_are_refused() -> None:
    for rows, positives in (
        ([5, 5], [6, 0]),
        ([5], [1]),
        ([-1, 5], [-1, 0]),
        ([np.nan, 1], [0, 0]),
    ):
        with pytest.raises(ValueError, match="score bins"):
            CalibrationDetector(edges=[0.5], rows=rows, positives=positives)
    with pytest.raises(ValueError, match="rise"):
        CalibrationDetector(edges=[0.5, 0.2], rows=[1, 1, 1], positives=[0, 0, 0])
    with pytest.raises(ValueError, match="above 0"):
        CalibrationDetector(false_alarms_per_month=0.0)
    with pytest.raises(ValueError, match="differ"):
        detector(12).update(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="calibration state"):
        CalibrationDetector().restore({"origin": None})
    with pytest.raises(ValueError, match="other score bins"):
        CalibrationDetector(edges=[0.5]).restore(CalibrationDetector().state())


@settings(max_examples=25, deadline=None)
@given(
    cut=st.integers(0, 30),
    known=st.booleans(),
    shifts=st.lists(st.sampled_from([0.0, 0.0, 1.5, -1.5]), min_size=3, max_size=3),
)
def test_a_restart_changes_nothing(cut: int, known: bool, shifts: list[float]) -> None:
    def fresh() -> CalibrationDetector:
        options: dict[str, Any] = {"rearm_rows": 300, "ticks_per_month": 10.0}
        return detector(1, **options) if known else CalibrationDetector(learn_rows=500, **options)

    rng = np.random.default_rng([cut, int(known)])
    ticks = []
    for shift in shifts:
        for _ in range(10):
            scores = drawn(rng, 130)
            ticks.append((scores, (rng.random(130) < odds(scores, shift=shift)).astype(float)))
    through = fresh()
    expected = [through.update(*tick) for tick in ticks]
    before, after = fresh(), fresh()
    got = [before.update(*tick) for tick in ticks[:cut]]
    saved = json.loads(json.dumps(before.state(), allow_nan=False))
    after.restore(saved)
    assert after.state() == saved
    assert got + [after.update(*tick) for tick in ticks[cut:]] == expected
    assert after.state() == through.state()


def test_cells_are_thirds_of_the_rows_and_few() -> None:
    rng = np.random.default_rng(13)
    scores = drawn(rng, 60_000)
    given = table(scores, (rng.random(60_000) < scores).astype(np.float64))
    cells = Cells(score_level(**given))
    assert len(cells.shift) == 15
    assert np.allclose(np.bincount(cells.third, cells.shares), 1 / 3, atol=0.02)
    few = Cells(score_level([0.5], [3, 0], [1, 0]))
    assert len(few.shift) <= 2
