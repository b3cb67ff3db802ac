"""What is remembered of one feature's rows while a reference is built: a sketch, or counted keys,
what was missing, and what type the values were.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.references.feature_profile import FeatureKind, ValueType
from detectors.rows.bins import BINS, Bins, CategoryBins, NumericBins, fit_numeric, widened
from detectors.rows.columns import Column, digest_of, guess_kind
from detectors.rows.sketch import KeyTable, Points, QuantileSketch, by_count

_LOOKED_AT: Final = 1_000


class FeatureRows:
    """Constant memory for the rows of one feature, given as `category_keys` or as floats."""

    def __init__(self, kind: FeatureKind, type_: ValueType = "number") -> None:
        self.kind = kind
        self.sketch = QuantileSketch()
        self.keys = KeyTable()
        self.minimum = math.nan
        self.maximum = math.nan
        self.missing = 0
        self.outside = 0
        self.rows = 0
        self._type = type_
        self._whole = True
        self._fitted: tuple[int, Points, NumericBins] | None = None

    @property
    def type(self) -> ValueType:
        """What the values are; numbers are integers while all of them were whole."""
        if self._type in ("number", "integer") and self.kind == "numeric":
            return "integer" if self._whole and math.isfinite(self.minimum) else "number"
        return self._type

    def add(self, column: Column) -> None:
        """Take the next rows."""
        self.rows += len(column)
        if self.kind == "categorical":
            counts = Counter(column.tolist())
            self.missing += counts.pop(None, 0)
            self.keys.update(counts)
            return
        finite = column[np.isfinite(column)]
        missing = int(np.count_nonzero(np.isnan(column)))
        self.missing += missing
        self.outside += len(column) - missing - len(finite)
        if len(finite):
            self.sketch.update(finite)
            self.minimum = float(np.fmin(self.minimum, float(finite.min())))
            self.maximum = float(np.fmax(self.maximum, float(finite.max())))
            self._whole = self._whole and bool((finite == np.floor(finite)).all())

    def provisional_bins(self) -> Bins:
        """Choose bins from the rows so far, such that nothing later is outside them."""
        if self.kind == "categorical":
            top = by_count({digest_of(key): n for key, n in self.keys.counts.items()})
            return CategoryBins(top=tuple(top[: BINS - 1]), others=frozenset(), open=True)
        return widened(self.fit()[1])

    def fit(self) -> tuple[Points, NumericBins]:
        """Give the sketch's points and the bins that fit the rows so far."""
        if self._fitted is None or self._fitted[0] != self.rows:
            points = self.sketch.points()
            self._fitted = (self.rows, points, fit_numeric(points, self.minimum, self.maximum))
        return self._fitted[1:]


def type_of(arrays: Sequence[NDArray[Any]]) -> ValueType:
    """Say what most values of a column are, from the first of them."""
    votes: Counter[ValueType] = Counter()
    for array in arrays:
        kind = array.dtype.kind
        if kind == "O":
            for value in array[:_LOOKED_AT].tolist():
                votes.update(_votes_of(value))
        elif len(array):
            votes[_OF_DTYPE.get(kind, "text")] += min(len(array), _LOOKED_AT)
        if votes.total() >= _LOOKED_AT:
            break
    return max(votes, key=lambda found: (votes[found], found), default="number")


_OF_DTYPE: Final[dict[str, ValueType]] = {
    "b": "boolean",
    "i": "integer",
    "u": "integer",
    "f": "number",
    "c": "number",
    "m": "number",
    "M": "timestamp",
}


def _votes_of(value: Any) -> list[ValueType]:
    if isinstance(value, bool | np.bool_):
        return ["boolean"]
    if isinstance(value, int | np.integer):
        return ["integer"]
    if isinstance(value, datetime | date | time | np.datetime64):
        return ["timestamp"]
    if isinstance(value, str | bytes):
        return ["timestamp" if guess_kind(np.array([value], dtype=object)) == "numeric" else "text"]
    if value is None or value != value:
        return []
    return ["number"]
