"""Realised quality of a classifier: its confusion table, and the losses and ranking of its scores.

Of two classes the figures are of the positive one. Of more they are unweighted means over classes.
Two figures are of clipped scores: the logarithmic loss counts probabilities below
`PROBABILITY_MIN` as that, so that it is bounded.

Sources: DeLong, DeLong and Clarke-Pearson (1988) for the spread of an area; Guo et al. (2017) for
the calibration error by bins of equal width; the delta method for means over classes.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.performance.intervals import Estimate, smooth_variance
from detectors.performance.ranking import (
    average_precision,
    average_precision_slopes,
    roc_auc,
    roc_auc_slopes,
)
from detectors.performance.weighted_rows import Booleans, Floats, WeightedRows

PROBABILITY_MIN: Final = 1e-6
LOG_LOSS_MAX: Final = -math.log(PROBABILITY_MIN)
CALIBRATION_BINS: Final = 15


def of_table(rows: WeightedRows, classes: Sequence[int]) -> dict[str, Estimate]:
    """accuracy, and precision, recall, f1 (specificity too, of two): what the predicted classes
    alone say. `classes` are the codes that occur, of two the positive one last.
    """
    accuracy = rows.share(rows.said == rows.true)
    found = {"accuracy": accuracy}
    if len(classes) == 2:
        negative, positive = classes
        found |= of_class(rows, positive)
        found["specificity"] = _among(rows, rows.true == negative, rows.said == negative)
    elif len(classes) > 2:
        found |= _over_classes(rows, classes)
    return {name: figure for name, figure in found.items() if figure is not None}


def of_class(rows: WeightedRows, code: int) -> dict[str, Estimate]:
    """precision, recall and f1 of one class, as far as it was predicted or true."""
    said, true = rows.said == code, rows.true == code
    hit = said & true
    found = {"precision": _among(rows, said, hit), "recall": _among(rows, true, hit)}
    # F1 = 2J / (1 + J) with J = hit / union, a plain share of the rows in the union; it rises
    # with J, so that the limits of J give its own.
    jaccard = _among(rows, said | true, hit)
    if jaccard is not None:
        value, lower, upper = (
            2.0 * share / (1.0 + share) for share in (jaccard.value, jaccard.lower, jaccard.upper)
        )
        found["f1"] = Estimate(
            value=value, lower=lower, upper=upper, rows=jaccard.rows, kind=jaccard.kind
        )
    return {name: figure for name, figure in found.items() if figure is not None}


def _among(rows: WeightedRows, those: Booleans, hits: Booleans) -> Estimate | None:
    return rows.where(those).share(hits[those])


def _over_classes(rows: WeightedRows, classes: Sequence[int]) -> dict[str, Estimate]:
    """Means over classes. Their spread is the delta method's on the whole table, for an error
    lowers the F1 of two classes at once.
    """
    width = max(classes) + 1
    flat = rows.true * width + rows.said
    cells = np.bincount(flat, rows.weight, minlength=width**2).reshape(width, width)
    hit, true, said = cells.diagonal(), cells.sum(axis=1), cells.sum(axis=0)
    scale = rows.worth / rows.weight.sum()
    found = {}
    for name, part, whole in (
        ("precision", hit, said),
        ("recall", hit, true),
        ("f1", 2.0 * hit, said + true),
    ):
        known = np.flatnonzero(whole > 0.0)
        ratio = part[known] / whole[known]
        slopes = np.zeros((width, width))  # by [truth, predicted]
        if name != "recall":
            slopes[:, known] -= ratio / whole[known]
        if name != "precision":
            slopes[known, :] -= (ratio / whole[known])[:, None]
        slopes[known, known] += (2.0 if name == "f1" else 1.0) / whole[known]
        slopes /= len(known)
        least = sum(
            smooth_variance(scale * float(part[code]), scale * float(whole[code])) for code in known
        )
        value = float(ratio.mean())
        found[name] = rows.figure(
            value, slopes[rows.true, rows.said], most=1.0, floor=least / len(known) ** 2
        )
    return found


def of_scores(rows: WeightedRows, positive: Sequence[Booleans]) -> dict[str, Estimate]:
    """roc_auc, pr_auc, and of probabilities log_loss, brier and calibration_error.

    `positive` says for each column of the scores which rows are of its class: one column is that of
    the positive class of two, more are of as many classes. Rows without a score are passed by.
    """
    scored: Booleans = np.asarray(np.isfinite(rows.score).all(axis=1))
    if not scored.all():
        rows, positive = rows.where(scored), [true[scored] for true in positive]
    if not len(rows):
        return {}
    found = _ranking(rows, positive)
    if rows.score.min() < 0.0 or rows.score.max() > 1.0:
        return found
    if len(positive) == 1:
        [true], score = positive, rows.score[:, 0]
        of_truth, brier = np.where(true, score, 1.0 - score), (score - true) ** 2
        brier_max, confidence, right = 1.0, score, true
    else:
        one_hot = np.stack(positive, axis=1)
        of_truth = np.where(one_hot, rows.score, 0.0).sum(axis=1)
        brier, brier_max = ((rows.score - one_hot) ** 2).sum(axis=1), float(len(positive))
        best = rows.score.argmax(axis=1)
        confidence, right = rows.score.max(axis=1), one_hot[np.arange(len(rows)), best]
        if np.abs(rows.score.sum(axis=1) - 1.0).max() < 0.01:
            brier_max = 2.0
    loss = -np.log(np.clip(of_truth, PROBABILITY_MIN, 1.0))
    log_loss, mean_brier = rows.mean(loss, most=LOG_LOSS_MAX), rows.mean(brier, most=brier_max)
    assert log_loss is not None
    assert mean_brier is not None
    error = calibration_error(rows, confidence, right)
    return found | {"log_loss": log_loss, "brier": mean_brier, "calibration_error": error}


def calibration_error(rows: WeightedRows, confidence: Floats, right: Booleans) -> Estimate:
    """Mean distance between what scores promise and what came true, by bins of equal width.

    It has no interval: its expectation is above zero even for a perfect model, by about
    sqrt(bins / rows).
    """
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, rows.weight * (right - confidence), minlength=CALIBRATION_BINS)
    return rows.plain(float(np.abs(gaps).sum() / rows.weight.sum()))


def _ranking(rows: WeightedRows, positive: Sequence[Booleans]) -> dict[str, Estimate]:
    """Exact: rows of equal score are one group. Means over classes where there are several."""
    areas, precisions = [], []
    area_slopes, precision_slopes = np.zeros(len(rows)), np.zeros(len(rows))
    area_floor = precision_floor = 0.0
    scale = rows.worth / rows.weight.sum()
    for column, true in zip(rows.score.T, positive, strict=True):
        _, group = np.unique(column, return_inverse=True)
        groups = int(group.max()) + 1
        more: Floats = np.zeros(groups) + np.bincount(group, rows.weight * true, groups)
        fewer: Floats = np.zeros(groups) + np.bincount(group, rows.weight * ~true, groups)
        if not true.any() or true.all():
            continue
        areas.append(float(roc_auc(more, fewer)))
        precisions.append(float(average_precision(more, fewer)))
        ups, downs = roc_auc_slopes(more, fewer)
        area_slopes += np.where(true, ups[group], downs[group])
        ups, downs = average_precision_slopes(more, fewer)
        precision_slopes += np.where(true, ups[group], downs[group])
        worth = scale * min(more.sum(), fewer.sum())
        area_floor += smooth_variance(worth, worth)
        worth = scale * float(more.sum())
        precision_floor += smooth_variance(worth, worth)
    if not areas:
        return {}
    count = len(areas)
    return {
        "roc_auc": rows.figure(
            sum(areas) / count, area_slopes / count, most=1.0, floor=area_floor / count**2
        ),
        "pr_auc": rows.figure(
            sum(precisions) / count,
            precision_slopes / count,
            most=1.0,
            floor=precision_floor / count**2,
        ),
    }
