"""Which categories have a bin of their own is chosen on the reference: by luck, among equals."""

import numpy as np
import pytest

from detectors import Monitor, Reference, build_reference
from detectors.references.calibration import TOLERANCE


def runs(rng: np.random.Generator, rows: int, categories: int, mean: float) -> np.ndarray:
    """Equally frequent categories that come in runs of random length."""
    lengths = rng.geometric(1 / mean, rows)
    names = [f"c{k}" for k in rng.integers(0, categories, rows).tolist()]
    return np.repeat(np.array(names, dtype=object), lengths)[:rows]


def tolerance_of(reference: Reference) -> float:
    return reference.features[0].tolerance


@pytest.mark.parametrize(
    ("categories", "mean", "rows"), [(30, 20, 5_000), (30, 5, 2_000), (200, 5, 5_000)]
)
def test_equally_frequent_categories_that_come_in_runs_raise_no_alarm(
    categories: int, mean: float, rows: int
) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        monitor = Monitor(build_reference({"c": runs(rng, rows, categories, mean)}))
        for _ in range(100):
            assert monitor.update({"c": runs(rng, 1_000, categories, mean)}) == []


def test_categories_that_differ_in_frequency_are_not_doubted() -> None:
    rng = np.random.default_rng(4)
    shares = 0.5 ** np.arange(1, 41)
    names = np.array([f"c{k}" for k in range(40)], dtype=object)
    steep = build_reference({"c": rng.choice(names, 20_000, p=shares / shares.sum())})
    assert tolerance_of(steep) < TOLERANCE + 0.005
    few = build_reference({"c": rng.choice(names[:10], 20_000)})
    assert tolerance_of(few) < TOLERANCE + 0.005


def test_a_category_seen_in_one_run_of_rows_was_seen_once() -> None:
    rng = np.random.default_rng(5)
    in_runs = build_reference({"c": runs(rng, 20_000, 2_000, 20)}).features[0]
    alone = build_reference({"c": runs(rng, 1_000, 2_000, 1)}).features[0]
    unseen = [profile.counts[-1] / profile.rows for profile in (in_runs, alone)]
    assert unseen[1] == pytest.approx(0.6, abs=0.06)  # exp(-.5)
    assert 0.4 < unseen[0] < 0.8
