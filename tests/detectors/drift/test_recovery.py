"""A drift that ends is seen to end at once, and one that lasts is never said to have ended."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import DriftDetector, Reference, build_reference
from detectors.drift.recovery import Recovery
from detectors.rows.bins import BINS, MISSING, WIDTH

SHAPE = build_reference({"x": np.arange(16.0).repeat(4)})
FEATURES = 20


def shares(tilt: float = 0.0, missing: float = 0.01) -> NDArray[np.float64]:
    """Sixteen bins tilted by `tilt`, which is about the shift in standard deviations."""
    ranks = (np.arange(BINS) + 0.5) / BINS
    inside = np.exp(-tilt * np.sqrt(2) * np.cos(np.pi * ranks))
    result = np.zeros(WIDTH)
    result[:BINS] = inside / inside.sum() * (1 - missing)
    result[MISSING] = missing
    return result


def reference(seed: int, rows: int = 20_000) -> Reference:
    drawn = np.random.default_rng(seed).multinomial(rows, shares(), size=FEATURES).astype(float)
    features = tuple(
        replace(SHAPE.features[0], name=f"f{j}", counts=tuple(counts.tolist()))
        for j, counts in enumerate(drawn)
    )
    return replace(SHAPE, features=features, rows=rows)


class Stream:
    """Ticks through a detector; keeps what each feature was said to be."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        self.rows, self.rng = rows, np.random.default_rng((seed, rows))
        self.detector = DriftDetector(reference(seed))
        self.said: dict[str, list[str]] = {name: [] for name in self.detector.names}

    def run(self, ticks: int, p: NDArray[np.float64]) -> None:
        for _ in range(ticks):
            counts = self.rng.multinomial(self.rows, p, size=FEATURES)
            for reading in self.detector.observe(counts, rows=self.rows):
                self.said[reading.subject].append(reading.state.value)


@pytest.mark.parametrize("rows", [250, 500, 1_000])
@pytest.mark.parametrize("drifted_ticks", [1, 3, 200])
def test_missing_values_that_come_back_are_seen_within_two_ticks(
    rows: int, drifted_ticks: int
) -> None:
    stream = Stream(rows)
    stream.run(20, shares())
    stream.run(drifted_ticks, shares(missing=0.3))
    assert all(said == ["drift"] for said in stream.said.values())
    window = max(1, 1_000 // rows)  # until the last 1,000 rows are rows that came back
    stream.run(window + 1, shares())
    assert all(said == ["drift", "ok"] for said in stream.said.values())


@pytest.mark.parametrize("rows", [20, 1_000])
@pytest.mark.parametrize("tilt", [0.1, 0.2, 0.5, 1.5])
def test_a_drift_that_lasts_is_said_once(rows: int, tilt: float) -> None:
    stream = Stream(rows)
    stream.run(400_000 // rows if rows == 1_000 else 3_000, shares(tilt))
    for said in stream.said.values():
        assert said in ([], ["warning"], ["drift"], ["warning", "drift"])
    if tilt >= 0.2:
        assert all(stream.said.values())


def test_a_drift_that_moves_on_or_grows_less_is_not_said_to_have_ended() -> None:
    stream = Stream(1_000)
    for tilt in (0.4, 0.8, 1.2, 0.8, 0.4):
        stream.run(30, shares(tilt))
    stream.run(30, shares(-0.4))
    assert all("ok" not in said for said in stream.said.values())
    stream.run(40, shares())
    assert all(said[-1] == "ok" for said in stream.said.values())


def test_a_feature_that_comes_and_goes_gives_a_pair_each_time_and_no_more() -> None:
    stream = Stream(500)
    turns = 8
    for _ in range(turns):
        stream.run(12, shares(0.6))
        stream.run(24, shares())
    for said in stream.said.values():
        assert said.count("ok") <= turns
        assert said.count("ok") >= turns - 1
        assert len(said) <= 3 * turns


def test_after_a_recovery_older_rows_are_not_held_against_a_feature() -> None:
    """Windows of 100,000 rows still hold the drifted rows, and must not say it again."""
    stream = Stream(1_000)
    stream.run(40, shares(0.8))
    stream.run(200, shares())
    assert all(said == ["drift", "ok"] for said in stream.said.values())


def test_the_bet_loses_on_average_while_the_drift_lasts_however_roughly_it_is_known() -> None:
    """From as few rows as an alarm takes, E_q f <= 1: the odds of one row, averaged over q."""
    rng = np.random.default_rng(1)
    p = shares()
    for tilt in (0.2, 0.4, 0.8):
        q = shares(tilt)
        rows = int(40 / tilt**2)
        means = []
        for _ in range(200):
            seen = rng.multinomial(rows, q) + 0.5 * (p > 0)
            known = seen / seen.sum()
            bet = np.where(p > 0, 2 * p / np.maximum(p + known, 1e-300), 0.0)
            means.append(float(q @ bet))
        assert np.quantile(means, 0.95) < 1


def test_evidence_of_a_recovery_neither_overflows_nor_comes_from_nothing() -> None:
    p = shares()[None, :]
    recovery = Recovery(p, np.ones(1))
    latched = np.array([True])
    drifted = np.round(shares(1.0) * 10**9).astype(np.int64)[None, :]
    back = np.round(shares() * 10**9).astype(np.int64)[None, :]
    with np.errstate(all="raise", under="ignore"):
        recovery.begin(latched, drifted)
        for _ in range(3):
            assert not recovery.update(drifted, latched, 1.0, 43_200.0).any()
        assert not recovery.update(0 * back, latched, 1.0, 43_200.0).any()
        assert recovery.update(back, latched, 1.0, 43_200.0).all()
        assert recovery.update(back, latched, 1.0, 43_200.0).all()
    for name, wrong in (("reverse", -1.0), ("drifted", np.nan)):
        state = recovery.state()
        state[name] = state[name] * 0 + wrong
        with pytest.raises(ValueError, match="recovery"):
            recovery.restore(state)
