"""How good the model probably is on rows that have no label yet: shown with an interval, and never
believed alone.

An estimate supposes that scores still mean what they did; whether they do is said by the part
`calibration`, and where labels come `performance` says how good the model was in fact.

Of more than two classes it matters what a score is. Where reference and rows have one for each
class ([rows, classes], a vectors column; the agent has it from models that answer so) all figures
are estimated. Where both have one number a row, the score of the class that was said, accuracy
alone is (basis "confidence"). Rows with one number against a reference with scores of each class
are left out and counted: `remora replay` reads one number. Labels come with one number always, and
what that means calibration learns from the first labelled rows.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.batches import Batch, Rows
from detectors.performance.estimation import Estimator
from detectors.performance.estimation_table import EstimationTable
from detectors.performance.intervals import Estimate
from detectors.reading import Reading
from detectors.reference import Reference
from detectors.rows.columns import numbers
from detectors.settings import Settings

#: Where a score is all there is, this is the class that it stands for.
SCORE_THRESHOLD: Final = 0.5


class Estimation:
    """An `Estimator` among the parts of a monitor."""

    def __init__(self, reference: Reference, table: EstimationTable) -> None:
        self.table = table
        self.estimator = Estimator(table)
        self._said = reference.prediction
        # A reference that was built from scores alone has them as the prediction.
        self._score = reference.score or reference.prediction

    def update(self, batch: Batch) -> list[Reading]:
        """Take what the model said in a tick."""
        if isinstance(batch, Rows):
            score = self._scores(batch)
            said = self._predictions(batch, score)
            if said is not None:
                self.estimator.update(score, said)
        return []

    def _scores(self, batch: Rows) -> NDArray[np.float64] | None:
        if self.table.basis == "regression" or self._score is None:
            return None
        name = self._score.name
        if name in batch.table.vectors:
            return batch.table.vectors[name].astype(np.float64)
        column = batch.table.columns.get(name)
        return None if column is None else numbers(column).astype(np.float64)

    def _predictions(self, batch: Rows, score: NDArray[np.float64] | None) -> NDArray[Any] | None:
        assert self._said is not None
        of_score = self._said is self._score and self.table.basis != "regression"
        if not of_score:
            return batch.table.columns.get(self._said.name)
        if score is None or score.ndim != 1 or len(self.table.classes) != 2:
            return None
        names = np.array([*self.table.classes, None], dtype=object)
        with np.errstate(invalid="ignore"):
            place = (score >= SCORE_THRESHOLD).astype(np.int64)
        place[np.isnan(score)] = 2
        return names[place]

    def metrics(self) -> dict[str, Estimate]:
        """Give estimated metrics over the last rows; empty before the first."""
        return self.estimator.metrics()

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.estimator.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.estimator.restore(state)

    def reset(self) -> None:
        """Nothing is latched here."""


def table_of(reference: Reference) -> EstimationTable | None:
    """Give the reference's table for estimates; None where its rows had no label or no score."""
    baseline = reference.baseline
    if baseline is None or baseline.estimation is None or reference.prediction is None:
        return None
    try:
        return EstimationTable.from_tree(baseline.estimation)
    except (KeyError, TypeError, ValueError):
        return None  # of another format


def estimation(reference: Reference, settings: Settings) -> Estimation | None:
    """For models whose labelled reference rows had scores, or were numbers."""
    table = table_of(reference)
    return None if table is None else Estimation(reference, table)
