"""What is wrong with the data itself, before any question of drift: columns, types, runs of one
value, categories never seen, copied rows, silence.

Missing values and values out of range are not judged here: the evidence of `drift` has a bin for
each and says so, once. Facts (schema, types, silence) are outside the budget, for they cannot be
false alarms; what is judged by chance (constant columns, new categories, copies) shares the budget
given. Nothing here holds rows.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.data_quality.constant import Constant
from detectors.data_quality.duplicates import Duplicates
from detectors.data_quality.new_categories import NewCategories
from detectors.data_quality.schema import Schema
from detectors.data_quality.value_types import ValueTypes
from detectors.reading import Change, Kind, Scope, State
from detectors.reference import Reference
from detectors.rows.columns import Column, Table

#: Parts of the budget.
SHARES: Final[Mapping[str, float]] = {"constant": 0.5, "new_category": 0.25, "duplicates": 0.25}
#: Ticks without a row after which the stream is called silent: a day at one tick a minute.
SILENT_TICKS: Final = 1_440.0
SILENCE: Final = "(rows)"


class DataQuality:
    """Watches the columns of each tick against a reference.

    `false_alarms_per_month` is the budget of all of it; `silent_ticks` says how long a stream may
    bring no rows. Raises ValueError for a senseless budget.

    >>> import numpy as np
    >>> from detectors import build_reference
    >>> from detectors.rows.columns import as_table
    >>> rng = np.random.default_rng(7)
    >>> reference = build_reference({"age": rng.normal(40, 9, 5_000)})
    >>> quality = DataQuality(reference, false_alarms_per_month=0.1)
    >>> [change] = quality.update(as_table({"age": np.full(300, 37.0)}))
    >>> change.explain
    'age was 37 in all of 300 rows; in the reference it varied'
    """

    def __init__(
        self,
        reference: Reference,
        *,
        false_alarms_per_month: float,
        ticks_per_month: float = 43_200,
        silent_ticks: float = SILENT_TICKS,
    ) -> None:
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError("false_alarms_per_month and ticks_per_month must be above 0, finite")
        features = reference.features
        model = [p for p in (reference.prediction, reference.score) if p is not None]
        outputs = frozenset(p.name for p in model)
        known = {*outputs, *reference.feature_names}
        if reference.label is not None:
            known.add(reference.label.name)
        if reference.segments is not None:
            known.add(reference.segments.column)
        raw = reference.columns or reference.feature_names  # derived ones do not come by themselves

        def share(part: str) -> dict[str, float]:
            return {
                "false_alarms_per_month": false_alarms_per_month * SHARES[part],
                "ticks_per_month": ticks_per_month,
            }

        self._features, self._model = len(features), tuple(p.name for p in model)
        self.schema = Schema(expected=raw, known=known)
        self.types = ValueTypes(features)
        self.constant = Constant((*features, *model), model=outputs, **share("constant"))
        self.categories = NewCategories(features, **share("new_category"))
        plain = [name for name in raw if name in set(reference.feature_names)]
        self.duplicates = Duplicates(plain, reference.quality, **share("duplicates"))
        self._silent_ticks, self._idle_ticks, self._silent = silent_ticks, 0.0, False

    def update(
        self,
        table: Table,
        *,
        ticks: float = 1.0,
        type_changes: Mapping[str, int] | None = None,
        prediction: Column | None = None,
        counts: NDArray[np.int64] | None = None,
    ) -> list[Change]:
        """Take one tick and give what changed.

        `prediction` is the model's output where it is no column of the table. `counts` [features,
        18] are those of the reference's features in this tick, from `Binner.count`: with them most
        columns need no look at all. A tick without rows only counts towards silence.
        """
        length = min(max(ticks, 0.0), 1.0) if math.isfinite(ticks) else 0.0
        changes = self._silence(table.rows, length)
        if not table.rows:
            return changes
        columns, rows = table.columns, table.rows
        changes += self.schema.update(table)
        changes += self.types.update(columns, rows, type_changes or {})
        watched = columns
        if prediction is not None and self._model and len(prediction) == rows:
            watched = {**columns, self._model[0]: prediction}
        changes += self.constant.update(
            watched, rows, ticks=length, counts=None if counts is None else self._with_model(counts)
        )
        changes += self.categories.update(columns, rows, ticks=length, counts=counts)
        if not self.constant.stuck():  # rows that differ in nothing else become copies: no news
            changes += self.duplicates.update(columns, rows, ticks=length)
        return changes

    def _with_model(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts of the model's output are not known: all zero asks for a look at the column."""
        return np.concatenate((counts, np.zeros((len(self._model), counts.shape[1]), np.int64)))

    def _silence(self, rows: int, ticks: float) -> list[Change]:
        if not rows:
            self._idle_ticks += ticks
            if self._silent or self._idle_ticks < self._silent_ticks:
                return []
            self._silent = True
            said = f"no rows came for {self._idle_ticks:,.0f} ticks"
            return [self._silence_change(State.WARNING, said)]
        idle, self._idle_ticks = self._idle_ticks, 0.0
        if not self._silent:
            return []
        self._silent = False
        return [self._silence_change(State.OK, f"rows come again, after {idle:,.0f} ticks")]

    def _silence_change(self, state: State, explain: str) -> Change:
        return Change(
            kind=Kind.DATA_QUALITY,
            scope=Scope.MODEL,
            subject=SILENCE,
            detector="silence",
            state=state,
            statistic=self._idle_ticks,
            threshold=self._silent_ticks,
            rows=0,
            explain=explain,
        )

    def standing(self) -> dict[str, list[str]]:
        """Give what stands now: subjects by the detector that said so, those with any."""
        found = {
            "schema": self.schema.standing(),
            "types": self.types.standing(),
            "constant": self.constant.standing(),
            "new_category": self.categories.standing(),
            "duplicates": self.duplicates.standing(),
            "silence": [SILENCE] if self._silent else [],
        }
        return {detector: subjects for detector, subjects in found.items() if subjects}

    def new_categories(self) -> dict[str, list[tuple[str, int, float]]]:
        """Give the unseen categories that may be named, by feature: name, rows, share."""
        return self.categories.named()

    def reset(self) -> None:
        """Forget evidence and all that was said."""
        for part in (self.schema, self.types, self.constant, self.categories, self.duplicates):
            part.reset()
        self._idle_ticks, self._silent = 0.0, False

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep: JSON values and arrays, nested."""
        return {
            "schema": self.schema.state(),
            "types": self.types.state(),
            "constant": self.constant.state(),
            "categories": self.categories.state(),
            "duplicates": self.duplicates.state(),
            "idle_ticks": self._idle_ticks,
            "silent": self._silent,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken. Raises ValueError if it does not fit the reference."""
        try:
            self.schema.restore(state["schema"])
            self.types.restore(state["types"])
            self.constant.restore(state["constant"])
            self.categories.restore(state["categories"])
            self.duplicates.restore(state["duplicates"])
            self._idle_ticks, self._silent = float(state["idle_ticks"]), bool(state["silent"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"data quality state: malformed ({error!r})") from None
