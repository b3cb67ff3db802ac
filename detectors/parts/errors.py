"""Concept drift by what the model gets wrong: the rate of errors of a classifier, the residuals of
a regression.

Labelled rows are bets only where they are of the uniform stratum and labelled for the first time; a
correction is no new evidence.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from detectors.batches import Batch, Floats, Labels
from detectors.concept.error_rate import ConceptChange, ErrorRateDetector
from detectors.drift.detector import DriftDetector
from detectors.performance.quality import class_name
from detectors.reading import Change, Effect, Kind, Reading, Scope, State
from detectors.reference import Reference
from detectors.references.building import build_reference
from detectors.rows.columns import number_of
from detectors.settings import Settings

#: Labelled rows that the detector is given at a time: more would dilute a change that begins among
#: them.
ROWS_AT_ONCE: Final = 10
#: Residuals of a regression have no baseline until so many labelled rows came.
RESIDUAL_ROWS: Final = 1_000
RESIDUAL: Final = "residual"


def wrong(labels: Labels) -> Floats:
    """Give 1 where the model's class is another than the label's, 0 where not; only evidence."""
    pairs = zip(
        labels.predicted[labels.evidence].tolist(),
        labels.truth[labels.evidence].tolist(),
        strict=True,
    )
    return np.array([class_name(said) != class_name(true) for said, true in pairs], dtype=float)


class ErrorRate:
    """Is the classifier wrong more often, or less, than on the labelled reference?"""

    concept = "bernoulli"

    def __init__(self, reference: Reference, settings: Settings) -> None:
        baseline = reference.baseline
        self.rows = 0
        self.detector = ErrorRateDetector(
            errors=baseline.errors if baseline else 0,
            rows=baseline.rows if baseline else 0,
            phi=baseline.phi if baseline else 1.0,
            wander=baseline.wander if baseline else 0.0,
            false_alarms_per_month=settings.budget.of("error_rate"),
            ticks_per_month=settings.budget.ticks_per_month,
        )

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows, few at a time."""
        if not isinstance(batch, Labels) or batch.task != "classification":
            return []
        errors = wrong(batch)
        readings: list[Reading] = []
        for start in range(0, len(errors), ROWS_AT_ONCE):
            few = errors[start : start + ROWS_AT_ONCE]
            self.rows += len(few)
            changes = self.detector.update(
                rows=len(few),
                errors=int(few.sum()),
                ticks=batch.ticks * len(few) / len(errors),
            )
            moment = replace(batch.moment, row=self.rows)
            readings += [moment.reading(_change(change)) for change in changes]
        return readings

    @property
    def status(self) -> State:
        """The state of the error rate."""
        return State(self.detector.status)

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return {"detector": self.detector.state(), "rows": self.rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state["detector"])
        self.rows = int(state["rows"])

    def reset(self) -> None:
        """Begin anew against the reference."""
        self.detector.rearm()


def _change(change: ConceptChange) -> Change:
    return Change(
        kind=Kind.CONCEPT_DRIFT,
        scope=Scope.MODEL,
        subject="error_rate",
        detector=ErrorRate.concept,
        state=State(change.state),
        statistic=change.log10_evidence,
        threshold=0.0,
        evidence=change.log10_evidence,
        effect=Effect(name="error_rate_change", value=change.rate - change.baseline_rate),
        rows=change.rows,
        explain=change.explain,
    )


class Residuals:
    """Of a regression: the residual is one more feature, whose reference is learnt first."""

    concept = "residual"

    def __init__(self, reference: Reference, settings: Settings) -> None:
        self._settings = settings
        self._digest = reference.digest
        self._learning: list[float] = []
        self.rows = 0
        self.detector: DriftDetector | None = None

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows; the first thousand say what is usual."""
        if not isinstance(batch, Labels) or batch.task != "regression":
            return []
        residuals = _residuals(batch)
        self.rows += len(residuals)
        if self.detector is None:
            self._learning += residuals.tolist()
            if len(self._learning) >= RESIDUAL_ROWS:
                learnt = build_reference({RESIDUAL: np.array(self._learning)})
                self.detector = self._made(learnt)
                self._learning = []
            return []
        if not len(residuals):
            return []
        readings = self.detector.update(
            {RESIDUAL: residuals}, ticks=batch.ticks, at=batch.moment.at
        )
        # It speaks of the model, and of the reference that the model is compared with.
        return [replace(reading, reference=self._digest) for reading in readings]

    @property
    def status(self) -> State:
        """The state of the residuals; `insufficient_data` while they are learnt."""
        if self.detector is None:
            return State.INSUFFICIENT_DATA
        return self.detector.states()[RESIDUAL]

    def _made(self, learnt: Reference) -> DriftDetector:
        return DriftDetector(
            learnt,
            false_alarms_per_month=self._settings.budget.of("error_rate"),
            ticks_per_month=self._settings.budget.ticks_per_month,
            effect=self._settings.effect,
            version=self._settings.version,
            kind=Kind.CONCEPT_DRIFT.value,
            profiles=learnt.features,
            scope=Scope.MODEL,
        )

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        detector = self.detector
        return {
            "learning": list(self._learning),
            "rows": self.rows,
            "reference": None if detector is None else detector.reference.to_bytes().decode(),
            "detector": None if detector is None else detector.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._learning = [float(value) for value in state["learning"]]
        self.rows = int(state["rows"])
        self.detector = None
        if state["reference"] is not None:
            self.detector = self._made(Reference.from_bytes(state["reference"].encode()))
            self.detector.resume(state["detector"])

    def reset(self) -> None:
        """Forget what was usual: it is learnt again."""
        self._learning, self.detector = [], None


def _residuals(batch: Labels) -> Floats:
    """Truth less prediction, where both are numbers that a double can hold."""
    said, true = (
        np.array([number_of(value) for value in column[batch.evidence].tolist()], dtype=float)
        for column in (batch.predicted, batch.truth)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        residuals: Floats = true - said
    return residuals[np.isfinite(residuals)]


def error_rate(reference: Reference, settings: Settings) -> ErrorRate | None:
    """For every model but a regression."""
    return None if reference.task == "regression" else ErrorRate(reference, settings)


def residuals(reference: Reference, settings: Settings) -> Residuals | None:
    """For every model but a classifier."""
    return None if reference.task == "classification" else Residuals(reference, settings)
