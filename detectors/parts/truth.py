"""Label drift: is what turns out true spread over its values as on the reference?

Two classes are one rate, for which the Bernoulli e-detector sees sooner than bins do; anything else
is held against the label's profile like a feature.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from detectors.batches import Batch, Labels
from detectors.concept.error_rate import ConceptChange, ErrorRateDetector
from detectors.drift.detector import DriftDetector
from detectors.parts.errors import ROWS_AT_ONCE
from detectors.reading import Change, Effect, Kind, Reading, Scope, State
from detectors.reference import FeatureProfile, Reference
from detectors.references.baseline_rows import class_names
from detectors.references.calibration import wander
from detectors.rows.binning import Binner
from detectors.rows.bins import BINS
from detectors.settings import Settings

SPELLINGS_MAX: Final = 1_000
#: Change of the share of a class, less two standard errors, that is a drift: PSI is .03 to .1.
SHARE_EFFECT_MIN: Final = 0.05


class LabelShare:
    """Two classes: the share of the rarer one, among rows whose label is one of the two."""

    def __init__(self, profile: FeatureProfile, settings: Settings) -> None:
        counts = np.array(profile.counts[:BINS])
        self._rare, self._common = sorted(_classes(profile), key=lambda b: (counts[b], b))
        self._name = profile.name
        self._binner = Binner([(profile.name, profile.bins)])
        self._bins: dict[tuple[type, Any], int] = {}
        self.name = profile.labels()[self._rare]
        self.detector = ErrorRateDetector(
            errors=round(counts[self._rare]),
            rows=round(counts[self._rare]) + round(counts[self._common]),
            false_alarms_per_month=settings.budget.of("label"),
            ticks_per_month=settings.budget.ticks_per_month,
            effect_min=SHARE_EFFECT_MIN,
            what=f"the share of label {self.name}",
            phi=profile.phi,
            wander=wander(profile.tolerance),
        )

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows, few at a time."""
        if not isinstance(batch, Labels):
            return []
        bins = np.array([self._bin(value) for value in batch.truth[batch.evidence].tolist()], int)
        known = bins[(bins == self._rare) | (bins == self._common)]
        readings: list[Reading] = []
        for start in range(0, len(known), ROWS_AT_ONCE):
            few = known[start : start + ROWS_AT_ONCE]
            changes = self.detector.update(
                rows=len(few),
                errors=int((few == self._rare).sum()),
                ticks=batch.ticks * len(few) / len(known),
            )
            readings += [batch.moment.reading(self._change(change)) for change in changes]
        return readings

    def _bin(self, value: Any) -> int:
        key = (type(value), value)
        try:
            found = self._bins.get(key)
        except TypeError:  # a list is no label
            return -1
        if found is None:
            column = class_names(np.array([value, None], dtype=object)[:1])
            found = int(self._binner.count({self._name: column}, 1)[0].argmax())
            if len(self._bins) >= SPELLINGS_MAX:
                self._bins.clear()
            self._bins[key] = found
        return found

    def _change(self, change: ConceptChange) -> Change:
        return Change(
            kind=Kind.LABEL_DRIFT,
            scope=Scope.MODEL,
            subject=self._name,
            detector="bernoulli",
            state=State(change.state),
            statistic=change.log10_evidence,
            threshold=0.0,
            evidence=change.log10_evidence,
            effect=Effect(name="share_change", value=change.rate - change.baseline_rate),
            rows=change.rows,
            explain=change.explain,
        )

    @property
    def status(self) -> State:
        """The state of the label."""
        return State(self.detector.status)

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Begin anew against the reference."""
        self.detector.rearm()


class LabelProfile:
    """Many classes or numbers: the label like a feature."""

    def __init__(self, reference: Reference, settings: Settings) -> None:
        assert reference.label is not None
        self.detector = DriftDetector(
            reference,
            false_alarms_per_month=settings.budget.of("label"),
            ticks_per_month=settings.budget.ticks_per_month,
            effect=settings.effect,
            version=settings.version,
            kind=Kind.LABEL_DRIFT.value,
            scope=Scope.MODEL,
            profiles=(reference.label,),
        )

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows."""
        if not isinstance(batch, Labels) or not batch.evidence.any():
            return []
        truth = batch.truth[batch.evidence]
        if batch.task == "classification":
            truth = class_names(truth)
        column = {self.detector.names[0]: truth}
        return self.detector.update(column, ticks=batch.ticks, at=batch.moment.at)

    @property
    def status(self) -> State:
        """The state of the label."""
        return self.detector.states()[self.detector.names[0]]

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, under the budget that holds now."""
        self.detector.resume(state)

    def reset(self) -> None:
        """Forget evidence and latched states."""
        self.detector.reset()


def _classes(profile: FeatureProfile) -> list[int]:
    """Give the bins of values that reference rows fell into."""
    return [int(b) for b in np.flatnonzero(np.array(profile.counts[:BINS]) >= 1.0)]


def label(reference: Reference, settings: Settings) -> LabelShare | LabelProfile | None:
    """For references whose rows had a label; of a provisional one nothing is claimed."""
    if reference.label is None or settings.provisional:
        return None
    if len(_classes(reference.label)) == 2 and reference.task != "regression":
        return LabelShare(reference.label, settings)
    return LabelProfile(reference, settings)
