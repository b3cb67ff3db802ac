"""Concept drift of a regression: is the model off by more, by less or to another side than before?

The residual is one more feature, whose reference is learnt from the first labelled rows. Once it
has drifted the next rows teach the level it went to, which is watched beside the first one, so that
the next change is found too; what is back at the first level is back.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from detectors.batches import Batch, Floats, Labels
from detectors.drift.detector import DriftDetector
from detectors.reading import Kind, Reading, Scope, State
from detectors.reference import Reference
from detectors.references.building import build_reference
from detectors.rows.columns import number_of
from detectors.settings import Settings

#: Labelled rows that teach a level: the first one, and the next one after a drift.
RESIDUAL_ROWS: Final = 1_000
RESIDUAL: Final = "residual"


class Residuals:
    """A `DriftDetector` of residuals against the first level, and after a drift another one."""

    concept = "residual"

    def __init__(self, reference: Reference, settings: Settings) -> None:
        self._settings = settings
        self._digest = reference.digest
        self._learning: list[float] = []
        self.rows = 0
        self.detector: DriftDetector | None = None
        self._moved: DriftDetector | None = None  # against the level since the last drift
        self._recent: list[float] = []  # the last rows that were held against it

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows; the first thousand say what is usual."""
        if not isinstance(batch, Labels) or batch.task != "regression":
            return []
        residuals = _residuals(batch)
        self.rows += len(residuals)
        if not len(residuals):
            return []
        if self.detector is None:
            self.detector = self._learn(residuals)
            return []
        column = {RESIDUAL: residuals}
        readings = self.detector.update(column, ticks=batch.ticks, at=batch.moment.at)
        if self.status is not State.DRIFT:
            self._learning, self._moved, self._recent = [], None, []
        elif self._moved is None:
            if not readings:  # rows from before the drift are none of the level it went to
                self._moved = self._learn(residuals)
        else:
            again = self._moved.update(column, ticks=batch.ticks, at=batch.moment.at)
            self._recent = [*self._recent, *residuals.tolist()][-RESIDUAL_ROWS:]
            # A warning on top of a drift is no news, nor that the rows are back at its level.
            again = [reading for reading in again if reading.state is State.DRIFT]
            if again:
                readings += [] if self._returned(again[0].window.rows) else again
                self._moved, self._recent = None, []
        # It speaks of the model, and of the reference that the model is compared with.
        return [replace(reading, reference=self._digest) for reading in readings]

    def _returned(self, rows: int) -> bool:
        """Whether the last `rows` rows are near the first level: it will say so, as `ok`."""
        assert self.detector is not None
        looked = self._made(self.detector.reference)
        looked.update({RESIDUAL: np.array(self._recent[-rows:])}, ticks=0.0)
        figures = looked.effects()[RESIDUAL]
        bounds = self._settings.effect.items()
        return all(float(figures[f"{name}_corrected"]) < bound for name, bound in bounds)

    def _learn(self, residuals: Floats) -> DriftDetector | None:
        """Give a detector of the level that the next rows teach, once there are enough of them."""
        self._learning += residuals.tolist()
        if len(self._learning) < RESIDUAL_ROWS:
            return None
        learnt = build_reference({RESIDUAL: np.array(self._learning)})
        self._learning = []
        return self._made(learnt)

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
        return {
            "learning": list(self._learning),
            "rows": self.rows,
            "first": _level(self.detector),
            "moved": _level(self._moved),
            "recent": list(self._recent),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._learning = [float(value) for value in state["learning"]]
        self.rows = int(state["rows"])
        self.detector = self._restored(state["first"])
        self._moved = self._restored(state["moved"])
        self._recent = [float(value) for value in state["recent"]][-RESIDUAL_ROWS:]

    def _restored(self, level: Mapping[str, Any] | None) -> DriftDetector | None:
        if level is None:
            return None
        detector = self._made(Reference.from_bytes(level["reference"].encode()))
        detector.resume(level["detector"])
        return detector

    def reset(self) -> None:
        """Forget what was usual: it is learnt again."""
        self._learning, self._recent = [], []
        self.detector = self._moved = None


def _level(detector: DriftDetector | None) -> dict[str, Any] | None:
    """What a level is restored from: what was learnt of it, and the evidence against it."""
    if detector is None:
        return None
    return {
        "reference": detector.reference.to_bytes().decode(),
        "detector": detector.state(),
    }


def _residuals(batch: Labels) -> Floats:
    """Truth less prediction, where both are numbers that a double can hold."""
    said, true = (
        np.array([number_of(value) for value in column[batch.evidence].tolist()], dtype=float)
        for column in (batch.predicted, batch.truth)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        residuals: Floats = true - said
    return residuals[np.isfinite(residuals)]


def residuals(reference: Reference, settings: Settings) -> Residuals | None:
    """For every model but a classifier."""
    return None if reference.task == "classification" else Residuals(reference, settings)
