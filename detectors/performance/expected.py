"""Expected figures of a window whose truth is unknown: each row is positive with the probability
that its bin of the score had in the reference.

Every figure comes with its slope: by how much it moves when one row of a cell turns out positive.
Slopes give the spread (delta method) of the realised figure around the estimate, which has two
parts: chance in the window's own rows, and chance in the reference's.

Sources: field formulas of confidence-based performance estimation; Hampel (1974) for slopes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.estimation_table import EstimationTable
from detectors.performance.intervals import Z95, Estimate, around
from detectors.performance.ranking import mixed_average_precision, roc_auc, roc_auc_slopes
from detectors.performance.score_bins import BinTable, Places

Floats: TypeAlias = NDArray[np.float64]
Booleans: TypeAlias = NDArray[np.bool_]
#: A figure, its slope by [bins, predicted], and the most it can be.
Figure: TypeAlias = tuple[float, Floats, float]

#: Sums by cell: rows, score, its square, log score, log of one less it.
SUMS: Final = 5
#: Probabilities nearer to 0 or 1 count as this near in the logarithmic loss.
PROBABILITY_MIN: Final = 1e-6


def sums_needed(table: EstimationTable, index: int) -> int:
    """How many of the sums the figures of a table need: losses are of probabilities alone, and of
    several classes only the true one's probability enters the log loss.
    """
    part = table.tables[index]
    if table.basis == "confidence" or part.low < 0.0 or part.high > 1.0:
        return 1
    return SUMS if table.basis == "binary" else SUMS - 1


def sums_of(places: Places, score: Floats, predicted: Booleans, bins: int, needed: int) -> Floats:
    """[bins, 2, SUMS] of rows by bin of the score and whether the class was predicted; of the sums
    the first `needed`, and 0 for the others.
    """
    flat = places * 2 + predicted
    found = np.zeros((2 * bins, SUMS))
    found[:, 0] = np.bincount(flat, minlength=2 * bins)
    if needed > 1:
        bounded = np.maximum(score, 0.0)
        np.minimum(bounded, 1.0, out=bounded)  # what is beyond may be 1e308
        found[:, 1] = np.bincount(flat, bounded, minlength=2 * bins)
        found[:, 2] = np.bincount(flat, bounded * bounded, minlength=2 * bins)
        log = np.log(np.maximum(bounded, PROBABILITY_MIN))
        found[:, 3] = np.bincount(flat, log, minlength=2 * bins)
        if needed == SUMS:
            log = np.log(np.maximum(1.0 - bounded, PROBABILITY_MIN))
            found[:, 4] = np.bincount(flat, log, minlength=2 * bins)
    return found.reshape(bins, 2, SUMS)


def expected_quality(
    table: EstimationTable, total: Floats, chances: Sequence[Floats]
) -> dict[str, Estimate]:
    """Metric name to estimate from a classifier's sums, [tables, bins, 2, SUMS], and its
    calibrations by table.
    """
    cells = [total[i, : part.bins] for i, part in enumerate(table.tables)]
    if table.basis == "multiclass":
        return _over_classes(table, cells, chances)
    [chance] = chances
    if table.basis == "confidence":
        figures = {"accuracy": _hits(cells[0], chance)}
    else:
        figures = _binary(cells[0], chance) | _losses(table.tables[0], cells[0], chance)
    rows = round(float(cells[0][..., 0].sum()))
    spreads = _spreads(table.tables[0], cells[0], chance, figures)
    return {
        name: around(float(value), Z95 * spreads[name], rows, kind="sampling", most=most)
        for name, (value, _, most) in figures.items()
        if math.isfinite(value)
    }


def _over_classes(
    table: EstimationTable, cells: Sequence[Floats], chances: Sequence[Floats]
) -> dict[str, Estimate]:
    """Means over classes, sums for what adds up. Spreads are added as if classes moved together,
    which they do not quite: intervals are a little wide.
    """
    rows = round(float(cells[0][..., 0].sum()))
    values: dict[str, list[float]] = {}
    spreads: dict[str, list[float]] = {}
    limits: dict[str, float] = {}
    variance = 0.0
    for part, cell, chance in zip(table.tables, cells, chances, strict=True):
        figures = _binary(cell, chance) | _losses(part, cell, chance, one_of_many=True)
        figures["accuracy"] = _hits(cell, chance, rows)
        of_class = _spreads(part, cell, chance, figures)
        variance += of_class["accuracy"] ** 2
        for name, (value, _, most) in figures.items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
                spreads.setdefault(name, []).append(of_class[name])
                limits[name] = most
    found = {}
    for name, listed in values.items():
        parts = 1 if name in ("accuracy", "log_loss", "brier") else len(listed)
        most = 2.0 if name == "brier" else limits[name]
        half = Z95 * sum(spreads[name]) / parts
        half = Z95 * math.sqrt(variance) if name == "accuracy" else half
        found[name] = around(float(sum(listed)) / parts, half, rows, kind="sampling", most=most)
    return found


def _hits(cell: Floats, chance: Floats, rows: int | None = None) -> Figure:
    """The share of rows whose predicted class is the true one, of those that had this class."""
    said = cell[:, 1, 0]
    whole = said.sum() if rows is None else rows
    slope = np.zeros((len(chance), 2))
    slope[:, 1] = 1.0 / max(whole, 1.0)
    return float(said @ chance) / max(whole, 1.0), slope, 1.0


def _binary(cell: Floats, chance: Floats) -> dict[str, Figure]:
    rows = cell[..., 0]
    ones = np.ones(len(chance))
    (of_other, said), (missed, hit) = (np.array([ones, chance]) @ rows).tolist()
    whole, true = of_other + said, missed + hit
    false = whole - true
    passed = false - (said - hit)  # true negatives
    figures = {"accuracy": ((hit + passed) / whole, _flat(ones, -1.0 / whole, 1.0 / whole), 1.0)}
    if said > 0:
        figures["precision"] = (hit / said, _flat(ones, 0.0, 1.0 / said), 1.0)
    if true > 0:
        less = -hit / true**2
        figures["recall"] = (hit / true, _flat(ones, less, less + 1.0 / true), 1.0)
        f1, wide = 2.0 * hit / (said + true), said + true
        figures["f1"] = (f1, _flat(ones, -f1 / wide, (2.0 - f1) / wide), 1.0)
    if false > 0:
        more = passed / false**2
        figures["specificity"] = (passed / false, _flat(ones, more - 1.0 / false, more), 1.0)
    return figures | _ranking(rows[:, 0] + rows[:, 1], chance)


def _ranking(rows: Floats, chance: Floats) -> dict[str, Figure]:
    positive = rows * chance
    negative = rows - positive
    if not (positive > 0.0).any() or not (negative > 0.0).any():
        return {}
    area = float(roc_auc(positive, negative))
    more, fewer = roc_auc_slopes(positive, negative, area)
    precision, by_bin = mixed_average_precision(positive, negative)
    return {
        "roc_auc": (area, _slope(more - fewer, more - fewer), 1.0),
        "pr_auc": (precision, _slope(by_bin, by_bin), 1.0),
    }


def _losses(
    part: BinTable, cell: Floats, chance: Floats, *, one_of_many: bool = False
) -> dict[str, Figure]:
    """Losses of the probabilities themselves; nothing for scores that are none.

    `one_of_many`: of several classes, where only the true one's probability enters the log loss,
    and sums of the logarithm of one less it are 0.
    """
    if part.low < 0.0 or part.high > 1.0:
        return {}
    rows, score, _, log, log_other = np.moveaxis(cell, -1, 0)
    chances = np.array([chance, 1.0 - chance])
    true, false = (chances @ (cell[:, 0] + cell[:, 1])).tolist()  # by sum
    whole = true[0] + false[0]
    log_loss = -(true[3] + (0.0 if one_of_many else false[4])) / whole
    brier = (true[2] + false[2] + true[0] - 2.0 * true[1]) / whole
    each = np.maximum(rows, 1.0) * whole
    other = -log if one_of_many else log_other - log
    return {
        "log_loss": (log_loss, other / each, math.inf),
        "brier": (brier, (rows - 2.0 * score) / each, 1.0),
    }


def _flat(ones: Floats, not_predicted: float, predicted: float) -> Floats:
    """The same slope in every bin."""
    return ones[:, None] * (not_predicted, predicted)


def _slope(not_predicted: Floats, predicted: Floats) -> Floats:
    return np.array([not_predicted, predicted]).T


def _spreads(
    part: BinTable, cell: Floats, chance: Floats, figures: Mapping[str, Figure]
) -> dict[str, float]:
    """Standard deviation of each realised figure around its estimate."""
    rows, doubt = cell[..., 0], chance * (1.0 - chance)
    slopes = np.array([slope for _, slope, _ in figures.values()])
    moved = slopes * rows
    own = (moved * slopes).sum(axis=2) @ doubt
    known = moved.sum(axis=2) ** 2 @ (doubt / np.maximum(part.sums.sum(axis=1), 1.0))
    return dict(zip(figures, np.sqrt(own + known).tolist(), strict=True))
