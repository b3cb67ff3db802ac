"""The parts that watch labels and what scores mean: made from a reference, fed by a monitor."""

from typing import Any

import numpy as np
import pytest

from detectors import Monitor, build_reference
from detectors.budget import Budget
from detectors.parts.calibration import Calibration
from detectors.parts.truth import LabelProfile, LabelShare
from detectors.performance.estimation import EstimationBuilder
from detectors.reading import Kind, Reading
from detectors.reference import Reference
from detectors.settings import Settings

SETTINGS = Settings(budget=Budget(ticks_per_month=1_000.0))


def scored(rng: np.random.Generator, rows: int) -> Any:
    return np.clip(rng.beta(1.0, 3.0, rows), 1e-6, 1 - 1e-6)


def binary(spell: Any = int) -> Reference:
    """6,000 rows whose scores mean what they say; labels spelt in one way or another."""
    rng = np.random.default_rng(1)
    score = scored(rng, 6_000)
    truth = rng.random(6_000) < score
    return build_reference(
        {
            "x": rng.normal(size=6_000),
            "score": score,
            "said": np.array([int(s > 0.5) for s in score]),
            "label": np.array([spell(t) for t in truth]),
        },
        prediction="said",
        score="score",
        label="label",
        task="classification",
    )


def fed(monitor: Monitor, rows: int, rng: np.random.Generator, **how: Any) -> list[Reading]:
    """Labelled rows, a thousand to a tick; scores too high by `high` of their log-odds."""
    found = []
    for _ in range(rows // 1_000):
        score = scored(rng, 1_000)
        odds = score / (1 - score) * np.exp(-how.get("high", 0.0))
        truth = rng.random(1_000) < odds / (1 + odds)
        found += monitor.update_labels(
            [int(s > 0.5) for s in score], [int(t) for t in truth], score=score
        )
    return found


def test_rows_like_those_of_the_reference_say_nothing() -> None:
    monitor = Monitor(binary(), settings=SETTINGS)
    assert fed(monitor, 20_000, np.random.default_rng(2)) == []


@pytest.mark.parametrize("spell", [int, str, bool, float])
def test_scores_that_mean_less_are_concept_drift_and_fewer_positives_label_drift(
    spell: Any,
) -> None:
    monitor = Monitor(binary(lambda t: spell(int(t))), settings=SETTINGS)
    readings = fed(monitor, 4_000, np.random.default_rng(3), high=1.0)
    said = {(r.kind, r.subject): r for r in readings}
    assert said[Kind.CONCEPT_DRIFT, "calibration"].state == "drift"
    assert "turn out positive less often" in said[Kind.CONCEPT_DRIFT, "calibration"].explain
    # That labels have moved follows from it and is not said besides (see `following`), but known.
    label = monitor.parts["label"]
    assert isinstance(label, LabelShare)
    assert label.status in ("warning", "drift")
    # The share of errors falls meanwhile: it alone would not have told.
    assert all(
        r.effect is not None and r.effect.value < 0 for r in readings if r.subject == "error_rate"
    )


def test_two_classes_are_a_share_and_many_a_profile() -> None:
    rng = np.random.default_rng(4)
    monitor = Monitor(binary(), settings=SETTINGS)
    assert isinstance(monitor.parts["label"], LabelShare)
    assert isinstance(monitor.parts["calibration"], Calibration)
    many = build_reference(
        {"x": rng.normal(size=3_000), "label": rng.choice(["a", "b", "c"], 3_000)}, label="label"
    )
    watching = Monitor(many, settings=SETTINGS)
    assert isinstance(watching.parts["label"], LabelProfile)
    assert "calibration" not in watching.parts
    readings: list[Reading] = []
    for shares in ([1 / 3] * 3, [1 / 3] * 3, *[[0.6, 0.3, 0.1]] * 4):
        drawn = rng.choice(["a", "b", "c"], 1_000, p=shares).tolist()
        readings += watching.update_labels(drawn, drawn)
    assert [(r.kind, r.subject, r.state) for r in readings] == [
        (Kind.LABEL_DRIFT, "label", "drift")
    ]
    assert readings[0].row == 3_000


def test_labels_that_are_neither_class_do_not_count() -> None:
    monitor = Monitor(binary(), settings=SETTINGS)
    part = monitor.parts["label"]
    assert isinstance(part, LabelShare)
    before = part.state()
    odd = ["maybe", 7, float("nan"), None, float("inf"), 1e308]
    monitor.update_labels([1] * len(odd), odd, score=np.full(len(odd), 0.5))
    assert part.state() == before


def test_many_classes_learn_what_their_confidence_means() -> None:
    rng = np.random.default_rng(5)
    names = np.array(["a", "b", "c"])

    def rows(n: int, noise: float) -> tuple[Any, Any, Any]:
        score = rng.dirichlet([1.0, 1.0, 1.0], n)
        true = np.array([rng.choice(3, p=row) for row in score])
        true = np.where(rng.random(n) < noise, rng.integers(0, 3, n), true)
        return score, names[score.argmax(1)], names[true]

    score, said, true = rows(4_000, 0.0)
    reference = build_reference(
        {"x": rng.normal(size=4_000), "said": said, "label": true},
        prediction="said",
        label="label",
        task="classification",
    )
    builder = EstimationBuilder("classification")
    builder.update(score, said.astype(object), true.astype(object))
    table = builder.finish()
    assert table is not None
    watching = Calibration(table, SETTINGS)
    monitor = Monitor(reference, settings=SETTINGS)
    monitor.parts = {"calibration": watching}
    for noise, expected in ((0.0, []), (0.5, ["drift"])):
        states = []
        for _ in range(4):
            score, said, true = rows(1_000, noise)
            readings = monitor.update_labels(said.tolist(), true.tolist(), score=score)
            states += [reading.state.value for reading in readings]
        assert states == expected
