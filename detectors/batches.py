"""What a monitor is fed: a tick of rows, or rows whose label came.

Both are values: whoever makes one has cut it, and no detector looks further back or ahead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.reading import Moment
from detectors.reference import Task
from detectors.rows.columns import Column, Table, number_of

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
    the attributes that fairness is asked about, `columns` the features where they are known.
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
    columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.predicted)


Batch: TypeAlias = Rows | Labels


def labels_of(
    predicted: Sequence[Any] | NDArray[Any],
    truth: Sequence[Any] | NDArray[Any],
    *,
    score: Any,
    weight: Any,
    evidence: Any,
    was: Sequence[Any] | None,
    keys: Any,
    groups: Mapping[str, Any],
    columns: Mapping[str, Column],
    task: Task | None,
    ticks: float,
) -> Labels:
    """Put labelled rows in their form, whatever they came as; None stands for what is not known.

    The task is judged by the predictions where it is None. Raises ValueError for lengths that
    differ.
    """
    n = len(predicted)
    said, true = _objects(predicted, n), _objects(truth, n)
    before = _objects([None] * n if was is None else was, n)
    # A correction is no new evidence, and a model that said nothing made no error.
    bets = np.ones(n, bool) if evidence is None else np.asarray(evidence, bool).copy()
    bets &= np.array([a is not None and b is not None for a, b in zip(said, true, strict=True)])
    bets &= np.array([old is None for old in before])
    return Labels(
        predicted=said,
        truth=true,
        score=_scores(score, n),
        weight=np.ones(n) if weight is None else np.asarray(weight, np.float64),
        evidence=bets,
        was=before,
        keys=np.zeros(n, np.int64) if keys is None else np.asarray(keys, np.int64),
        task=_guessed(said) if task is None else task,
        ticks=ticks,
        moment=Moment(row=0, at=None),
        groups={name: _objects(of, n) for name, of in groups.items()},
        columns={name: column for name, column in columns.items() if len(column) == n},
    )


def _objects(values: Sequence[Any] | NDArray[Any], rows: int) -> NDArray[Any]:
    """A column of anything as objects, None where missing."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(listed) != rows:
        raise ValueError(f"{len(listed)} entries, not {rows}: one for each row")
    column = np.empty(rows, dtype=object)
    column[:] = [None if value is None or value != value else value for value in listed]
    return column


def _scores(score: Any, rows: int) -> NDArray[np.float64]:
    if score is None:
        return np.full(rows, np.nan)
    scores = np.asarray(score)
    if scores.dtype.kind not in "fiub":
        scores = np.array([number_of(value) for value in scores.tolist()])
    if len(scores) != rows:
        raise ValueError(f"{len(scores)} scores, not {rows}: one for each row")
    return scores.astype(np.float64)


def _guessed(predicted: Column) -> Task:
    """What a model does whose reference does not say: numbers are a regression's."""
    known = [value for value in predicted.tolist() if value is not None]
    number = bool(known) and isinstance(known[0], int | float) and not isinstance(known[0], bool)
    return "regression" if number else "classification"
