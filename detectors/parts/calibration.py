"""Concept drift by what scores mean: do rows of a score still turn out positive as often?

The labelled reference's table for estimation says how often they did. For many classes the score of
the class that was said is watched, and whether it was right; a table has no such counts, so that
the first labelled rows teach them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from detectors.batches import Batch, Floats, Labels
from detectors.concept.calibration_drift import CalibrationDetector
from detectors.parts.estimation import table_of
from detectors.performance.estimation_table import EstimationTable
from detectors.performance.quality import class_name
from detectors.reading import Reading, State
from detectors.reference import Reference
from detectors.settings import Settings

_NOT_PREDICTED_TRUE, _PREDICTED_TRUE = 1, 3  # columns of a score's table


class Calibration:
    """A `CalibrationDetector` among the parts of a monitor."""

    concept = "calibration"

    def __init__(self, table: EstimationTable, settings: Settings) -> None:
        self._table = table
        budget = settings.budget
        counts: dict[str, Any] = {}
        if len(table.tables) == 1:
            [of_score] = table.tables
            counts = {
                "edges": of_score.edges,
                "rows": of_score.sums.sum(axis=1),
                "positives": of_score.sums[:, [_NOT_PREDICTED_TRUE, _PREDICTED_TRUE]].sum(axis=1),
                "calibrated": table.calibration(),
            }
        self.detector = CalibrationDetector(
            false_alarms_per_month=budget.of("calibration"),
            ticks_per_month=budget.ticks_per_month,
            outcome="positive" if table.basis == "binary" else "right",
            **counts,
        )

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows that have a score."""
        if not isinstance(batch, Labels) or batch.task != "classification":
            return []
        scores, outcomes = self._pairs(batch)
        changes = self.detector.update(scores, outcomes, ticks=batch.ticks)
        return [batch.moment.reading(change) for change in changes]

    def _pairs(self, batch: Labels) -> tuple[Floats, Floats]:
        """Give score and outcome of the rows that are evidence."""
        table, bets = self._table, batch.evidence
        score = batch.score[bets]
        if score.ndim == 1:
            score = score[:, None]
        alone = table.basis == "multiclass" and score.shape[1] == 1  # that of the class said
        if not alone and not table.takes(score.shape[1]):
            return np.empty(0), np.empty(0)
        said = [class_name(value) for value in batch.predicted[bets].tolist()]
        true = [class_name(value) for value in batch.truth[bets].tolist()]
        if table.basis == "binary":
            positive = table.classes[1]
            scores = table.aligned(score, np.array([name == positive for name in said], bool))
            return scores[:, 0], np.array([name == positive for name in true], float)
        right = np.array([one == other for one, other in zip(said, true, strict=True)], float)
        if score.shape[1] == 1:
            return score[:, 0], right
        place = {name: index for index, name in enumerate(table.classes)}
        columns = np.array([place.get(name, -1) for name in said], dtype=np.intp)
        scores = np.where(columns >= 0, score[np.arange(len(said)), columns], np.nan)
        return scores, right

    @property
    def status(self) -> State:
        """The state of what scores mean."""
        return self.detector.status

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Begin anew against the reference."""
        self.detector.reset()


def calibration(reference: Reference, settings: Settings) -> Calibration | None:
    """For classifiers whose labelled reference rows had scores."""
    table = table_of(reference)
    if table is None or table.basis == "regression" or reference.task == "regression":
        return None
    return Calibration(table, settings)
