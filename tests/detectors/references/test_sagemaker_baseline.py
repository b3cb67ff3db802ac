"""A SageMaker baseline becomes a reference: what is in it is used, what is not is not made up."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DriftDetector, ProfileError, Reference
from detectors.references.calibration import TOLERANCE
from detectors.references.sagemaker_baseline import reference_of_statistics
from detectors.rows.bins import MISSING
from detectors.rows.sketch import QuantileSketch

ROWS = 20_000


def kll(values: np.ndarray, k: int = 2_048) -> dict[str, Any]:
    """Levels of values, of weight 1, 2, 4, ..."""
    sketch = QuantileSketch()
    sketch.update(values)
    weighted, weights = sketch.weighted()
    data = [weighted[weights == 2.0**level].tolist() for level in range(int(np.log2(ROWS)))]
    return {"parameters": {"c": 0.64, "k": k}, "data": data}


def statistics(values: np.ndarray, **changes: Any) -> dict[str, Any]:
    common = {"num_present": ROWS, "num_missing": 200}
    numbers = {
        "common": common,
        "mean": 0.0,
        "min": float(values.min()),
        "max": float(values.max()),
        "distribution": {"kll": {"buckets": [], "sketch": kll(values)}},
    }
    buckets = [{"value": "web", "count": 15_000}, {"value": "app", "count": 5_000}]
    words = {
        "common": common,
        "distinct_count": 2.0,
        "distribution": {"categorical": {"buckets": buckets}},
    }
    features = [
        {"name": "x", "inferred_type": "Fractional", "numerical_statistics": numbers | changes},
        {"name": "channel", "inferred_type": "String", "string_statistics": words},
        {"name": "what", "inferred_type": "Unknown"},
    ]
    return {"version": 0.0, "dataset": {"item_count": ROWS + 200}, "features": features}


def test_numbers_and_words_are_taken_and_the_rest_is_named() -> None:
    values = np.random.default_rng(0).normal(50, 5, ROWS)
    tree = json.loads(json.dumps(statistics(values)))
    reference, left_out = reference_of_statistics(tree)
    assert set(left_out) == {"what"}
    x, channel = reference.features
    assert x.rows == pytest.approx(ROWS + 200)
    assert x.counts[MISSING] == 200
    assert x.median == pytest.approx(50, abs=0.2)
    assert not x.counts_exact
    assert channel.labels()[:2] == ("web", "app")
    assert channel.counts[:2] == (15_000, 5_000)
    assert not reference.ordered
    assert Reference.from_bytes(reference.to_bytes()) == reference


def test_it_raises_no_alarm_on_its_own_rows_and_sees_a_shift() -> None:
    rng = np.random.default_rng(1)
    reference, _ = reference_of_statistics(statistics(rng.normal(size=ROWS)))
    detector = DriftDetector(reference)

    def tick(shift: float) -> dict[str, np.ndarray]:
        missing = rng.random(1_000) < 200 / (ROWS + 200)
        words = rng.choice(np.array(["web", "app"], dtype=object), 1_000, p=[0.75, 0.25])
        words[missing] = None
        x = np.where(missing, np.nan, rng.normal(shift, 1, 1_000))
        return {"x": x, "channel": words}

    assert [reading for _ in range(300) for reading in detector.update(tick(0.0))] == []
    assert any(detector.update(tick(0.5)) for _ in range(3))


def test_a_coarse_sketch_is_believed_less() -> None:
    values = np.random.default_rng(2).normal(size=ROWS)
    shifts = []
    for k in (2_048, 200):
        distribution = {"kll": {"sketch": kll(values, k)}}
        reference, _ = reference_of_statistics(statistics(values, distribution=distribution))
        shifts.append(reference.features[0].tolerance)
    assert TOLERANCE < shifts[0] < shifts[1]


def test_categories_that_are_not_all_listed_are_an_open_table() -> None:
    tree = statistics(np.arange(ROWS * 1.0))
    tree["features"][1]["string_statistics"]["common"]["num_present"] = ROWS + 500
    channel = reference_of_statistics(tree)[0].features[1]
    assert channel.keys is not None
    assert not channel.keys.exact


@pytest.mark.parametrize("tree", [None, [], {}, {"dataset": {"item_count": 5}, "features": []}])
def test_what_is_no_baseline_is_refused(tree: Any) -> None:
    with pytest.raises(ProfileError, match="SageMaker"):
        reference_of_statistics(tree)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(part=st.sampled_from(["min", "max", "common", "distribution"]), value=JSON)
def test_whatever_a_column_says_stops_no_other(part: str, value: Any) -> None:
    tree = statistics(np.arange(200.0), **{part: value})
    reference, left_out = reference_of_statistics(tree)
    assert "channel" in reference.feature_names
    assert "x" in reference.feature_names or "x" in left_out
