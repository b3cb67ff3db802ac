"""The promises of the evidence: budgeted false alarms, and delays, on counts with fixed seeds.

Each promise is shown to have teeth: without the margin for the reference's own error the same
stream cries wolf.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import DriftDetector, Reference, build_reference
from detectors.drift.evidence import (
    COSINES,
    EXPORTED_SCORES,
    SCORES,
    Evidence,
    cosine_scores,
    score_bank,
    score_kind,
)
from detectors.rows.binning import BINS, MISSING, OUTSIDE, WIDTH
from detectors.settings import EFFECT_DEFAULT

SHAPE = build_reference({"x": np.arange(16.0).repeat(4)})
TRUTH = np.full(WIDTH, (1 - 0.011) / BINS)
TRUTH[MISSING], TRUTH[OUTSIDE] = 0.01, 0.001


def estimated(rng: np.random.Generator, features: int, rows: int) -> Reference:
    """A reference of features that all follow TRUTH, known only from `rows` rows each."""
    profiles = [
        replace(
            SHAPE.features[0],
            name=f"f{j}",
            counts=tuple(rng.multinomial(rows, TRUTH).astype(float).tolist()),
        )
        for j in range(features)
    ]
    return replace(SHAPE, features=tuple(profiles), rows=rows)


def alarms(rng: np.random.Generator, watching: DriftDetector, ticks: int) -> int:
    features = len(watching.names)
    readings = (
        watching.observe(rng.multinomial(1_000, TRUTH, size=features), rows=1_000)
        for _ in range(ticks)
    )
    return sum(len(changed) for changed in readings)


@pytest.mark.parametrize("rows", [1_000, 5_000, 50_000])
def test_unchanged_counts_raise_no_alarm(rows: int) -> None:
    rng = np.random.default_rng(rows)
    assert alarms(rng, DriftDetector(estimated(rng, 100, rows)), 1_000) == 0


def test_without_the_margin_of_three_standard_errors_the_same_counts_cry_wolf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("detectors.references.calibration.REFERENCE_ERRORS", 0.0)
    rng = np.random.default_rng(1_000)
    assert alarms(rng, DriftDetector(estimated(rng, 100, 1_000)), 1_000) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "rows"), [(1, 5_000), (2, 50_000)])
def test_a_month_of_a_hundred_unchanged_features_keeps_the_budget(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    assert alarms(rng, DriftDetector(estimated(rng, 100, rows)), 43_200) <= 1


def delays(shift: float, scale: float, missing: float, repeats: int = 7) -> list[int]:
    """Rows until the one changed feature of 100 is named, at 50 rows per tick, m = 50,000."""
    rng = np.random.default_rng(3)
    reference = build_reference({f"f{i}": rng.normal(size=50_000) for i in range(100)})
    found = []
    for repeat in range(repeats):
        watching = DriftDetector(reference)
        for tick in range(400):
            rows = rng.normal(size=(100, 50))
            rows[repeat] = rows[repeat] * scale + shift
            rows[repeat, rng.random(50) < missing] = np.nan
            columns = dict(zip(watching.names, rows, strict=True))
            changed = watching.update(columns, ticks=0.05)
            if changed:
                assert {reading.subject for reading in changed} == {f"f{repeat}"}
                found.append((tick + 1) * 50)
                break
        else:
            found.append(10**9)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "median_max"), [(0.3, 1_000), (0.5, 400), (1.0, 150)])
def test_a_shift_of_one_feature_in_a_hundred_is_found_in_time(
    shift: float, median_max: int
) -> None:
    assert np.median(delays(shift, 1.0, 0.0)) <= median_max


@pytest.mark.slow
def test_more_variance_and_more_missing_values_are_found_too() -> None:
    assert np.median(delays(0.0, 1.5**0.5, 0.0)) <= 2_500
    assert np.median(delays(0.0, 1.0, 0.03)) <= 600


def test_every_alternative_is_below_one_on_average_for_all_the_null_holds() -> None:
    """E_p(f / c) <= 1 for the reference, and for references off by two standard errors."""
    rng = np.random.default_rng(0)
    profile = estimated(rng, 1, 5_000).features[0]
    bank = score_bank(profile)
    ratios = np.exp(bank.log_ratios)
    p = profile.probabilities()
    assert (ratios @ p)[bank.weights > 0].max() <= 1
    for _ in range(200):
        near: NDArray[np.float64] = rng.multinomial(5_000, p) / 5_000
        assert (ratios @ near)[bank.weights > 0].max() <= 1.01
    assert bank.weights.sum() == pytest.approx(1)
    assert bank.log_ratios.shape == (SCORES, WIDTH)


def test_scores_are_orthonormal_under_the_reference() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(WIDTH))
    scores = cosine_scores(p, BINS)
    inside = p[:BINS] / p[:BINS].sum()
    assert len(scores) == COSINES
    assert np.allclose(scores[:, :BINS] * inside @ scores[:, :BINS].T, np.eye(COSINES))
    assert np.allclose(scores[:, :BINS] @ inside, 0)
    assert len(cosine_scores(p, 2)) == 1
    assert len(cosine_scores(p, 1)) == 0


def test_a_rare_bin_falling_empty_is_no_evidence() -> None:
    """NaN at a rate of 1e-6 in the reference and never again must not alarm after a month."""
    profile = estimated(np.random.default_rng(0), 1, 5_000).features[0]
    counts = np.array(profile.counts)
    counts[MISSING] = counts[OUTSIDE] = 0
    quiet = replace(SHAPE, features=(replace(profile, counts=tuple(counts.tolist())),))
    decreases = score_bank(quiet.features[0]).weights[[SCORES - 5, SCORES - 1]]
    assert decreases.tolist() == [0, 0]
    watching = DriftDetector(quiet)
    ideal = (quiet.features[0].probabilities() * 1_000_000).astype(np.int64)[None, :]
    ideal[0, [MISSING, OUTSIDE]] = 0
    for _ in range(100):
        assert watching.observe(ideal, rows=1_000_000) == []


def test_evidence_neither_overflows_nor_underflows() -> None:
    profile = estimated(np.random.default_rng(0), 1, 5_000).features[0]
    evidence = Evidence((profile,))
    extreme = np.zeros((1, WIDTH), dtype=np.int64)
    extreme[0, 0] = 10**9
    with np.errstate(all="raise", under="ignore"):
        for _ in range(5):
            evidence.update(extreme, 1e-5)
            evidence.hold(np.array([True]), 1e-5, evidence.floor(1_000.0))
        usual = (profile.probabilities() * 10**9).astype(np.int64)[None, :]
        for _ in range(5):
            total, _ = evidence.update(usual, 1e-5)
    assert np.isfinite(evidence.wealth).all()
    assert total[0] < 1e-200


def test_many_features_a_little_below_the_level_alarm_together() -> None:
    """By e-BH at level .1, k features of d alarm at R >= 10 / k."""
    profiles = estimated(np.random.default_rng(0), 50, 5_000).features
    evidence = Evidence(profiles)
    everything = np.ones(50, dtype=bool)
    few, many = np.zeros(50), np.zeros(50)
    few[:12], many[:25] = 0.5, 0.5
    assert not evidence.alarms(few, everything).any()
    assert evidence.alarms(many, everything).sum() == 25
    assert evidence.alarms(many, ~everything).sum() == 0


def test_alternatives_say_what_they_stand_for() -> None:
    assert {score_kind(k) for k in range(SCORES)} == {
        "location",
        "scale",
        "shape",
        "bin",
        "missing",
        "outside",
    }
    assert len(EXPORTED_SCORES) == 8
    assert EFFECT_DEFAULT == {"psi": 0.1, "ks": 0.1}
