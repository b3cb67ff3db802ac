"""Parts of the stream by themselves, and rows by themselves: both outside the budget."""

from collections.abc import Mapping
from typing import Any

from detectors.batches import Batch, Rows
from detectors.groups.outliers import Outliers
from detectors.groups.segments import SegmentWatch
from detectors.reading import Reading
from detectors.reference import Reference
from detectors.settings import Settings


class Segments:
    """A `SegmentWatch` among the parts of a monitor."""

    def __init__(self, reference: Reference, settings: Settings) -> None:
        self.detector = SegmentWatch(
            reference,
            false_alarms_per_month=settings.budget.false_alarms_per_month,
            ticks_per_month=settings.budget.ticks_per_month,
            effect=settings.effect,
            version=settings.version,
        )

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's rows, apart by their segment."""
        if not isinstance(batch, Rows):
            return []
        return self.detector.update(
            batch.table, moment=batch.moment, ticks=batch.ticks, times=batch.times
        )

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Forget evidence and latched states."""
        self.detector.reset()


class Oddities:
    """`Outliers` among the parts of a monitor: they are counted and shown, and never a reading."""

    def __init__(self, reference: Reference) -> None:
        self.detector = Outliers(reference)

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's rows."""
        if isinstance(batch, Rows):
            self.detector.update(batch.table, at=batch.moment.at, counts=batch.counts)
        return []

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Forget the rows that were kept."""
        self.detector.reset()


def segments(reference: Reference, settings: Settings) -> Segments | None:
    """For references that were built apart by a column."""
    if reference.segments is None or settings.provisional:
        return None
    return Segments(reference, settings)


def outliers(reference: Reference, settings: Settings) -> Oddities | None:
    """For every model whose reference is whole."""
    return None if settings.provisional else Oddities(reference)
