"""Concept drift of a classifier by what it gets wrong: the rate of its errors.

Labelled rows are bets only where they are of the uniform stratum and labelled for the first time; a
correction is no new evidence.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from detectors.batches import Batch, Floats, Labels
from detectors.concept.error_rate import ConceptChange, ErrorRateDetector
from detectors.performance.quality import class_name
from detectors.reading import Change, Effect, Kind, Reading, Scope, State
from detectors.reference import Reference
from detectors.settings import Settings

#: Labelled rows that the detector is given at a time: more would dilute a change that begins among
#: them.
ROWS_AT_ONCE: Final = 10


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


def error_rate(reference: Reference, settings: Settings) -> ErrorRate | None:
    """For every model but a regression."""
    return None if reference.task == "regression" else ErrorRate(reference, settings)
