"""What is wrong with the data itself: see `detectors.data_quality.watch`."""

from collections.abc import Mapping
from typing import Any

from detectors.batches import Batch, Rows
from detectors.data_quality.watch import DataQuality
from detectors.reading import Moment, Reading
from detectors.reference import Reference
from detectors.rows.columns import Table
from detectors.settings import Settings


class Columns:
    """`DataQuality` among the parts of a monitor; against a provisional reference it is silent."""

    def __init__(self, reference: Reference, settings: Settings) -> None:
        self.detector = DataQuality(
            reference,
            false_alarms_per_month=settings.budget.of("data_quality"),
            ticks_per_month=settings.budget.ticks_per_month,
        )

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's columns."""
        if not isinstance(batch, Rows):
            return []
        changes = self.detector.update(
            batch.table,
            ticks=batch.ticks,
            type_changes=batch.type_changes,
            counts=batch.counts,
        )
        return [batch.moment.reading(change) for change in changes]

    def idle(self, ticks: float, moment: Moment) -> list[Reading]:
        """Take a tick without a row: it counts towards silence."""
        nothing = Table(columns={}, malformed={}, rows=0)
        return [moment.reading(c) for c in self.detector.update(nothing, ticks=ticks)]

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Forget evidence and all that was said."""
        self.detector.reset()


def columns(reference: Reference, settings: Settings) -> Columns | None:
    """For every model whose reference is whole."""
    return None if settings.provisional else Columns(reference, settings)
