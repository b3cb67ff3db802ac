"""Drift of features, of their projections and of what the model says: three `DriftDetector`s.

They differ in the profiles they hold rows against and in their share of the budget, in nothing
else. A part without profiles is not made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from detectors.batches import Batch, Rows
from detectors.drift.detector import DriftDetector
from detectors.reading import Kind, Reading, Scope, State
from detectors.reference import FeatureProfile, Reference
from detectors.settings import Settings


class _Provisional(DriftDetector):
    """Effects to look at: no state is claimed against a reference that is still being learnt."""

    def states(self) -> dict[str, State]:
        return dict.fromkeys(self.names, State.INSUFFICIENT_DATA)


class Drift:
    """A `DriftDetector` among the parts of a monitor; `detector` is what exporters read."""

    def __init__(
        self,
        reference: Reference,
        settings: Settings,
        profiles: Sequence[FeatureProfile],
        *,
        share: str,
        kind: Kind = Kind.DATA_DRIFT,
        scope: Scope = Scope.FEATURE,
    ) -> None:
        self.detector = (_Provisional if settings.provisional else DriftDetector)(
            reference,
            false_alarms_per_month=settings.budget.of(share),
            ticks_per_month=settings.budget.ticks_per_month,
            effect=settings.effect,
            version=settings.version,
            kind=kind.value,
            profiles=profiles,
            scope=scope,
        )
        self._names = frozenset(self.detector.names)

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's rows; labelled rows are no concern of this part."""
        if not isinstance(batch, Rows):
            return []
        columns = {n: c for n, c in batch.columns.items() if n in self._names}
        if not columns:
            return []
        return self.detector.update(
            columns, ticks=batch.ticks, at=batch.moment.at, times=batch.times
        )

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, under the budget that holds now."""
        self.detector.resume(state)

    def reset(self) -> None:
        """Forget evidence and latched states."""
        self.detector.reset()


class FeatureDrift(Drift):
    """The features are counted once for all parts."""

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's counts."""
        if not isinstance(batch, Rows):
            return []
        return self.detector.observe(
            batch.counts, rows=batch.table.rows, ticks=batch.ticks, at=batch.moment.at
        )


def features(reference: Reference, settings: Settings) -> Drift | None:
    """Each feature by itself."""
    if not reference.features:
        return None
    return FeatureDrift(reference, settings, reference.features, share="data")


def projections(reference: Reference, settings: Settings) -> Drift | None:
    """How features go together."""
    if not reference.projections:
        return None
    return Drift(
        reference,
        settings,
        reference.projections,
        share="projections",
        scope=Scope.MULTIVARIATE,
    )


def prediction(reference: Reference, settings: Settings) -> Drift | None:
    """What the model says, and how sure it is."""
    profiles = [p for p in (reference.prediction, reference.score) if p is not None]
    if not profiles:
        return None
    return Drift(
        reference,
        settings,
        profiles,
        share="prediction",
        kind=Kind.PREDICTION_DRIFT,
        scope=Scope.MODEL,
    )
