"""Concept drift of a regression, through the whole monitor."""

import numpy as np
import pytest

from detectors import Monitor, Reading, Reference, ReferenceBuilder
from detectors.reading import Kind, State

TICK_ROWS = 200


def rows(
    rng: np.random.Generator, count: int, offset: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = rng.normal(size=count)
    return x, 2 * x, 2 * x + offset + rng.normal(size=count)


@pytest.fixture(scope="module")
def reference() -> Reference:
    x, said, true = rows(np.random.default_rng(1), 5_000)
    builder = ReferenceBuilder(prediction="said", label="true")
    builder.update({"x": x, "said": said, "true": true})
    return builder.finish()


def of_residuals(
    monitor: Monitor, rng: np.random.Generator, offset: float, ticks: int
) -> list[Reading]:
    found = []
    for _ in range(ticks):
        _, said, true = rows(rng, TICK_ROWS, offset)
        found += monitor.update_labels(said, true)
    return [reading for reading in found if reading.kind is Kind.CONCEPT_DRIFT]


def states(readings: list[Reading]) -> list[State]:
    return [reading.state for reading in readings]


def test_the_next_change_is_found_after_a_drift_and_a_return_is_said_once(
    reference: Reference,
) -> None:
    rng, monitor = np.random.default_rng(2), Monitor(reference)
    assert of_residuals(monitor, rng, 0.0, 30) == []
    assert states(of_residuals(monitor, rng, 1.0, 30)) == [State.DRIFT]
    assert states(of_residuals(monitor, rng, 3.0, 30)) == [State.DRIFT]
    assert states(of_residuals(monitor, rng, -1.0, 30)) == [State.DRIFT]
    assert monitor.concept_states()["residual"] is State.DRIFT
    assert states(of_residuals(monitor, rng, 0.0, 30)) == [State.OK]
    assert states(of_residuals(monitor, rng, 1.0, 30)) == [State.DRIFT]


def test_a_level_that_stays_is_no_news(reference: Reference) -> None:
    rng, monitor = np.random.default_rng(3), Monitor(reference)
    of_residuals(monitor, rng, 0.0, 6)
    assert states(of_residuals(monitor, rng, 1.0, 1_000)) == [State.DRIFT]


@pytest.mark.parametrize("split", [3, 12, 16, 18])
def test_a_restart_changes_nothing(reference: Reference, split: int) -> None:
    def run(restart: bool) -> list[Reading]:
        rng, monitor = np.random.default_rng(4), Monitor(reference)
        found = []
        for tick in range(60):
            if restart and tick == split:
                monitor = Monitor.restore(reference, monitor.state())
            offset = 0.0 if tick < 10 else 1.0 if tick < 25 else 3.0
            found += of_residuals(monitor, rng, offset, 1)
        return found

    assert run(restart=True) == run(restart=False)
    assert states(run(restart=False)) == [State.DRIFT, State.DRIFT]
