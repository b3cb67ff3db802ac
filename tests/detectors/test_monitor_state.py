"""A state that does not fit is refused by name of what it is, and never half believed."""

import copy
from typing import Any

import numpy as np
import pytest

from detectors import Monitor, ProfileError, Reference, ReferenceBuilder
from detectors.settings import FairnessSettings, Settings

SETTINGS = Settings(fairness=(FairnessSettings(attribute="sex"),))


@pytest.fixture(scope="module")
def reference() -> Reference:
    builder = ReferenceBuilder(prediction="said", score="score", label="true")
    builder.update(rows(2_000))
    return builder.finish()


def rows(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    score = rng.random(count)
    return {
        "x": rng.normal(size=count),
        "said": (score > 0.5).astype(int),
        "score": score,
        "true": (rng.random(count) < score).astype(int),
    }


@pytest.fixture(scope="module")
def state(reference: Reference) -> dict[str, Any]:
    monitor, seen = Monitor(reference, settings=SETTINGS), rows(400)
    monitor.update(seen)
    monitor.update_labels(
        seen["said"], seen["true"], score=seen["score"], groups={"sex": ["f", "m"] * 200}
    )
    return monitor.state()


def test_what_was_not_altered_is_taken_back(reference: Reference, state: dict[str, Any]) -> None:
    assert Monitor.restore(reference, state, settings=SETTINGS).labelled_rows == 400


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 99),
        ("reference", "0" * 64),
        ("rows", None),
        ("said_once labels held", []),
        ("traffic", [[0.0]]),
        ("parts", None),
        ("parts features ring1000_counts", -1),
        ("parts fairness selection sex groups", "f"),
        ("parts fairness labelled sex groups", None),
        ("parts error_rate detector status", "fine"),
        ("parts error_rate detector status", np.zeros(3)),
        ("parts error_rate detector sides 0 log_r", []),
        ("parts error_rate detector sides 0 cusum", [0.0, 1.0]),
        ("parts error_rate detector sides 1 since", -1),
        ("parts label sides 0 since", [[10**30] * 5] * 2),
        ("parts trust calm", [float("nan"), 0.0, 0.0]),
        ("parts calibration bets recent", ["x"]),
    ],
)
def test_what_was_altered_is_refused(
    reference: Reference, state: dict[str, Any], path: str, value: Any
) -> None:
    altered: Any = copy.deepcopy(state)
    *way, last = [int(key) if key.isdigit() else key for key in path.split()]
    place = altered
    for key in way:
        place = place[key]
    place[last] = value
    with pytest.raises(ProfileError, match="monitor state"):
        Monitor.restore(reference, altered, settings=SETTINGS)
