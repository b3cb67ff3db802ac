"""Nothing changes, whatever the reference looks like and however few rows it has: false alarms stay
within the budget, of the evidence and of the ladder alike.

Budgets are a thousand times those of a month, so that there is something to count.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import DriftDetector, FeatureProfile, Reference, build_reference
from detectors.rows.bins import BINS, MISSING, OUTSIDE, WIDTH, NumericBins

FEATURES, TICKS = 60, 1_500
BUDGET = 12.0  # over all ticks: eight for the evidence, four for the ladder
Floats = NDArray[np.float64]
Distribution = Callable[[Floats], Floats]

SHAPE = build_reference({"x": np.arange(16.0).repeat(4)})
WORDS = build_reference({"x": np.array([f"c{i // 3}" for i in range(60)], dtype=object)})


def drawn(rng: np.random.Generator, rows: int, shape: Reference) -> tuple[Reference, Floats]:
    """A reference of random shares, rare bins among them, and the truth it was drawn from."""
    truth = np.zeros((FEATURES, WIDTH))
    features = []
    for j in range(FEATURES):
        live = shape.features[0].live()
        alpha = (0.05, 0.3, 1.0, 20.0)[j % 4]
        truth[j, live] = rng.dirichlet(np.full(int(live.sum()), alpha))
        if j % 3 == 0:  # at the edge of what the reference can know
            truth[j, MISSING] = rng.uniform(1.0, 8.0) / rows
            truth[j] /= truth[j].sum()
        counts = tuple(rng.multinomial(rows, truth[j]).astype(float).tolist())
        features.append(replace(shape.features[0], name=f"f{j}", counts=counts))
    return replace(shape, features=tuple(features), rows=rows), truth


def share_of_bins(profile: FeatureProfile, below: Distribution) -> Floats:
    """What a distribution puts into each bin of a numeric profile; `below` is P(X <= x)."""
    bins = profile.bins
    assert isinstance(bins, NumericBins)
    inside = below(np.array([bins.low, *bins.edges, bins.high]))
    shares = np.zeros(WIDTH)
    shares[: len(bins.edges) + 1] = np.diff(inside)
    shares[OUTSIDE] = max(1 - shares.sum(), 0.0)
    return shares


def pareto(power: float) -> Distribution:
    return lambda x: np.where(x > 1, 1 - np.maximum(x, 1.0) ** -power, 0.0)


def grown(rng: np.random.Generator, rows: int) -> tuple[Reference, Floats]:
    """A reference built from rows with heavy tails, whose own extremes say what is outside."""
    columns: dict[str, Floats] = {}
    below: list[Distribution] = []
    for j in range(FEATURES):
        power = (0.7, 1.0, 2.0, 5.0)[j % 4]
        columns[f"f{j}"] = rng.random(rows) ** (-1 / power)
        below.append(pareto(power))
    reference = build_reference(columns, ordered=False)
    pairs = zip(reference.features, below, strict=True)
    return reference, np.array([share_of_bins(profile, f) for profile, f in pairs])


def alarms(
    rng: np.random.Generator, reference: Reference, truth: Floats, rows: int
) -> Counter[str]:
    """Alarms by path; a feature that has alarmed is not asked again."""
    watching = DriftDetector(reference, false_alarms_per_month=BUDGET, ticks_per_month=TICKS)
    found: Counter[str] = Counter()
    blamed: set[str] = set()
    for _ in range(TICKS):
        for reading in watching.observe(rng.multinomial(rows, truth), rows=rows):
            if reading.subject not in blamed:
                blamed.add(reading.subject)
                found[reading.detector] += 1
    return found


@pytest.mark.parametrize("rows", [20, 400, 3_000])
@pytest.mark.parametrize("reference_rows", [150, 1_000, 10_000])
@pytest.mark.parametrize("shape", ["ordered", "words", "tails"])
def test_false_alarms_stay_within_the_budget(shape: str, reference_rows: int, rows: int) -> None:
    rng = np.random.default_rng((reference_rows, rows))
    if shape == "tails":
        reference, truth = grown(rng, reference_rows)
    else:
        reference, truth = drawn(rng, reference_rows, SHAPE if shape == "ordered" else WORDS)
    found = alarms(rng, reference, truth, rows)
    assert found["e_detector"] <= BUDGET * 2 / 3, found
    assert found["ladder"] <= BUDGET / 3, found


def test_the_same_streams_with_a_shift_do_alarm() -> None:
    rng = np.random.default_rng(0)
    reference, truth = drawn(rng, 10_000, SHAPE)
    moved = np.roll(truth[:, :BINS], 1, axis=1)
    found = alarms(rng, reference, np.concatenate([moved, truth[:, BINS:]], axis=1), 400)
    assert found.total() == FEATURES
