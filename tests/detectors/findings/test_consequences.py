"""What a reading of drift says of its causes and of what it is likely to cost."""

from typing import Any

import numpy as np
import pytest

from detectors import Monitor, Reading, Reference, ReferenceBuilder, build_reference, merge
from detectors.findings.consequences import Consequences, baseline_figures
from detectors.parts.estimation import table_of
from detectors.performance.estimation import EstimationBuilder

DAY_S = 86_400.0


def rows(count: int, seed: int, *, shift: float = 0.0, noise: float = 0.0) -> dict[str, Any]:
    """A score that depends on age: surer where age is far from 40; `other` is nobody's business."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40 * (1 - shift) + 40 * shift, 10 * (1 - 0.9 * shift), count)
    score = 1 / (1 + np.exp(-(age - 40) / 4))
    label = (rng.random(count) < score).astype(int)
    return {"age": age, "other": rng.normal(noise, 1, count), "score": score, "label": label}


def monitor(seed: int = 1) -> Monitor:
    of = build_reference(rows(20_000, seed), score="score", label="label", task="classification")
    return Monitor(of)


def drifts(watching: Monitor, **changes: float) -> list[Reading]:
    """One tick a minute of a thousand rows: 1,440,000 a day."""
    found: list[Reading] = []
    for tick in range(5):
        found += watching.update(_features(rows(1_000, 50 + tick)), at=60.0 * tick)
    assert found == []
    for tick in range(5, 10):
        found += watching.update(_features(rows(1_000, 50 + tick, **changes)), at=60.0 * tick)
    return [r for r in found if r.kind.value == "data_drift" and r.scope.value == "feature"]


def _features(of: dict[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in of.items() if name != "label"}


def test_a_drift_that_costs_says_how_much() -> None:
    [first, *_] = drifts(monitor(), shift=1.0)
    assert first.subject == "age"
    assert "estimated accuracy fell from" in first.explain
    assert "more errors in 1,000 rows (" in first.explain
    day = float(first.explain.split("rows (")[1].split(" a day")[0].replace(",", ""))
    per_1000 = float(first.explain.split("about ")[1].split(" more")[0].replace(",", ""))
    assert day == pytest.approx(per_1000 / 1_000 * 1_440_000, rel=0.1)


def test_a_drift_that_the_model_does_not_care_about_says_that() -> None:
    [reading, *_] = drifts(monitor(), noise=2.0)
    assert reading.subject == "other"
    assert "not surely another than" in reading.explain


def test_of_two_features_that_drift_the_one_that_matters_is_named() -> None:
    found = drifts(monitor(), shift=1.0, noise=2.0)
    assert {reading.subject for reading in found} == {"age", "other"}
    last = found[-1].explain
    assert "age explains" in last
    # `other` moved further, and no error depends on it.
    assert "of the expected change of errors" in last
    assert "other" not in last.split("explains")[1]


def test_what_the_reference_knows_of_errors_by_bin_adds_over_parts() -> None:
    whole = rows(9_000, 1)
    first = {name: column[:6_000] for name, column in whole.items()}
    builder = ReferenceBuilder(score="score", label="label", task="classification")
    builder.update(first)
    one = builder.finish()
    other = ReferenceBuilder(score="score", label="label", task="classification", like=one)
    other.update({name: column[6_000:] for name, column in whole.items()})
    both = merge(one, other.finish())
    assert both.means is not None
    assert both.means.rows("loss").sum(axis=1).tolist() == [9_000, 9_000]
    wrong = (whole["score"] >= 0.5) != whole["label"]
    assert both.means.sums[1, :, :, 1].sum(axis=1).tolist() == [wrong.sum()] * 2
    assert Reference.from_bytes(both.to_bytes()).means is not None


def test_the_rate_of_rows_survives_a_restart_and_a_clock_that_goes_back() -> None:
    of = build_reference(rows(2_000, 1), score="score", label="label")
    known, after = (Consequences(of, table_of(of)) for _ in range(2))
    for minute in range(200):
        known.note(60.0 * minute, 100 * minute)
    assert known.rows_per_day == pytest.approx(100 * 1_440)
    after.restore(known.state())
    assert after.rows_per_day == known.rows_per_day
    known.note(0.0, 20_000)
    assert known.rows_per_day is None
    known.note(float("nan"), 20_001)
    known.note(None, 20_002)
    assert known.rows_per_day is None


def test_the_reference_s_own_quality_is_what_its_rows_showed() -> None:
    rng = np.random.default_rng(3)
    score = rng.random(4_000)
    truth = rng.random(4_000) < score
    builder = EstimationBuilder("classification")
    builder.update(score, score > 0.5, truth)
    table = builder.finish()
    assert table is not None
    assert baseline_figures(table)["accuracy"] == pytest.approx(np.mean((score > 0.5) == truth))
    said = rng.normal(size=4_000)
    errors = EstimationBuilder("regression")
    errors.update(None, said, said + rng.normal(size=4_000))
    table = errors.finish()
    assert table is not None
    assert baseline_figures(table)["mae"] == pytest.approx(np.sqrt(2 / np.pi), abs=0.05)
