"""Realised quality of a model over its most recent labelled rows, with intervals.

The rows themselves are kept, in a ring: figures are exact (areas under curves too), a correction
finds its row, and memory is constant. Rows kept by other rules than the uniform sampling come with
a weight (1 / their probability of having been kept) and enter by it.

A figure belongs to an epoch, and so does its interval: an epoch begins every half window, and the
oldest one that is whole is shown. Within an epoch an interval holds at every look at once
(`confidence`); one epoch in twenty may have one that does not. Policies may therefore look as
often as they like. Corrections count as if the label had been right from the start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.classes import (
    CLASSES_MAX,
    UNKNOWN,
    Class,
    ClassNames,
    class_name,
    in_order,
)
from detectors.performance.classification import calibration_error, of_class, of_scores, of_table
from detectors.performance.intervals import Estimate
from detectors.performance.regression import regression
from detectors.performance.weighted_rows import WeightedRows
from detectors.rows.columns import Column, numbers

__all__ = ["CLASSES_MAX", "Class", "Estimate", "Quality", "Task", "class_name"]

Task = Literal["classification", "regression"]
Values: TypeAlias = Column | Sequence[Any]

ERROR_MAX: Final = 1e70  # beyond it squares of errors are no longer numbers
#: More scores a row than this are not kept.
SCORES_MAX: Final = 20
WINDOW_ROWS_MAX: Final = 1_000_000


class Quality:
    """Realised metrics over at most the last `window_rows` labelled rows of one model version, and
    once there were so many over at least half of them.

    Classification: accuracy, precision, recall, f1 and specificity (of the positive class, which
    is the last of two in order; unweighted means over classes, without specificity, when there are
    more); with scores roc_auc and pr_auc, and with scores in [0, 1] log_loss, brier and
    calibration_error. Regression: rmse, mae, mape, and pinball where `quantile` is given.

    Parameters
    ----------
    classes
        What columns of [rows, classes] scores stand for; of two the second is the positive class.
        Without it the classes seen, in order, or 0, 1, 2, ...
    error_max
        Regression: a range for errors; larger ones count as this in the mae, which then has an
        interval by betting.
    quantile
        Regression: the quantile in (0, 1) that the model predicts, for the pinball loss.

    >>> quality = Quality(task="classification")
    >>> quality.update(["yes", "no", "no", "yes"], ["yes", "yes", "no", "yes"])
    >>> quality.metrics()["accuracy"].value
    0.75
    """

    def __init__(
        self,
        *,
        task: Task,
        window_rows: int = 5_000,
        classes: Sequence[str] | None = None,
        error_max: float | None = None,
        quantile: float | None = None,
    ) -> None:
        if not 2 <= window_rows <= WINDOW_ROWS_MAX:
            raise ValueError(f"a window of {window_rows} rows, not 2 to {WINDOW_ROWS_MAX:,}")
        if error_max is not None and not 0.0 < error_max < ERROR_MAX:
            raise ValueError(f"errors up to {error_max}")
        if quantile is not None and not 0.0 < quantile < 1.0:
            raise ValueError(f"the quantile {quantile} is not between 0 and 1")
        self.task: Task = task
        self.rows_total = 0
        self.left_out = 0  # rows with a missing or impossible side
        self._window = window_rows
        self._step = window_rows // 2
        self._error_max, self._quantile = error_max, quantile
        self._given = None if classes is None else tuple(classes)
        self._names = ClassNames(self._given or ())
        kind = np.float64 if task == "regression" else np.int64
        self._said: NDArray[Any] = np.zeros(window_rows, dtype=kind)
        self._true: NDArray[Any] = np.zeros(window_rows, dtype=kind)
        self._weight = np.zeros(window_rows)
        self._score = np.full((window_rows, 1), np.nan)
        self._key = np.zeros(window_rows, dtype=np.int64)
        self._keyed = np.zeros(window_rows, dtype=np.bool_)
        self._found: dict[str, Estimate] | None = None

    def update(
        self,
        predicted: Values,
        truth: Values,
        *,
        score: NDArray[np.float64] | None = None,
        weight: float | NDArray[np.float64] = 1.0,
        keys: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        """Take rows: predictions and truths [rows], scores [rows] (of the positive class, or of the
        predicted one, whichever it is) or [rows, classes], weights, and keys (64-bit, signed) that
        let corrections find their rows again.

        Rows with a missing or not finite side, or a weight that is not positive, are left out and
        counted. Raises ValueError for arrays of different lengths.
        """
        said, true = self._sides(predicted), self._sides(truth)
        rows = len(said)
        weights = np.broadcast_to(np.asarray(weight, dtype=np.float64), (rows,))
        scores = self._columns(score, rows)
        named = np.zeros(rows, dtype=np.int64) if keys is None else np.asarray(keys, dtype=np.int64)
        if len(true) != rows or len(named) != rows:
            raise ValueError("predictions, truths, scores and keys of different lengths")
        usable = self._usable(said, true) & (weights > 0.0) & (weights < np.inf)
        taken = np.flatnonzero(usable)
        self.left_out += rows - len(taken)
        newest = taken[-self._window :]
        end = self.rows_total + len(taken)
        places = np.arange(end - len(newest), end) % self._window
        self._said[places], self._true[places] = said[newest], true[newest]
        self._weight[places], self._score[places] = weights[newest], scores[newest]
        self._key[places], self._keyed[places] = named[newest], keys is not None
        self.rows_total = end
        self._found = None

    def correct(
        self,
        predicted: Class,
        old_truth: Class,
        new_truth: Class,
        *,
        key: int | None = None,
    ) -> bool:
        """A label was wrong: its row counts with the new truth from now on, or no longer where
        that is none. Score and weight are the row's own.

        False when the row of that key is not in the window, and nothing is changed. Without a key
        it is the newest row with such a prediction and such a truth.
        """
        here = self._weight > 0.0
        if key is not None:
            here &= self._keyed & (self._key == key)
        else:
            here &= self._said == self._sides([predicted])[0]
            here &= self._true == self._sides([old_truth])[0]
        places = np.flatnonzero(here)
        if not len(places):
            return False
        ages = (self.rows_total - 1 - places) % self._window
        place = places[ages.argmin()]
        true = self._sides([new_truth])
        if self._usable(self._said[[place]], true)[0]:
            self._true[place] = true[0]
        else:
            self._weight[place] = 0.0
        self._found = None
        return True

    def _sides(self, values: Values) -> NDArray[Any]:
        """Codes of classes, or numbers."""
        if not isinstance(values, np.ndarray):
            column = np.empty(len(values), dtype=object)
            column[:] = values
            values = column
        if self.task == "classification":
            return self._names.codes(values)
        return np.asarray(numbers(values), dtype=np.float64)

    def _usable(self, said: NDArray[Any], true: NDArray[Any]) -> NDArray[np.bool_]:
        if len(said) != len(true):
            raise ValueError(f"{len(said)} predictions and {len(true)} truths")
        if self.task == "classification":
            return np.asarray((said != UNKNOWN) & (true != UNKNOWN))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.abs(said - true) <= ERROR_MAX)

    def _columns(self, score: NDArray[np.float64] | None, rows: int) -> NDArray[np.float64]:
        """[rows, columns] as the ring has them; the ring takes the width of the first scores."""
        if score is None or self.task == "regression" or not rows:
            return np.full((rows, self._score.shape[1]), np.nan)
        if len(score) != rows:
            raise ValueError("predictions, truths, scores and keys of different lengths")
        scores = np.asarray(score, dtype=np.float64).reshape(rows, -1)
        width = scores.shape[1]
        if width != self._score.shape[1]:
            if not 0 < width <= SCORES_MAX or np.isfinite(self._score).any():
                return np.full((rows, self._score.shape[1]), np.nan)
            self._score = np.full((self._window, width), np.nan)
        return scores

    @property
    def rows(self) -> int:
        """Labelled rows that the figures rest on."""
        return int((self._weight[self._shown()] > 0.0).sum())

    def _shown(self) -> NDArray[np.int64]:
        """Places of the rows of the oldest epoch that the ring holds whole, oldest first."""
        beyond = max(0, self.rows_total - self._window)
        begin = -(-beyond // self._step) * self._step
        return np.arange(begin, self.rows_total) % self._window

    def metrics(self) -> dict[str, Estimate]:
        """Metric name to estimate; empty while there is no labelled row."""
        if self._found is None:
            rows = self._labelled()
            if not len(rows):
                self._found = {}
            elif self.task == "regression":
                self._found = regression(rows, error_max=self._error_max, quantile=self._quantile)
            else:
                self._found = of_table(rows, self._codes(rows)) | self._of_scores(rows)
        return dict(self._found)

    def metrics_by_class(self) -> dict[str, dict[str, Estimate]]:
        """precision, recall and f1 of each class that occurs, at most `CLASSES_MAX` and one for all
        others; empty for a regression.
        """
        rows = self._labelled()
        if self.task == "regression" or not len(rows):
            return {}
        names = self._names.names
        return {names[code]: of_class(rows, code) for code in self._codes(rows)}

    def _labelled(self) -> WeightedRows:
        places = self._shown()
        places = places[self._weight[places] > 0.0]
        return WeightedRows(
            said=self._said[places],
            true=self._true[places],
            score=self._score[places],
            weight=self._weight[places],
            tuned_rows=float(self._step),
        )

    def _codes(self, rows: WeightedRows) -> list[int]:
        """The classes that occur, in order; of two the positive one last."""
        names = self._names.names
        present = [int(code) for code in np.union1d(rows.said, rows.true)]
        order = self._given or in_order(names[code] for code in present)
        places = {name: place for place, name in enumerate(order)}
        return sorted(present, key=lambda code: places.get(names[code], len(places)))

    def _of_scores(self, rows: WeightedRows) -> dict[str, Estimate]:
        """What scores say, where it is known what they are of."""
        classes, width = self._codes(rows), rows.score.shape[1]
        if not np.isfinite(rows.score).any():
            return {}
        if width == 1:
            return self._of_one_score(rows, classes)
        names = self._names.names
        seen = tuple(names[code] for code in classes)
        for columns in (self._given, seen, tuple(map(str, range(width)))):
            if columns is not None and len(columns) == width and set(seen) <= set(columns):
                codes = [names.index(name) if name in names else UNKNOWN for name in columns]
                if width == 2:
                    rows = rows.with_score(rows.score[:, 1:])
                    codes = codes[1:]
                return of_scores(rows, [rows.true == code for code in codes])
        return {}

    def _of_one_score(self, rows: WeightedRows, classes: list[int]) -> dict[str, Estimate]:
        """Of two classes it is the positive one's, unless it is never below one half, whatever is
        predicted: then it is the predicted one's, and turned. Of more it is the predicted one's,
        and says only how well it is calibrated.
        """
        score = rows.score[:, 0]
        if len(classes) > 2:
            rows = rows.where(np.isfinite(score) & (score >= 0.0) & (score <= 1.0))
            right = rows.said == rows.true
            error = calibration_error(rows, rows.score[:, 0], right) if len(rows) else None
            return {} if error is None else {"calibration_error": error}
        positive = classes[-1]
        said = rows.said == positive
        known = score[np.isfinite(score)]
        if said.any() and not said.all() and known.min() >= 0.5 and known.max() <= 1.0:
            rows = rows.with_score(np.where(said, score, 1.0 - score)[:, None])
        return of_scores(rows, [rows.true == positive])

    def state(self) -> dict[str, Any]:
        """Everything that matters; JSON values and arrays, of the rows in the window alone."""
        places = np.arange(max(0, self.rows_total - self._window), self.rows_total) % self._window
        return {
            "task": self.task,
            "window_rows": self._window,
            "names": list(self._names.names),
            "score_columns": self._score.shape[1],
            "rows_total": self.rows_total,
            "left_out": self.left_out,
            "said": self._said[places],
            "true": self._true[places],
            "weight": self._weight[places],
            "score": self._score[places],
            "key": self._key[places],
            "keyed": self._keyed[places],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off. Raises ValueError for a state that does not fit."""
        try:
            if (state["task"], int(state["window_rows"])) != (self.task, self._window):
                raise ValueError("a state of another task or window")
            names, total = ClassNames(map(str, state["names"])), int(state["rows_total"])
            left_out = int(state["left_out"])
            places = np.arange(max(0, total - self._window), total) % self._window
            columns = int(state["score_columns"])
            score = np.asarray(state["score"], dtype=np.float64).reshape(len(places), columns)
            parts = {
                name: np.asarray(state[name]) for name in ("said", "true", "weight", "key", "keyed")
            }
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a state of quality: {error!r}") from error
        if any(part.shape != (len(places),) for part in parts.values()):
            raise ValueError("rows of different numbers")
        if not 0 < columns <= SCORES_MAX:
            raise ValueError(f"{columns} scores a row")
        if self.task == "classification" and len(places):
            codes = np.concatenate([parts["said"], parts["true"]])
            if codes.min() < 0 or codes.max() >= len(names):
                raise ValueError("a class without a name")
        self.rows_total, self.left_out, self._names = total, left_out, names
        self._score = np.full((self._window, columns), np.nan)
        self._weight[:] = 0.0
        self._said[places], self._true[places] = parts["said"], parts["true"]
        self._weight[places], self._score[places] = parts["weight"], score
        self._key[places], self._keyed[places] = parts["key"], parts["keyed"]
        self._found = None
