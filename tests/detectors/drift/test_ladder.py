"""The ladder finds what the evidence is slow to find, at levels that somebody has paid for."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import DriftDetector, FeatureProfile, build_reference
from detectors.drift.ladder import LADDER_SHARE, Ladder
from detectors.rows.bins import BINS, MISSING, OUTSIDE, WIDTH

SHAPE = build_reference({"x": np.arange(16.0).repeat(4)})
NORMAL = NormalDist()
EDGES = [NORMAL.inv_cdf(k / BINS) for k in range(1, BINS)]
BUDGET = 0.5 / 43_200  # of one tick


def normal(shift: float = 0.0, missing: float = 0.01) -> NDArray[np.float64]:
    """Shares of a normal feature whose mean moved by `shift`, in bins that were equal before."""
    upto = np.array([0.0, *(NORMAL.cdf(edge - shift) for edge in EDGES), 1.0])
    shares = np.zeros(WIDTH)
    shares[MISSING], shares[OUTSIDE] = missing, 0.0005
    shares[:BINS] = np.diff(upto) * (1 - missing - 0.0005)
    return shares


def profiles(rng: np.random.Generator, features: int, rows: int) -> tuple[FeatureProfile, ...]:
    drawn = rng.multinomial(rows, normal(), size=features).astype(float)
    return tuple(
        replace(SHAPE.features[0], name=f"f{j}", counts=tuple(counts.tolist()))
        for j, counts in enumerate(drawn)
    )


def found(rows: int, shift: float, window: int, reference_rows: int, features: int = 100) -> float:
    """The share of features whose shift one window finds, paid for by 1,000 rows a tick."""
    rng = np.random.default_rng(rows)
    ladder = Ladder(profiles(rng, features, reference_rows))
    ladder.save(BUDGET * LADDER_SHARE * rows / 4 / 1_000)
    counts = rng.multinomial(rows, normal(shift), size=features)
    return float(ladder.compare(window, counts).differs.mean())


def test_small_shifts_are_found_with_a_small_reference() -> None:
    assert found(1_000, 0.3, 0, 5_000) > 0.6
    assert found(10_000, 0.2, 1, 5_000) > 0.95
    assert found(100_000, 0.1, 2, 5_000) > 0.4
    assert found(10_000, 0.1, 1, 50_000) > 0.8
    assert found(10_000, 0.0, 1, 5_000) == found(100_000, 0.0, 2, 5_000) == 0


def test_a_shift_below_the_tolerance_is_never_said() -> None:
    rng = np.random.default_rng(0)
    ladder = Ladder(profiles(rng, 20, 10**9))
    ladder.save(1.0)
    counts = np.round(normal(0.015) * 10**9).astype(np.int64) * np.ones((20, 1), dtype=np.int64)
    assert not ladder.compare(2, counts).differs.any()
    ladder.save(1.0)
    counts = np.round(normal(0.03) * 10**9).astype(np.int64) * np.ones((20, 1), dtype=np.int64)
    assert ladder.compare(2, counts).differs.all()


@pytest.mark.parametrize("reference_rows", [200, 5_000])
@pytest.mark.parametrize("rows", [100, 1_000, 20_000])
def test_chance_exceeds_a_level_no_more_often_than_the_level_says(
    rows: int, reference_rows: int
) -> None:
    rng = np.random.default_rng(rows)
    alarms, level, features = 0, 0.05, 400
    for _ in range(20):
        ladder = Ladder(profiles(rng, features, reference_rows))
        ladder.save(level * features * 3)
        counts = rng.multinomial(rows, normal(), size=features)
        alarms += int(ladder.compare(1, counts).differs.sum())
    assert alarms <= level * features * 20


def test_a_level_is_paid_for_once() -> None:
    rng = np.random.default_rng(1)
    ladder = Ladder(profiles(rng, 10, 5_000))
    counts = rng.multinomial(10_000, normal(0.5), size=10)
    assert not ladder.compare(1, counts).differs.any()  # nothing was saved
    for _ in range(10):
        ladder.save(BUDGET)
    assert ladder.saved.tolist() == pytest.approx([BUDGET * 10 / 3] * 3)
    assert ladder.compare(1, counts).differs.all()
    assert ladder.saved[1] == 0
    assert not ladder.compare(1, counts).differs.any()


def test_missing_values_and_categories_are_compared_as_shares() -> None:
    rng = np.random.default_rng(2)
    ladder = Ladder(profiles(rng, 50, 5_000))
    ladder.save(BUDGET)
    counts = rng.multinomial(10_000, normal(missing=0.03), size=50)
    assert ladder.compare(1, counts).differs.mean() > 0.9
    words = np.array(["a", "b", "c", "d"], dtype=object)
    reference = build_reference({"x": rng.choice(words, 5_000)})
    ladder = Ladder(reference.features)
    ladder.save(BUDGET)
    counts = np.zeros((1, WIDTH), dtype=np.int64)
    counts[0, :4] = rng.multinomial(10_000, [0.31, 0.23, 0.23, 0.23])
    assert ladder.compare(1, counts).differs.all()


def test_wander_that_the_reference_has_itself_is_granted() -> None:
    rng = np.random.default_rng(3)
    steady = profiles(rng, 30, 20_000)
    counts = rng.multinomial(10_000, normal(0.2), size=30)
    for phi, tolerance, expected in (
        (1.0, 0.02, True),
        (1.0, 0.25, False),  # strays by .2 in the reference
        (20.0, 0.02, False),  # has a twentieth of the independent rows
    ):
        ladder = Ladder([replace(p, phi=phi, tolerance=tolerance) for p in steady])
        ladder.save(BUDGET)
        assert ladder.compare(1, counts).differs.all() == expected


def test_a_reading_says_that_the_ladder_alarmed_and_on_which_window() -> None:
    rng = np.random.default_rng(4)
    columns = {"x": rng.normal(size=5_000)}
    watching = DriftDetector(build_reference(columns))
    said = [
        reading
        for _ in range(110)
        for reading in watching.update({"x": rng.normal(0.12, 1, 1_000)})
    ]
    assert [(r.detector, r.state.value) for r in said] == [("ladder", "warning")]
    (reading,) = said
    assert reading.statistic >= reading.threshold > 5  # digits of the chance
    assert reading.window.rows >= 2_500
    assert reading.evidence is not None
    assert reading.evidence < watching.evidence_threshold
    assert watching.detectable_shift()["x"] < 0.12


def test_the_detectable_shift_is_one_that_is_detected() -> None:
    rng = np.random.default_rng(5)
    for rows in (5_000, 50_000):
        held = profiles(rng, 40, rows)
        reference = replace(SHAPE, features=held, rows=rows)
        smallest = max(DriftDetector(reference).detectable_shift().values())
        for share, least, most in ((1.5, 0.8, 1.0), (0.5, 0.0, 0.1)):
            watching = DriftDetector(reference)
            truth = np.array([p.probabilities() for p in held])
            tilt = normal(share * smallest) / normal()
            moved = truth * tilt / (truth * tilt).sum(axis=1, keepdims=True)
            names = {
                reading.subject
                for _ in range(300)
                for reading in watching.observe(rng.multinomial(1_000, moved), rows=1_000)
            }
            assert least <= len(names) / 40 <= most, (rows, share)


@pytest.mark.parametrize("cut", [3, 9, 13, 40])
def test_a_restart_keeps_what_was_saved_and_what_was_seen(cut: int) -> None:
    rng = np.random.default_rng(6)
    reference = build_reference({"x": rng.normal(size=5_000)})
    ticks = [{"x": rng.normal(0.14 if t < 60 else 0.0, 1, 700)} for t in range(120)]
    through, before = DriftDetector(reference), DriftDetector(reference)
    expected = [reading for tick in ticks for reading in through.update(tick)]
    found = [reading for tick in ticks[:cut] for reading in before.update(tick)]
    after = DriftDetector.restore(reference, before.state())
    found += [reading for tick in ticks[cut:] for reading in after.update(tick)]
    assert found == expected
    assert [reading.detector for reading in expected][:1] == ["ladder"]
