"""How big a difference is: distances between two histograms over the same bins, for all features at
once.

Every function takes counts or probabilities of shape [features, bins] and gives [features]. Only
ordered bins have a cumulative sum that means something, so `ks` and `wasserstein` are told which
bins those are. These are effects: they say how far, never how sure.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Shares below this count as this much, so that one empty bin does not make PSI infinite.
SHARE_MIN: Final = 1e-4

#: E[K^2] of the Kolmogorov distribution: what squared KS is on average when nothing has changed
#: (Kolmogorov 1933).
KS_NULL_SQUARE: Final = np.pi**2 / 12.0


def shares(counts: NDArray[Any]) -> Floats:
    """Turn counts [features, bins] into shares; a feature without rows has all shares 0."""
    totals = counts.sum(axis=1, keepdims=True)
    result: Floats = counts / np.maximum(totals, 1)
    return result


def psi_terms(p: Floats, q: Floats) -> Floats:
    """Give each bin's part [features, bins] of the population stability index."""
    floor_p, floor_q = np.maximum(p, SHARE_MIN), np.maximum(q, SHARE_MIN)
    terms: Floats = np.where(
        (p > 0) | (q > 0), (floor_q - floor_p) * np.log(floor_q / floor_p), 0.0
    )
    return terms


def psi(p: Floats, q: Floats) -> Floats:
    """Population stability index: sum (q - p) ln(q / p), with shares floored at 1e-4 (Siddiqi
    2006).
    """
    total: Floats = psi_terms(p, q).sum(axis=1)
    return total


def psi_corrected(p: Floats, q: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """PSI less what chance alone gives, (bins - 1)(1/n + 1/m), never below 0; 0 without rows.

    Plain PSI exceeds .2 in 93 % of windows of 48 unchanged rows. The expectation is that of a
    chi-squared with bins - 1 degrees of freedom (Yurdakul 2018). `rows` and `reference_rows` have
    shape [features].
    """
    bins = (p > 0).sum(axis=1)
    chance = (bins - 1) * (1.0 / np.maximum(rows, 1) + 1.0 / np.maximum(reference_rows, 1))
    corrected: Floats = np.where(rows > 0, np.maximum(psi(p, q) - chance, 0.0), 0.0)
    return corrected


def js(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon distance, base 2, from 0 (equal) to 1 (shares that never meet; Lin 1991)."""
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=1)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0).sum(axis=1)
    distance: Floats = np.sqrt(np.clip((left + right) / 2, 0.0, 1.0))
    return distance


def ks(p: Floats, q: Floats, ordered: NDArray[np.bool_]) -> Floats:
    """Largest gap between the cumulative shares; for an unordered feature, the largest change of
    one bin's share.

    `ordered` [features] says which features have an order. Bins without an order of their own
    (missing, outside) come last in the layout, so a rise of missing values shows as a gap too. From
    bins this is a lower bound of the two-sample KS statistic.
    """
    gaps = np.abs(np.cumsum(q - p, axis=1)).max(axis=1)
    largest = np.abs(q - p).max(axis=1)
    distance: Floats = np.where(ordered, gaps, largest)
    return distance


def ks_corrected(distance: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """KS less what chance alone gives, in squares: sqrt(max(0, KS^2 - pi^2/12 (1/n + 1/m))); 0
    without rows.
    """
    chance = KS_NULL_SQUARE * (1.0 / np.maximum(rows, 1) + 1.0 / np.maximum(reference_rows, 1))
    corrected: Floats = np.where(rows > 0, np.sqrt(np.maximum(distance**2 - chance, 0.0)), 0.0)
    return corrected


def wasserstein(p: Floats, q: Floats, edges: Floats) -> Floats:
    """First Wasserstein distance in the feature's own unit: sum over inner bins of |F - G| times
    the bin's width.

    `edges` has shape [features, ordered bins + 1]: the outer limits and the edges between bins, NaN
    where there is no bin. Only ordered bins are given in `p` and `q`; their shares are made to sum
    to one, so that missing values do not count as distance. 0 where there is no width.
    """
    p_inside, q_inside = shares(p), shares(q)
    gap = np.abs(np.cumsum(q_inside - p_inside, axis=1))[:, :-1]
    centres = (edges[:, 1:] + edges[:, :-1]) / 2  # mass sits in the middle of its bin
    steps = np.nan_to_num(np.diff(centres, axis=1), nan=0.0, posinf=0.0, neginf=0.0)
    has_rows = (p.sum(axis=1) > 0) & (q.sum(axis=1) > 0)
    distance: Floats = np.where(has_rows, (gap * steps).sum(axis=1), 0.0)
    return distance


def chi2(p: Floats, counts: NDArray[Any]) -> tuple[Floats, NDArray[np.int64]]:
    """Pearson's statistic n sum (q - p)^2 / p and its degrees of freedom (live bins - 1), each
    [features].
    """
    rows = counts.sum(axis=1)
    q = shares(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, (q - p) ** 2 / p, 0.0)
    statistic: Floats = rows * terms.sum(axis=1)
    return statistic, np.maximum((p > 0).sum(axis=1) - 1, 0).astype(np.int64)
