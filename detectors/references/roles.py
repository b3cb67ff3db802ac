"""Which columns of a reference's rows are no features: outputs, labels, what is only carried."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.reference import Task
from detectors.references.baseline_rows import class_names, classes_of_scores, wrong_rows
from detectors.rows.columns import Column, Table, numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Names of columns: what the model said, its score, what came true, what rows are grouped by.

    Where there is a score and no prediction, the score is the model's output. `segment` stays a
    feature unless it is `ignored`, too.
    """

    prediction: str | None = None
    score: str | None = None
    label: str | None = None
    segment: str | None = None
    ignored: frozenset[str] = frozenset()

    @property
    def output(self) -> str | None:
        """The column that stands for the model's output."""
        return self.prediction or self.score

    @property
    def scored(self) -> str | None:
        """The column of scores beside another output."""
        return self.score if self.prediction is not None else None

    @property
    def outputs(self) -> frozenset[str]:
        """All columns that have a profile and are no features."""
        return frozenset(n for n in (self.prediction, self.score, self.label) if n is not None)

    @property
    def labelled(self) -> bool:
        """Whether rows say both what the model said and what came true."""
        return self.label is not None and self.output is not None

    def watched(self, table: Table, task: Task | None) -> Table:
        """Give the columns that are to have a profile, scores and classes in their plain form."""
        columns = {n: c for n, c in table.columns.items() if n not in self.ignored}
        vectors = {n: v for n, v in table.vectors.items() if n not in self.ignored}
        if self.score is not None and self.score in vectors:
            columns[self.score] = one_score(vectors.pop(self.score))
        if task == "classification":  # what is a class has names, however it is spelt
            for name in (self.prediction, self.label):
                if name is not None and name in columns:
                    columns[name] = class_names(columns[name])
        return replace(table, columns=columns, vectors=vectors)

    def said(self, table: Table) -> Column | None:
        """Give what the model said of each row; None if the column is not there."""
        if self.prediction is not None:
            return table.columns.get(self.prediction)
        score = self.scores(table)
        return None if score is None or score.ndim != 1 else classes_of_scores(score)

    def scores(self, table: Table) -> Column | None:
        """Give scores as float64 [rows] or [rows, classes]; None if the column is not there."""
        if self.score is None:
            return None
        if self.score in table.vectors:
            return table.vectors[self.score].astype(np.float64)
        column = table.columns.get(self.score)
        return None if column is None else numbers(column).astype(np.float64)

    def score_and_loss(
        self, table: Table, task: Task | None
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Give each row's one number that the model said, and how wrong it was; None if unknown.

        The number is the score of the positive class, or a regression's prediction; the loss is 1
        or 0, or the absolute error.
        """
        said, truth = self.said(table), table.columns.get(self.label or "")
        if task == "regression":
            if said is None:
                return None, None
            number = numbers(said).astype(np.float64)
            if truth is None:
                return number, None
            with np.errstate(over="ignore", invalid="ignore"):
                return number, np.abs(numbers(truth).astype(np.float64) - number)
        score = self.scores(table)
        if score is not None and score.ndim == 2:
            score = score[:, 1] if score.shape[1] == 2 else None
        return score, None if said is None or truth is None else wrong_rows(said, truth)


def one_score(vectors: Column) -> Column:
    """Give one score of each row, [rows], from [rows, classes]: the second of two classes', which
    is the positive one, else the highest; NaN where there is none.
    """
    if vectors.shape[1] == 2:
        positive: Column = vectors[:, 1].astype(np.float64)
        return positive
    kept = np.where(np.isnan(vectors), -np.inf, vectors)
    best = kept.max(axis=1).astype(np.float64)
    highest: Column = np.where(np.isneginf(best), np.nan, best)
    return highest
