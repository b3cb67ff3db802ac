"""Quality without labels: the builder of the reference's table, and the window it is applied to.

For classifiers confidence-based performance estimation (CBPE): expected figures from calibrated
scores. For regressions direct loss estimation by bin of the prediction (`error_estimation`). Both
hold a few KB for any number of rows. Both are blind by construction to a changed concept; what they
say must stand next to realised figures wherever there are labels, and `estimate_trust` compares.

Source: the estimators are NannyML's (CBPE, DLE); by bins and in constant memory they are ours.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.classes import UNKNOWN, ClassNames, Codes, in_order
from detectors.performance.error_estimation import (
    ERROR_COLUMNS,
    RESIDUAL_MAX,
    error_cap,
    expected_errors,
    numbers_of,
    with_errors,
)
from detectors.performance.estimation_table import CELLS, Basis, EstimationTable
from detectors.performance.expected import SUMS, expected_quality, sums_needed, sums_of
from detectors.performance.intervals import Estimate
from detectors.performance.score_bins import BinFinder, BinTable, Floats

__all__ = ["EstimationBuilder", "EstimationTable", "Estimator"]

Task: TypeAlias = Literal["classification", "regression"]

HELD_ROWS: Final = 16_384
#: Bins while building: so many that those kept at the end are of equal size among all rows, also
#: where the first ones were others than the rest.
FINE_BINS: Final = 1_024
ROWS_MIN: Final = 500
CLASSES_MAX: Final = 20


class EstimationBuilder:
    """Builds an `EstimationTable` from labelled reference rows, chunk by chunk.

    The first `HELD_ROWS` rows are held to choose fine edges; then only sums are. `classes` names
    the columns of [rows, classes] scores (of two, the positive class is the second); without it
    they are the classes that the held rows show, in order, or 0, 1, 2, ...

    >>> rng = np.random.default_rng(7)
    >>> score = rng.random(5_000)
    >>> builder = EstimationBuilder("classification")
    >>> builder.update(score, score > 0.5, rng.random(5_000) < score)
    >>> table = builder.finish()
    >>> table.basis, table.classes
    ('binary', ('0', '1'))
    """

    def __init__(self, task: Task, *, classes: Sequence[str] | None = None) -> None:
        self.task: Task = task
        self.left_out = 0  # rows without a score, a prediction or a truth that can be used
        self._given = None if classes is None else tuple(classes)
        self._names = ClassNames(self._given or ())
        self._held: list[tuple[Floats, Floats, Floats]] = []
        self._held_rows = 0
        self._width = 0  # columns of the scores, once there are any
        self._table: EstimationTable | None = None
        self._finders: list[BinFinder] = []  # of the table's bins
        self._positive = 1  # the code of the positive class, of two
        self._hopeless = False  # what came cannot be estimated from, ever

    def update(
        self, score: NDArray[Any] | None, predicted: NDArray[Any], truth: NDArray[Any]
    ) -> None:
        """Take a chunk: scores [rows] or [rows, classes] (None for a regression), predictions and
        truths [rows]. Raises ValueError for arrays of different lengths.
        """
        if len(predicted) != len(truth) or (score is not None and len(score) != len(truth)):
            raise ValueError("scores, predictions and truths of different lengths")
        if self._hopeless or not len(truth):
            return
        if self.task == "regression":
            said, true = numbers_of(predicted), numbers_of(truth)
            with np.errstate(over="ignore", invalid="ignore"):
                usable = np.abs(true - said) < RESIDUAL_MAX
            self._take(said[:, None], said, true, usable)
        elif score is None:
            self._hopeless = True
        else:
            scores = np.asarray(score, dtype=np.float64).reshape(len(truth), -1)
            codes, truths = self._names.codes(predicted), self._names.codes(truth)
            usable = (codes != UNKNOWN) & (truths != UNKNOWN) & np.isfinite(scores).all(axis=1)
            self._take(scores, codes.astype(np.float64), truths.astype(np.float64), usable)

    def _take(
        self, score: Floats, predicted: Floats, truth: Floats, usable: NDArray[np.bool_]
    ) -> None:
        self.left_out += int(len(usable) - usable.sum())
        if not usable.all():
            score, predicted, truth = score[usable], predicted[usable], truth[usable]
        if self._width not in (0, score.shape[1]):
            self._hopeless = True
            return
        self._width = score.shape[1]
        if self._table is None:
            # Exactly so many are held, however the rows were cut into chunks; as copies, for the
            # arrays are the caller's.
            room = HELD_ROWS - self._held_rows
            self._held.append((score[:room].copy(), predicted[:room].copy(), truth[:room].copy()))
            self._held_rows += len(self._held[-1][0])
            score, predicted, truth = score[room:], predicted[room:], truth[room:]
            if self._held_rows >= HELD_ROWS:
                self._begin()
        if self._table is not None and len(score):
            self._table = self._added(self._table, score, predicted, truth)

    def finish(self) -> EstimationTable | None:
        """The table so far; None where there are fewer than `ROWS_MIN` rows, one class, or scores
        that say nothing of the classes seen.
        """
        if self._table is None and self._held_rows >= ROWS_MIN and not self._hopeless:
            self._begin()
        table = self._table
        if self._hopeless or table is None or table.rows < ROWS_MIN:
            return None
        table = table.coarsened()
        if table.basis != "binary":
            return table
        names = self._names.names
        if len(names) != 2:
            return None
        classes = self._given or in_order(names)
        if classes[1] == names[self._positive]:
            return replace(table, classes=classes)
        # The class that turned out to be the positive one was the only one for long.
        mirrored = replace(table.tables[0], sums=table.tables[0].sums[:, ::-1])
        return replace(table, classes=classes, tables=(mirrored,))

    def _begin(self) -> None:
        """Edges from the held rows, which then become sums."""
        score, predicted, truth = (np.concatenate(part) for part in zip(*self._held, strict=True))
        self._held = []
        table = self._empty(score, predicted, truth)
        if table is None:
            self._hopeless = True
            return
        self._finders = [BinFinder(part.edges) for part in table.tables]
        self._table = self._added(table, score, predicted, truth)

    def _empty(self, score: Floats, predicted: Floats, truth: Floats) -> EstimationTable | None:
        width = score.shape[1]
        if self.task == "regression":
            part = BinTable.empty(score[:, 0], ERROR_COLUMNS, FINE_BINS)
            cap = error_cap(truth - predicted)
            return EstimationTable(basis="regression", classes=(), cap=cap, rows=0, tables=(part,))
        if width > 2:
            classes = self._columns(width)
            if classes is None:
                return None
            parts = tuple(BinTable.empty(column, CELLS, FINE_BINS) for column in score.T)
            return EstimationTable(basis="multiclass", classes=classes, rows=0, tables=parts)
        names = self._names.names
        basis: Basis = "binary" if len(names) <= 2 else "confidence"
        if basis == "confidence" and width == 2:
            return None
        if len(names) == 2 and self._given is None:
            self._positive = names.index(in_order(names)[1])
        flags = predicted == self._positive
        column = score[:, -1]
        oriented = basis == "binary" and width == 1 and _is_of_predicted(column, flags)
        if oriented:
            column = np.where(flags, column, 1.0 - column)
        return EstimationTable(
            basis=basis,
            classes=(),
            oriented=oriented,
            rows=0,
            tables=(BinTable.empty(column, CELLS, FINE_BINS),),
        )

    def _columns(self, width: int) -> tuple[str, ...] | None:
        """What the columns of [rows, classes] scores are called; None when that is unknown."""
        if width > CLASSES_MAX:
            return None
        seen = in_order(self._names.names)
        for names in (self._given, seen, tuple(map(str, range(width)))):
            if names is not None and len(names) == width and set(seen) <= set(names):
                return names
        return None

    def _added(
        self, table: EstimationTable, score: Floats, predicted: Floats, truth: Floats
    ) -> EstimationTable:
        if table.basis == "regression":
            part = with_errors(table.tables[0], predicted, truth, table.cap)
            return replace(table, rows=table.rows + len(truth), tables=(part,))
        names = self._names.names
        if table.basis == "binary":
            wanted: tuple[int, ...] = (self._positive,)
            inside = (predicted < 2) & (truth < 2)
        elif table.basis == "confidence":
            wanted, inside = (1,), np.ones(len(truth), dtype=np.bool_)
            predicted, truth = np.ones(len(truth)), (predicted == truth).astype(np.float64)
        else:
            wanted = tuple(names.index(n) if n in names else len(names) for n in table.classes)
            inside = np.isin(predicted, wanted) & np.isin(truth, wanted)
        if not inside.all():
            self.left_out += int(len(inside) - inside.sum())
            score, predicted, truth = score[inside], predicted[inside], truth[inside]
        columns = table.aligned(score, predicted == wanted[0])
        tables = tuple(
            part.plus(
                column,
                (2 * (predicted == code) + (truth == code)).astype(np.intp),
                places=finder.places(column),
            )
            for part, finder, column, code in zip(
                table.tables, self._finders, columns.T, wanted, strict=True
            )
        )
        return replace(table, rows=table.rows + len(truth), tables=tables)


def _is_of_predicted(score: Floats, positive: NDArray[np.bool_]) -> bool:
    """Whether scores are those of the predicted class, whichever it is: never below one half."""
    both = bool(positive.any()) and not bool(positive.all())
    return both and bool(score.min() >= 0.5) and bool(score.max() <= 1.0)


class Estimator:
    """Expected quality of the last `window_rows` rows, for which no label is needed.

    The window is a ring of blocks; an old block leaves as a whole, so that between `window_rows`
    and a tenth more are covered.

    >>> rng = np.random.default_rng(7)
    >>> score = rng.random(20_000)
    >>> builder = EstimationBuilder("classification")
    >>> builder.update(score, score > 0.5, rng.random(20_000) < score)
    >>> estimator = Estimator(builder.finish())
    >>> estimator.update(score[:5_000] ** 2, score[:5_000] ** 2 > 0.5)
    >>> round(estimator.metrics()["accuracy"].value, 2)
    0.81
    """

    def __init__(
        self, table: EstimationTable, *, window_rows: int = 10_000, blocks: int = 10
    ) -> None:
        if window_rows < 1 or blocks < 1:
            raise ValueError(f"a window of {window_rows} rows in {blocks} blocks")
        self.table = table
        self.rows_total = 0
        self.left_out = 0  # rows without a usable score or prediction
        self._names = ClassNames(table.classes)
        regression = table.basis == "regression"
        self._chances = [] if regression else [*map(table.calibration, range(len(table.tables)))]
        self._finders = [BinFinder(part.edges) for part in table.tables]
        self._needed = (
            [] if regression else [sums_needed(table, i) for i in range(len(table.tables))]
        )
        self._block_rows = max(1, window_rows // blocks)
        self._blocks_max = blocks + 1
        bins = max(part.bins for part in table.tables)
        self._shape = (bins, 1) if regression else (len(table.tables), bins, 2, SUMS)
        self._blocks: deque[Floats] = deque([np.zeros(self._shape)], maxlen=blocks + 1)
        self._rows: deque[int] = deque([0], maxlen=blocks + 1)

    @property
    def rows(self) -> int:
        """Rows in the window."""
        return sum(self._rows)

    def update(self, score: NDArray[Any] | None, predicted: NDArray[Any]) -> None:
        """Take a chunk: scores as the builder's, predictions [rows].

        Rows with another number of score columns are left out. Raises ValueError for arrays of
        different lengths.
        """
        if score is not None and len(score) != len(predicted):
            raise ValueError("scores and predictions of different lengths")
        if not len(predicted):
            return
        if self.table.basis == "regression":
            said = numbers_of(predicted)
            usable = np.isfinite(said)
            columns, codes = said[:, None], np.zeros(len(said), dtype=np.int64)
        else:
            columns = np.empty(0) if score is None else np.asarray(score, dtype=np.float64)
            columns = columns.reshape(len(predicted), -1)
            if not self.table.takes(columns.shape[1]):
                self.left_out += len(predicted)
                return
            codes = self._codes(predicted)
            usable = (codes != UNKNOWN) & np.isfinite(columns).all(axis=1)
            columns = self.table.aligned(columns, codes == 1)
        if not usable.all():
            self.left_out += int(len(usable) - usable.sum())
            columns, codes = columns[usable], codes[usable]
        start = 0
        while start < len(codes):
            stop = start + self._block_rows - self._rows[-1]
            self._add(columns[start:stop], codes[start:stop])
            start = stop

    def _codes(self, predicted: NDArray[Any]) -> Codes:
        codes = self._names.codes(predicted)
        if self.table.basis == "confidence":
            return np.where(codes == UNKNOWN, UNKNOWN, 1)
        return np.where(codes < len(self.table.classes), codes, UNKNOWN)

    def _add(self, columns: Floats, codes: Codes) -> None:
        block, tables = self._blocks[-1], self.table.tables
        if self.table.basis == "regression":
            places = self._finders[0].places(columns[:, 0])
            block[:, 0] += np.bincount(places, minlength=len(block))
        else:
            wanted = range(len(tables)) if len(tables) > 1 else (1,)
            for index, code in enumerate(wanted):
                column = columns[:, index]
                places = self._finders[index].places(column)
                bins, needed = len(block[index]), self._needed[index]
                block[index] += sums_of(places, column, codes == code, bins, needed)
        self._rows[-1] += len(codes)
        self.rows_total += len(codes)
        if self._rows[-1] >= self._block_rows:
            self._blocks.append(np.zeros(self._shape))
            self._rows.append(0)

    def metrics(self) -> dict[str, Estimate]:
        """Metric name to estimate; empty while there is no row.

        Binary: roc_auc, pr_auc, accuracy, precision, recall, specificity, f1, and for scores that
        are probabilities log_loss and brier. Multiclass: accuracy, log_loss and brier over all
        classes, the others as unweighted means over classes. Confidence: accuracy. Regression: mae,
        mse, rmse. The calibration error cannot be estimated: the estimate supposes that there is
        none beyond the reference's. Intervals (`sampling`) hold the realised figure of the same
        rows 19 times in 20 as long as calibration holds.
        """
        total = np.sum(self._blocks, axis=0)
        if not self.rows:
            return {}
        if self.table.basis == "regression":
            return expected_errors(self.table.tables[0], total[:, 0])
        return expected_quality(self.table, total, self._chances)

    def state(self) -> dict[str, Any]:
        """Everything that matters; arrays and JSON values."""
        return {
            "rows_total": self.rows_total,
            "left_out": self.left_out,
            "rows": list(self._rows),
            "blocks": np.stack(self._blocks),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off, with the same table. Raises ValueError for a state
        that does not fit.
        """
        blocks = np.asarray(state["blocks"], dtype=np.float64)
        rows = [int(count) for count in state["rows"]]
        if blocks.shape[1:] != self._shape or not 0 < len(blocks) == len(rows) <= self._blocks_max:
            raise ValueError(f"blocks of {blocks.shape} are not those of this table")
        self.rows_total, self.left_out = int(state["rows_total"]), int(state["left_out"])
        self._blocks = deque(blocks.copy(), maxlen=self._blocks.maxlen)
        self._rows = deque(rows, maxlen=self._rows.maxlen)
