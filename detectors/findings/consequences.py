"""What a drift rests on and is likely to cost, said in the reading of it.

When a feature drifts beside others, its reading names the features that explain most of it; where
quality is estimated, it says how far that is expected to have moved, and how many errors that makes
in a day of the traffic that was seen. Words are added, nothing is decided here.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from detectors.drift.detector import DriftDetector
from detectors.findings.attribution import Attribution, cost_of, sentence
from detectors.performance.error_estimation import expected_errors
from detectors.performance.estimation_table import EstimationTable
from detectors.performance.intervals import Estimate
from detectors.reading import Kind, Reading, State
from detectors.reference import Reference

DAY_S: Final = 86_400.0
#: Moments that the rate of rows is measured between, at least so far apart.
MOMENTS_MAX: Final = 50
APART_S: Final = 60.0
_STANDING: Final = frozenset({State.WARNING, State.DRIFT})


class Consequences:
    """Knows how fast rows come, what the reference's quality was, and who weighs features."""

    def __init__(self, reference: Reference, table: EstimationTable | None) -> None:
        self._attribution = Attribution(reference.features, reference.means)
        self._was = {} if table is None else baseline_figures(table)
        self._moments: deque[tuple[float, int]] = deque(maxlen=MOMENTS_MAX)

    def note(self, at: float | None, rows: int) -> None:
        """Remember when so many rows had been seen; a clock that goes back begins anew."""
        if at is None or at != at:
            return
        if self._moments and at < self._moments[-1][0]:
            self._moments.clear()
        if not self._moments or at - self._moments[-1][0] >= APART_S:
            self._moments.append((at, rows))

    @property
    def rows_per_day(self) -> float | None:
        """Rows a day, as of late; None before two moments are known."""
        if len(self._moments) < 2:
            return None
        (began, before), (ended, after) = self._moments[0], self._moments[-1]
        return (after - before) / (ended - began) * DAY_S

    def told(
        self,
        readings: Sequence[Reading],
        features: DriftDetector,
        estimated: Mapping[str, Estimate],
    ) -> list[Reading]:
        """Give the readings with what follows from those of drifted features added to them."""
        if not any(_about_drift(reading) for reading in readings):
            return list(readings)
        drifted = [name for name, state in features.states().items() if state in _STANDING]
        attributed = self._attribution.explain(features.counts_since, drifted)
        cost = cost_of(self._was, estimated, rows_per_day=self.rows_per_day)
        text = sentence(attributed, cost)
        return [
            replace(reading, explain=f"{reading.explain}; {text}")
            if text and _about_drift(reading)
            else reading
            for reading in readings
        ]

    def state(self) -> list[list[float]]:
        """Give what a restart should know, as JSON values."""
        return [[at, rows] for at, rows in self._moments]

    def restore(self, state: Sequence[Sequence[Any]]) -> None:
        """Take back what `state` gave."""
        moments = [(float(at), int(rows)) for at, rows in state]
        self._moments = deque(moments, maxlen=MOMENTS_MAX)


def _about_drift(reading: Reading) -> bool:
    return reading.kind is Kind.DATA_DRIFT and reading.state in _STANDING


def baseline_figures(table: EstimationTable) -> dict[str, float]:
    """Give the quality that the labelled reference had: accuracy, or MAE and RMSE."""
    if table.basis == "regression":
        [residuals] = table.tables
        return {
            name: estimate.value
            for name, estimate in expected_errors(residuals, residuals.sums[:, 0]).items()
        }
    if table.basis == "multiclass":  # of each row's classes the predicted one is right or wrong
        right = sum(float(part.sums[:, 3].sum()) for part in table.tables)
        said = sum(float(part.sums[:, 2:].sum()) for part in table.tables)
        return {"accuracy": right / said} if said > 0 else {}
    [scores] = table.tables
    total = float(scores.sums.sum())
    right = float(scores.sums[:, 0].sum() + scores.sums[:, 3].sum())
    return {"accuracy": right / total} if total > 0 else {}
