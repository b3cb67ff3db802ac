"""Self-calibration: independent rows cost nothing, autocorrelated ones are found out."""

import numpy as np
import pytest

from detectors import DriftDetector, build_reference
from detectors.references.calibration import TOLERANCE


def autoregressive(rho: float, rows: int, features: int, seed: int) -> dict[str, np.ndarray]:
    """Stationary standard normal columns whose neighbours are correlated by `rho`."""
    noise = np.random.default_rng(seed).normal(size=(rows, features))
    values = np.empty_like(noise)
    values[0] = noise[0]
    for t in range(1, rows):
        values[t] = rho * values[t - 1] + np.sqrt(1 - rho**2) * noise[t]
    return {f"f{i}": values[:, i] for i in range(features)}


def test_independent_rows_keep_their_full_weight() -> None:
    rng = np.random.default_rng(0)
    columns = {f"f{i}": rng.normal(size=10_000) for i in range(40)}
    features = build_reference(columns).features
    assert np.median([feature.phi for feature in features]) < 1.05
    assert np.quantile([feature.phi for feature in features], 0.9) < 1.4
    assert np.median([feature.tolerance for feature in features]) == TOLERANCE


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.99])
def test_the_design_effect_of_autocorrelation_is_found(rho: float) -> None:
    features = build_reference(autoregressive(rho, 20_000, 10, seed=1)).features
    truth = (1 + rho) / (1 - rho)  # of an autoregression's mean
    assert 0.4 * truth < np.median([feature.phi for feature in features]) < 1.5 * truth


def test_no_order_means_no_calibration() -> None:
    columns = autoregressive(0.9, 5_000, 1, seed=2)
    (feature,) = build_reference(columns, ordered=False).features
    assert (feature.phi, feature.tolerance) == (1.0, TOLERANCE)


def test_a_wandering_feature_says_that_it_is_nearly_blind() -> None:
    steady = DriftDetector(build_reference(autoregressive(0.0, 10_000, 1, seed=3)))
    wandering = DriftDetector(build_reference(autoregressive(0.99, 10_000, 1, seed=3)))
    assert steady.detectable_shift()["f0"] < 0.08
    assert wandering.detectable_shift()["f0"] > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.5, 0.9, 0.99])
def test_stationary_autocorrelated_rows_raise_no_alarm(rho: float) -> None:
    columns = autoregressive(rho, 110_000, 10, seed=5)
    monitor = DriftDetector(build_reference({name: x[:10_000] for name, x in columns.items()}))
    for start in range(10_000, 110_000, 1_000):
        tick = {name: x[start : start + 1_000] for name, x in columns.items()}
        assert monitor.update(tick) == []
