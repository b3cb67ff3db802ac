"""Where the model is worst: shown, never a reading, and only where labelled rows come with their
features (a replay, a notebook; the agent's join keeps no features).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from detectors.batches import Batch, Labels
from detectors.groups.slices import Slice, Slices
from detectors.performance.quality import class_name
from detectors.reading import Reading
from detectors.reference import Reference
from detectors.rows.columns import number_of
from detectors.settings import Settings


class WorstSlices:
    """`Slices` among the parts of a monitor."""

    def __init__(self, reference: Reference) -> None:
        self.detector = Slices(reference.features)

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows that have their features."""
        if isinstance(batch, Labels) and batch.columns:
            first = np.array([was is None for was in batch.was.tolist()], dtype=bool)
            columns = {name: column[first] for name, column in batch.columns.items()}
            pairs = zip(batch.predicted[first].tolist(), batch.truth[first].tolist(), strict=True)
            loss = np.array([_loss(said, true, batch.task) for said, true in pairs], np.float64)
            self.detector.update(columns, loss)
        return []

    def worst(self) -> list[Slice]:
        """Give the slices that are surely worse than the rest, the worst first."""
        return self.detector.worst()

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return self.detector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.detector.restore(state)

    def reset(self) -> None:
        """Nothing is latched here."""


def _loss(said: Any, true: Any, task: str) -> float:
    """1 for a wrong class and 0 for the right one, or how far a number is off; NaN if unknown."""
    if said is None or true is None:
        return float("nan")
    if task == "classification":
        return float(class_name(said) != class_name(true))
    return abs(number_of(true) - number_of(said))


def slices(reference: Reference, settings: Settings) -> WorstSlices | None:
    """For every model whose reference is whole."""
    return None if settings.provisional else WorstSlices(reference)
