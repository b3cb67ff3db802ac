"""Whether estimates without labels can still be believed, as labels have it."""

from collections.abc import Mapping
from typing import Any

from detectors.batches import Batch, Labels
from detectors.parts.estimation import table_of
from detectors.performance.estimate_trust import EstimateTrust
from detectors.performance.estimation_table import EstimationTable
from detectors.reading import Reading
from detectors.reference import Reference
from detectors.settings import Settings


class Trust:
    """An `EstimateTrust` among the parts of a monitor."""

    def __init__(self, table: EstimationTable, settings: Settings) -> None:
        self.detector = EstimateTrust(
            table,
            false_alarms_per_month=settings.budget.of("estimation"),
            ticks_per_month=settings.budget.ticks_per_month,
        )
        self._regression = table.basis == "regression"

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows that are evidence."""
        if not isinstance(batch, Labels) or (batch.task == "regression") != self._regression:
            return []
        bets = batch.evidence
        score = None if self._regression else batch.score[bets]
        changes = self.detector.update(
            score, batch.predicted[bets], batch.truth[bets], ticks=batch.ticks
        )
        return [batch.moment.reading(change) for change in changes]

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError for what does not fit."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Believe again, and forget the evidence."""
        self.detector.reset()


def trust(reference: Reference, settings: Settings) -> Trust | None:
    """For models whose labelled reference rows had scores, or were numbers."""
    table = table_of(reference)
    return None if table is None else Trust(table, settings)
