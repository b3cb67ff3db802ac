"""Ranking figures from positives and negatives by group of equal score: ROC AUC, PR AUC.

Groups come in ascending order of score along the last axis; both arrays may have further axes in
front. With one group per distinct score the figures are exact; with bins of scores the error of the
AUC is at most half the share of pairs that fall into one bin.

Sources: Hanley and McNeil (1982) for the area as the share of pairs in order; Davis and Goadrich
(2006) for precision between two points of the curve.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def roc_auc(positive: Floats, negative: Floats) -> Floats:
    """The share of (positive, negative) pairs in the right order, ties by half; NaN without one."""
    below = negative.cumsum(axis=-1) - negative / 2.0
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(axis=-1) / pairs)


def roc_auc_slopes(
    positive: Floats, negative: Floats, area: float | None = None
) -> tuple[Floats, Floats]:
    """By how much one more positive, or one more negative, in each group moves the AUC, which may
    be given where it is known.
    """
    if area is None:
        area = float(roc_auc(positive, negative))
    positives, negatives = positive.sum(), negative.sum()
    below = negative.cumsum() - negative / 2.0
    above = positives - positive.cumsum() + positive / 2.0
    return (below / negatives - area) / positives, (above / positives - area) / negatives


def average_precision(positive: Floats, negative: Floats) -> Floats:
    """Precision at each group's score, averaged over the positives; NaN without a positive."""
    found = positive[..., ::-1].cumsum(axis=-1)
    said = found + negative[..., ::-1].cumsum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(said > 0.0, found / said, 0.0)
        total = (positive[..., ::-1] * precision).sum(axis=-1) / found[..., -1]
    return np.asarray(total)


def mixed_average_precision(positive: Floats, negative: Floats) -> tuple[float, Floats]:
    """The same where the rows of a group are mixed at random, not tied; and by how much a negative
    of each group that turns positive moves it (0 for a group without rows). One-dimensional, with a
    positive at least.

    Within a group precision is (a + t) / (d + t / r) after t of its positives, with a positives and
    d rows above it and the share r of its rows positive; its mean over the group has a closed form.
    """
    hits, rows = positive[::-1], (positive + negative)[::-1]
    a, d = hits.cumsum(), rows.cumsum()
    total = float(a[-1])
    a -= hits
    d -= rows
    filled = np.maximum(rows, np.finfo(np.float64).tiny)
    rate = hits / filled
    log = np.log1p(np.divide(rows, d, out=np.zeros_like(d), where=d > 0.0))
    lifted = rate * log  # what one more positive above adds in a group
    above = d * rate
    area = float(hits @ rate + (a - above) @ lifted) / total
    lower = lifted.cumsum()
    own = rate + rate + (a - above - above) * log / filled + (lower[-1] - lower)
    slopes = np.where(rows > 0.0, own - area, 0.0) / total
    return area, slopes[::-1]


def average_precision_slopes(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """By how much one more positive, or one more negative, in each group moves the average
    precision; one-dimensional.
    """
    hits, total = positive[::-1], float(positive.sum())
    said = (positive + negative)[::-1].cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(said > 0.0, hits.cumsum() / said, 0.0)
        each = np.where(said > 0.0, hits / said, 0.0)
    # A row changes the precision at its own score and at all lower ones.
    gained = (each * (1.0 - precision))[::-1].cumsum()[::-1]
    lost = (each * precision)[::-1].cumsum()[::-1]
    mean = float(hits @ precision) / total
    return ((precision - mean + gained) / total)[::-1], (-lost / total)[::-1]
