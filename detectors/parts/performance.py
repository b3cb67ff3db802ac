"""How good the model is on the rows whose label came: shown with an interval, never an alarm."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from detectors.batches import Batch, Labels
from detectors.performance.intervals import Estimate
from detectors.performance.quality import Quality
from detectors.reading import Reading
from detectors.reference import Reference, Task
from detectors.settings import Settings


class Performance:
    """Realised quality over the most recent labelled rows, each by its weight."""

    def __init__(self, reference: Reference, settings: Settings) -> None:
        self._settings = settings.quality
        self.quality: Quality | None = None

    def update(self, batch: Batch) -> list[Reading]:
        """Take labelled rows, and corrections of earlier ones."""
        if not isinstance(batch, Labels):
            return []
        if self.quality is None:
            self.quality = self._made(batch.task)
        first = np.array([before is None for before in batch.was.tolist()], dtype=np.bool_)
        self.quality.update(
            batch.predicted[first],
            batch.truth[first],
            score=batch.score[first],
            weight=batch.weight[first],
            keys=batch.keys[first],
        )
        for row in np.flatnonzero(~first).tolist():
            self.quality.correct(
                batch.predicted[row], batch.was[row], batch.truth[row], key=int(batch.keys[row])
            )
        return []

    def _made(self, task: Task) -> Quality:
        asked, regression = self._settings, task == "regression"
        return Quality(
            task=task,
            window_rows=asked.window_rows,
            error_max=asked.error_max if regression else None,
            quantile=asked.quantile if regression else None,
        )

    def metrics(self) -> dict[str, Estimate]:
        """Give realised metrics; empty without labels."""
        return {} if self.quality is None else self.quality.metrics()

    def metrics_by_class(self) -> dict[str, dict[str, Estimate]]:
        """Give realised metrics of each class; empty without labels, and for a regression."""
        return {} if self.quality is None else self.quality.metrics_by_class()

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return {"quality": None if self.quality is None else self.quality.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.quality = None
        saved = state["quality"]
        # Under another window the rows that were kept are not those that figures are of now.
        if saved is not None and saved["window_rows"] == self._settings.window_rows:
            self.quality = self._made(saved["task"])
            self.quality.restore(saved)

    def reset(self) -> None:
        """Nothing is latched here."""


def performance(reference: Reference, settings: Settings) -> Performance:
    """For every model."""
    return Performance(reference, settings)
