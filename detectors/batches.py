"""What a monitor is fed: a tick of rows, or rows whose label came.

Both are values: whoever makes one has cut it, and no detector looks further back or ahead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.columns import Column, Table
from detectors.reading import Moment
from detectors.reference import Task

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One tick: columns of `table.rows` rows, the derived ones beside them.

    `counts` [features, 18] are those of the reference's features. `ticks` is its share of the
    budget's minute, 0 to 1; `times` [rows] in Unix seconds where they are known; `type_changes`
    counts cells of a type their column cannot have, which are missing in it.
    """

    table: Table
    derived: Mapping[str, Column]
    counts: NDArray[np.int64]
    ticks: float
    moment: Moment
    times: Floats | None = None
    type_changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Column]:
        """All columns, derived ones too."""
        return {**self.table.columns, **self.derived}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Rows whose label came, in the order of their cohort; every array is [rows].

    `predicted` and `truth` are object arrays (None: missing); `score` is NaN where there is none,
    [rows] or [rows, classes]; `weight` undoes the sampling; `evidence` says which rows are of the
    uniform stratum and labelled for the first time: only they are bets. `was` holds the label
    before a correction, None elsewhere. `keys` find a row again when it is corrected. `groups` are
    the attributes that fairness is asked about.
    """

    predicted: NDArray[Any]
    truth: NDArray[Any]
    score: Floats
    weight: Floats
    evidence: NDArray[np.bool_]
    was: NDArray[Any]
    keys: NDArray[np.int64]
    task: Task
    ticks: float
    moment: Moment
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.predicted)


Batch: TypeAlias = Rows | Labels
