"""Whether groups of people fare differently: see `detectors.groups.fairness`. Outside the budget.

Selection is seen in every tick that has the attribute; opportunity and odds need the label and the
group of the same row, and are seen where both come.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from detectors.batches import Batch, Labels, Rows
from detectors.groups.fairness import METRICS, Fairness
from detectors.performance.intervals import Estimate
from detectors.reading import Change, Reading
from detectors.reference import Reference
from detectors.rows.columns import Column
from detectors.settings import FairnessSettings, Settings

SELECTION: Final = ("demographic_parity", "disparate_impact")


class Groups:
    """For each attribute two windows: of all rows, and of those with a label."""

    def __init__(self, reference: Reference, settings: Settings) -> None:
        self._said = None if reference.prediction is None else reference.prediction.name
        self.selection = {f.attribute: _fairness(f, selection=True) for f in settings.fairness}
        self.labelled = {f.attribute: _fairness(f, selection=False) for f in settings.fairness}

    def update(self, batch: Batch) -> list[Reading]:
        """Take a tick's rows, or labelled ones."""
        changes: list[Change] = []
        if isinstance(batch, Rows):
            said = batch.table.columns.get(self._said or "")
            for attribute, fairness in self.selection.items():
                group = batch.table.columns.get(attribute)
                if group is not None and said is not None:
                    changes += fairness.update(group, said)
        elif batch.task == "classification":
            for attribute, fairness in self.labelled.items():
                if attribute in batch.groups:
                    changes += _labelled(fairness, batch.groups[attribute], batch)
        return [batch.moment.reading(change) for change in changes]

    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """Give the figures that can be given, by attribute and metric."""
        found: dict[str, dict[str, Estimate]] = {}
        for attribute, fairness in self.selection.items():
            labelled = self.labelled[attribute].metrics()
            own = fairness.metrics() or labelled
            found[attribute] = {
                name: (own if name in SELECTION else labelled)[name]
                for name in METRICS
                if name in (own if name in SELECTION else labelled)
            }
        return found

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        return {
            "selection": {name: part.state() for name, part in self.selection.items()},
            "labelled": {name: part.state() for name, part in self.labelled.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave; an attribute that is asked for anew begins anew."""
        for kept, parts in (
            (state["selection"], self.selection),
            (state["labelled"], self.labelled),
        ):
            for name, part in parts.items():
                if name in kept:
                    part.restore(kept[name])

    def reset(self) -> None:
        """Forget what was said; the rows stay."""
        for part in (*self.selection.values(), *self.labelled.values()):
            part.reset()


def _fairness(settings: FairnessSettings, *, selection: bool) -> Fairness:
    bounds: dict[str, float] = {}
    if settings.ratio_min is not None and selection:
        bounds["disparate_impact"] = settings.ratio_min
    if settings.gap_max is not None:
        judged = ("demographic_parity",) if selection else ("equal_opportunity", "equalised_odds")
        bounds |= dict.fromkeys(judged, settings.gap_max)
    return Fairness(settings.attribute, positive=settings.positive, bounds=bounds)


def _labelled(fairness: Fairness, group: Column, batch: Labels) -> list[Change]:
    """First labels only: a correction would count its row twice."""
    first = np.array([before is None for before in batch.was.tolist()], dtype=bool)
    return fairness.update(
        group[first], batch.predicted[first], batch.truth[first], batch.weight[first]
    )


def fairness(reference: Reference, settings: Settings) -> Groups | None:
    """For models whose configuration names attributes."""
    if not settings.fairness or settings.provisional:
        return None
    return Groups(reference, settings)
