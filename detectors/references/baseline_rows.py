"""Labelled rows of a reference: how often the model was wrong, and what estimates its quality.

Classes are compared by their one spelling (`class_name`), so that 1, 1.0 and "1" are one class in
every kind of file.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.performance.classes import class_name
from detectors.performance.estimation import EstimationBuilder
from detectors.reference import LabelledBaseline, Task
from detectors.references.blocks import Blocks
from detectors.references.calibration import block_scores, calibrate, significant, wander
from detectors.rows.bins import WIDTH
from detectors.rows.columns import Column, guess_kind, key_of, numbers

#: A target of more different whole numbers is an amount.
CLASSES_MAX: Final = 20
#: Where a score is all there is, this is where it becomes the positive class.
THRESHOLD: Final = 0.5


class BaselineRows:
    """Counts labelled rows and errors; `tick_rows` is the scale on which it is judged how much
    successive errors resemble each other, which is left out without an order.
    """

    def __init__(self, task: Task, *, tick_rows: int = 1_000, ordered: bool = True) -> None:
        self.task = task
        self._rows = self._errors = 0
        self._estimation = EstimationBuilder(task)
        self._tick_rows, self._ordered = tick_rows, ordered
        self._blocks = Blocks(1, max(1, tick_rows // 16))

    def add_errors(self, errors: Any) -> None:
        """Take what the caller knows of each row: 1 where the model was wrong, NaN: no label."""
        wrong = numbers(np.asarray(errors)).astype(np.float64)
        wrong = wrong[np.isfinite(wrong)]
        self._rows += len(wrong)
        self._errors += int(np.count_nonzero(wrong))
        start = 0
        while self._ordered and start < len(wrong):
            part = wrong[start : start + self._blocks.room()] != 0
            counts = np.zeros((1, WIDTH), dtype=np.int64)
            counts[0, :2] = np.count_nonzero(~part), np.count_nonzero(part)
            self._blocks.add(counts, len(part))
            start += len(part)

    def add(
        self,
        predicted: Column,
        truth: Column,
        score: Column | None,
        *,
        count_errors: bool = True,
    ) -> None:
        """Take rows with the model's class or number, the truth, and its score if there is one.

        `count_errors=False` where `add_errors` was told of these rows.
        """
        if count_errors and self.task == "classification":
            self.add_errors(wrong_rows(predicted, truth))
        self._estimation.update(score, predicted, truth)

    def baseline(self) -> LabelledBaseline | None:
        """Give what was counted; None without a labelled row."""
        table = self._estimation.finish()
        if not self._rows and table is None:
            return None
        estimation = None if table is None else table.tree()
        phi, stray = self._calibration()
        return LabelledBaseline(
            rows=self._rows, errors=self._errors, phi=phi, wander=stray, estimation=estimation
        )

    def _calibration(self) -> tuple[float, float]:
        """Give design effect and wander of errors, in the order in which they came."""
        total = self._blocks.total_of(0)
        if not (total[0] and total[1]):  # never an error, or nothing else: nothing wanders
            return 1.0, 0.0
        scores = block_scores(np.empty((0, WIDTH)), total / total.sum(), [1])
        blocks, block_rows = self._blocks.full()[:, 0, :], self._blocks.block_rows
        phi, tolerance = calibrate(blocks, block_rows, self._tick_rows, scores)
        return significant(phi), significant(wander(tolerance))


def wrong_rows(predicted: Column, truth: Column) -> NDArray[np.float64]:
    """Give 1 where the class is another than the truth, 0 where not, NaN where one is missing."""
    said, true = class_names(predicted), class_names(truth)
    pairs = zip(said.tolist(), true.tolist(), strict=True)
    return np.array(
        [np.nan if a is None or b is None else float(a != b) for a, b in pairs], dtype=np.float64
    )


def class_names(column: Column) -> NDArray[np.object_]:
    """Give each row's class in its one spelling, None where it is missing."""
    known: dict[Any, str | None] = {}
    names = np.empty(len(column), dtype=object)
    for row, value in enumerate(column.tolist()):
        try:
            names[row] = known[value]
        except KeyError:
            names[row] = known[value] = _class_of(value)
        except Exception:  # unhashable, or a comparison that raises
            names[row] = _class_of(value)
    return names


def classes_of_scores(score: NDArray[np.float64], threshold: float = THRESHOLD) -> Column:
    """Give the class that a score of the positive class stands for: 1, 0, NaN where missing."""
    classes: Column = np.where(np.isnan(score), np.nan, (score >= threshold).astype(np.float64))
    return classes


def guess_task(truth: Column, *, scored: bool = False) -> Task:
    """Say what a model does whose target is this: words and few whole numbers are classes.

    >>> guess_task(np.array([0.0, 1.0, 1.0])), guess_task(np.array([1.5, 2.25]))
    ('classification', 'regression')
    """
    if scored or guess_kind(truth) != "numeric":
        return "classification"
    values = numbers(truth).astype(np.float64)
    values = values[np.isfinite(values)]
    whole = bool(np.all(values == np.floor(values)))
    return "classification" if whole and len(np.unique(values)) <= CLASSES_MAX else "regression"


def _class_of(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | bool):
        return class_name(value)
    return key_of(value)
