"""Rows that come in order resemble their neighbours, and so do their labels and errors."""

from collections import Counter

import numpy as np
import pytest

from detectors import Monitor, Reading, Reference, ReferenceBuilder
from detectors.references.merging import merge

Columns = dict[str, np.ndarray]


def wandering(rng: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """An autoregressive feature: what the model is asked about stays similar for a while."""
    noise = rng.normal(0.0, np.sqrt(1 - memory**2), rows)
    values = np.empty(rows)
    value = rng.normal()
    for row in range(rows):
        value = memory * value + noise[row]
        values[row] = value
    return values


def labelled(rng: np.random.Generator, rows: int, memory: float, shift: float = 0.0) -> Columns:
    """Rows whose label, and whose chance of an error, go with the feature."""
    x = wandering(rng, rows, memory)
    chance = 1 / (1 + np.exp(-(2 * x - 1)))
    said = (chance > 0.5).astype(int)
    true = (rng.random(rows) < np.clip(chance + shift, 0, 1)).astype(int)
    return {"x": x, "said": said, "true": true}


def reference_of(columns: Columns, *, ordered: bool = True) -> Reference:
    builder = ReferenceBuilder(prediction="said", label="true", ordered=ordered)
    builder.update(columns)
    return builder.finish()


def readings_of(monitor: Monitor, columns: Columns, tick_rows: int = 200) -> list[Reading]:
    found = []
    for start in range(0, len(columns["x"]), tick_rows):
        part = slice(start, start + tick_rows)
        found += monitor.update_labels(columns["said"][part], columns["true"][part])
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_labels_and_errors_that_resemble_their_neighbours_raise_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    monitor = Monitor(reference_of(labelled(rng, 10_000, 0.9)))
    found = readings_of(monitor, labelled(rng, 60_000, 0.9))
    assert Counter(reading.subject for reading in found) == {}


def test_a_changed_concept_is_found_among_rows_that_resemble_their_neighbours() -> None:
    rng = np.random.default_rng(3)
    monitor = Monitor(reference_of(labelled(rng, 10_000, 0.9)))
    found = readings_of(monitor, labelled(rng, 20_000, 0.9, shift=0.3))
    assert any(reading.subject == "error_rate" for reading in found)


def test_how_much_errors_resemble_each_other_is_part_of_the_reference() -> None:
    rng = np.random.default_rng(4)
    rows = labelled(rng, 10_000, 0.97)
    reference = reference_of(rows)
    assert reference.baseline is not None
    assert reference.baseline.phi > 1.5
    assert Reference.from_bytes(reference.to_bytes()).baseline == reference.baseline
    independent = reference_of(labelled(rng, 10_000, 0.0))
    assert independent.baseline is not None
    assert independent.baseline.phi < 1.3
    both = merge(reference, independent).baseline
    assert both is not None
    assert both.phi == reference.baseline.phi
    unordered = reference_of(rows, ordered=False).baseline
    assert unordered is not None
    assert (unordered.phi, unordered.wander) == (1.0, 0.0)
