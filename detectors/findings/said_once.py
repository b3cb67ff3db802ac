"""Which readings of a monitor follow from others: labels from a concept, projections and segments
from a feature. See `following`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from detectors.drift.detector import DriftDetector
from detectors.findings.following import LABEL_WAIT_ROWS, STANDING, Following
from detectors.groups.segments import SEGMENT_MARK
from detectors.reading import Kind, Reading, Scope, State
from detectors.reference import Reference

#: A feature is a good part of a projection from this share of its square weights on.
PART_MIN: Final = 0.1


class SaidOnce:
    """Holds back what follows from something that stands already."""

    def __init__(self, reference: Reference, features: DriftDetector) -> None:
        derivation = reference.derivation
        self._parts = {} if derivation is None else derivation.shares()
        self._features = features
        self._labels = Following(
            lambda reading: reading.kind is Kind.LABEL_DRIFT, wait_rows=LABEL_WAIT_ROWS
        )
        self._projections = Following(
            lambda reading: reading.scope is Scope.MULTIVARIATE, wait_rows=0
        )
        self._segments = Following(lambda reading: SEGMENT_MARK in reading.detector, wait_rows=0)

    def of_rows(self, readings: Sequence[Reading], *, rows: int) -> list[Reading]:
        """Take the readings of a tick of `rows` rows; give those that are said now."""
        said = self._projections.update(readings, self._in_a_feature, rows=rows)
        return self._segments.update(said, self._in_all_rows, rows=rows)

    def of_labels(
        self, readings: Sequence[Reading], concept: Iterable[State], *, rows: int
    ) -> list[Reading]:
        """Take the readings of `rows` labelled rows, and the states of concept drift by now."""
        explained = any(state in STANDING for state in concept)
        return self._labels.update(readings, lambda _: explained, rows=rows)

    def _in_a_feature(self, reading: Reading) -> bool:
        """Whether a projection moved because a feature that makes up a good part of it did."""
        states = self._features.states()
        return any(
            share >= PART_MIN and states.get(name) in STANDING
            for name, share in self._parts.get(reading.subject, {}).items()
        )

    def _in_all_rows(self, reading: Reading) -> bool:
        """Whether a segment's feature drifts in all rows together."""
        return self._features.states().get(reading.subject) in STANDING

    def take_over_labels(self, other: "SaidOnce") -> None:
        """Go on with what another one knows of labels."""
        self._labels = other._labels

    def label_state(self) -> dict[str, Any]:
        """Give what is known of labels, as JSON values."""
        return self._labels.state()

    def restore_labels(self, state: Mapping[str, Any]) -> None:
        """Take back what `label_state` gave."""
        self._labels.restore(state)

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        return {
            "labels": self._labels.state(),
            "projections": self._projections.state(),
            "segments": self._segments.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._labels.restore(state["labels"])
        self._projections.restore(state["projections"])
        self._segments.restore(state["segments"])

    def reset(self) -> None:
        """Forget what waits."""
        for following in (self._labels, self._projections, self._segments):
            following.reset()
