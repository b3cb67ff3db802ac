"""What is wrong with the columns themselves: missing, unasked for, malformed."""

from collections.abc import Mapping
from typing import Any

from detectors.batches import Batch, Rows
from detectors.reading import Change, Kind, Reading, Scope, State
from detectors.reference import Reference
from detectors.schema_watch import SchemaWatch
from detectors.settings import Settings


class Columns:
    """Compares the columns of each tick with those of the reference."""

    def __init__(self, reference: Reference, settings: Settings) -> None:
        outputs = (reference.prediction, reference.score, reference.label)
        known = {*reference.feature_names, *(p.name for p in outputs if p is not None)}
        self._watch = SchemaWatch(expected=reference.feature_names, known=frozenset(known))

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's columns."""
        if not isinstance(batch, Rows):
            return []
        return [
            batch.moment.reading(
                Change(
                    kind=Kind.DATA_QUALITY,
                    scope=Scope.FEATURE,
                    subject=change.subject,
                    detector="schema",
                    state=change.state,
                    statistic=0.0 if change.state is State.OK else 1.0,
                    threshold=1.0,
                    rows=batch.table.rows,
                    explain=change.explain,
                )
            )
            for change in self._watch.update(batch.table)
        ]

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self._watch.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._watch.restore(state)

    def reset(self) -> None:
        """Nothing is latched here but what is so."""


def columns(reference: Reference, settings: Settings) -> Columns:
    """For every model."""
    return Columns(reference, settings)
