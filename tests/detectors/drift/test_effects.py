"""How big a change is: what chance gives is taken off, no more and no less."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import DriftDetector, FeatureProfile, build_reference
from detectors.drift.effects import Effects
from detectors.rows.bins import BINS, MISSING, WIDTH

SHAPE = build_reference({"x": np.arange(16.0).repeat(4)}).features[0]
WORDS = build_reference(
    {"x": np.array([f"c{i % 16}" for i in range(320)], dtype=object)}, ordered=False
).features[0]
EQUAL = np.full(BINS, 1 / BINS)
FALLING = np.exp(-0.4 * np.arange(BINS)) / np.exp(-0.4 * np.arange(BINS)).sum()
DISTANCES = ("psi", "js", "ks", "wasserstein", "cramers_v")


def compared(
    shape: FeatureProfile, inside: NDArray[np.float64], rows: int, reference_rows: int
) -> dict[str, NDArray[np.float64]]:
    """Figures of 1,000 unchanged features, each with a reference and a window of its own."""
    rng = np.random.default_rng((rows, reference_rows))
    truth = np.zeros(WIDTH)
    truth[:BINS], truth[MISSING] = inside * 0.98, 0.02
    drawn = rng.multinomial(reference_rows, truth, size=1_000).astype(float)
    profiles = [replace(shape, counts=tuple(counts.tolist())) for counts in drawn]
    return Effects(profiles).figures(rng.multinomial(rows, truth, size=1_000))


@pytest.mark.parametrize(
    ("rows", "reference_rows"), [(500, 50_000), (1_000, 2_000), (9_000, 5_000)]
)
@pytest.mark.parametrize("shape", [SHAPE, WORDS], ids=["ordered", "categories"])
@pytest.mark.parametrize("inside", [EQUAL, FALLING], ids=["equal", "falling"])
def test_what_is_taken_off_is_what_chance_gives(
    shape: FeatureProfile, inside: NDArray[np.float64], rows: int, reference_rows: int
) -> None:
    figures = compared(shape, inside, rows, reference_rows)
    for name in DISTANCES:
        if name == "wasserstein" and shape is WORDS:
            continue  # categories have no distance
        power = 1 if name == "psi" else 2
        plain = (figures[name] ** power).mean()
        left = figures[f"{name}_corrected"] ** power
        signed = np.where(left > 0, left, 0).mean()
        assert signed < 0.55 * plain, name  # the half of chance that lies above its mean
        # Half of all unchanged features have nothing left; so has their median.
        assert 0.3 < (left == 0).mean() < 0.85, name


def test_a_real_change_is_hardly_made_smaller() -> None:
    moved = np.roll(FALLING, 2)
    truth = np.zeros(WIDTH)
    truth[:BINS], truth[MISSING] = FALLING * 0.98, 0.02
    profile = replace(SHAPE, counts=tuple((truth * 50_000).tolist()))
    counts = np.zeros((1, WIDTH))
    counts[0, :BINS], counts[0, MISSING] = moved * 4_900, 100
    figures = Effects([profile]).figures(counts)
    for name in DISTANCES:
        assert 0.9 * figures[name][0] < figures[f"{name}_corrected"][0] <= figures[name][0]
    assert Effects([profile]).figures(counts * 0)["ks_corrected"].tolist() == [0.0]


def test_rows_that_resemble_their_neighbours_count_as_fewer() -> None:
    steady = replace(SHAPE, counts=(*(EQUAL * 20_000).tolist(), 0.0, 0.0))
    rng = np.random.default_rng(0)
    counts = rng.multinomial(100, np.append(EQUAL, [0.0, 0.0]), size=1) * 10
    one, ten = (Effects([replace(steady, phi=phi)]).figures(counts) for phi in (1.0, 10.0))
    assert one["psi"] == ten["psi"]
    less = 17 * 9 * (1 / 1_000 + 1 / 20_000)  # 18 live bins, ten times the chance
    assert one["psi_corrected"] - ten["psi_corrected"] == pytest.approx(less, rel=1e-3)


def test_missing_values_are_no_distance_in_the_unit_of_the_feature() -> None:
    profile = replace(SHAPE, counts=(*(EQUAL * 20_000).tolist(), 0.0, 0.0))
    counts = np.append(EQUAL * 600, [400.0, 0.0])[None, :]
    figures = Effects([profile]).figures(counts)
    assert figures["wasserstein"][0] == pytest.approx(0, abs=1e-3)
    assert figures["ks"][0] == pytest.approx(0.4, abs=0.01)
    assert figures["missing_ratio"][0] == 0.4


def test_a_range_too_wide_for_squares_is_not_corrected_and_no_error() -> None:
    values = np.linspace(-1, 1, 500) * 1e308
    detector = DriftDetector(build_reference({"x": values}))
    with np.errstate(all="raise", under="ignore"):
        detector.update({"x": values[:200]})
    effects = detector.effects(1_000)["x"]
    assert effects["wasserstein_corrected"] == effects["wasserstein"]
    assert 1e307 < float(effects["wasserstein"]) < 1e308


def test_effects_come_over_three_windows_and_since_the_evidence_left_its_floor() -> None:
    rng = np.random.default_rng(3)
    detector = DriftDetector(build_reference({"x": rng.normal(size=20_000)}))
    for _ in range(30):
        detector.update({"x": rng.normal(size=1_000)})
    detector.update({"x": rng.normal(1.0, 1, 1_000)})
    detector.update({"x": rng.normal(1.0, 1, 1_000)})
    rows = [detector.effects(window)["x"]["rows"] for window in (1_000, 10_000, 100_000)]
    assert rows[0] == 1_000
    assert 7_500 <= int(rows[1]) <= 12_500
    assert rows[2] == 32_000
    since = detector.effects_since()["x"]
    assert 2_000 <= int(since["rows"]) <= 4_000
    assert since["state"] == "drift"
    assert float(since["ks_corrected"]) > 2 * float(detector.effects(10_000)["x"]["ks_corrected"])
    assert {f"{name}_corrected" for name in DISTANCES} <= since.keys()
