"""How far an unchanged feature wanders by itself: measured on the reference, so that wander raises
no alarm.

Real rows come in order and resemble their neighbours. Evidence that takes them for independent
alarms on 91 to 100 % of the ticks of stationary weather, electricity and bicycle data. Two figures
per feature repair that, from means of standardised scores over blocks of successive reference rows:

- `phi`, the design effect: how much more successive blocks differ than independent rows would (Rao
  and Scott 1981). Evidence is divided by it, and so is the size of the reference.
- `tolerance`: how far block means stray beyond what `phi` explains, added to the tolerance all
  features have.

Both cost power on exactly the features that wander; `DriftDetector.detectable_shift` says how much,
and must be shown to the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: A shift of the mean below this many standard deviations is declared irrelevant.
TOLERANCE: Final = 0.02

#: The smallest alternative of the evidence, in the same unit.
TILT_MIN: Final = 0.07

#: What is granted of the wander that the reference showed. Of real rows permuted in blocks (car
#: loans, 1,000 rows a tick) 1.0 lets 5 % of the ticks alarm, 1.5 none of 330.
WANDER_FACTOR: Final = 1.5

#: Standard errors of the reference that are granted to the null hypothesis.
REFERENCE_ERRORS: Final = 3.0

_CHI2_MEDIAN: Final = 0.4549  # of one degree of freedom
_CAP: Final = 6.0  # squared differences count as at most this many times their typical size
_CAPPED_MEAN: Final = 0.974  # of chi-squared(1) values so capped
_CAPPED_ERROR: Final = 1.61  # its standard error over successive differences, times sqrt(n)
_LEVELS_ALLOWANCE: Final = 0.5  # standard errors more, for the worst of several block sizes
_QUANTILE_ERROR: Final = (
    1.86  # standard error of the 95 % quantile of n absolute normal values, times sqrt(n)
)
_DISPERSION_BLOCKS_MIN: Final = 12
_WANDER_BLOCKS_MIN: Final = 4


def calibrate(
    blocks: NDArray[Any],
    block_rows: int,
    tick_rows: int,
    scores: Floats,
    *,
    ticks: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """Give (phi, tolerance) of one feature.

    `blocks` [n, bins] are counts of successive blocks of about `block_rows` rows; `scores` [h,
    bins] are functions on the bins, of mean zero and variance one over the blocks. Blocks are added
    up to about `tick_rows`, 4 and 16 times that, and to the largest size that leaves 16 blocks; the
    worst size counts. Too few blocks give (1, TOLERANCE). `ticks` [n, bins] are counts of single
    ticks from all over a reference so long that its blocks hold many ticks each.
    """
    phi, stray = 1.0, 0.0
    if len(scores) == 0:
        return phi, TOLERANCE
    for factor in _factors(len(blocks), block_rows, tick_rows, _DISPERSION_BLOCKS_MIN):
        means, rows = _means(blocks, factor, scores)
        phi = max(phi, _dispersion(means, rows))
    for factor in _factors(len(blocks), block_rows, tick_rows, _WANDER_BLOCKS_MIN):
        if factor * block_rows >= tick_rows / 2:  # shorter wander averages out within a tick
            means, rows = _means(blocks, factor, scores)
            stray = max(stray, _excess(np.abs(means), phi, rows))
    if ticks is not None and len(ticks) >= _WANDER_BLOCKS_MIN:
        means, rows = _means(ticks, 1, scores)
        stray = max(stray, _excess(np.abs(means), phi, rows))
    return phi, TOLERANCE + stray


def wander(tolerance: float) -> float:
    """Give the wander granted to live rows beyond the tolerance all features have: half as much
    again as a few blocks of the reference showed, for live rows have longer to stray in.
    """
    return WANDER_FACTOR * max(tolerance - TOLERANCE, 0.0)


def slack(tolerance: float, rows: float) -> float:
    """Give how far from the reference the null hypothesis reaches, in standard deviations of a
    score; `rows` are independent ones.

    The reference's own error and the irrelevant wander of live rows have nothing to do with each
    other, so they add in squares; wander that was measured on the reference is added whole.
    """
    error = REFERENCE_ERRORS / float(np.sqrt(max(rows, 1.0)))
    return wander(tolerance) + float(np.hypot(TOLERANCE, error))


def detectable_shift(tolerance: float, phi: float, rows: float) -> float:
    """Give the smallest shift, in standard deviations, that evidence can ever find: half of the
    smallest tilt beyond the null hypothesis. Below that even the right alternative loses.
    """
    return slack(tolerance, rows / phi) + TILT_MIN / 2


def significant(value: float) -> float:
    """Give four significant digits of a figure that came out of a matrix product.

    Processors differ in the last bits of such products: with them the digest of a reference would
    depend on where it was made.
    """
    return float(f"{value:.4g}")


def block_scores(cosines: Floats, p: Floats, singles: Sequence[int]) -> Floats:
    """Give the scores to calibrate on, [h, bins]: the cosines, and standardised indicators of
    single bins.
    """
    rows = [row - row @ p for row in cosines]
    for b in singles:
        indicator = -np.full(len(p), p[b])
        indicator[b] += 1.0
        rows.append(indicator)
    spreads = [float(np.sqrt((row**2) @ p)) for row in rows]
    kept = [row / spread for row, spread in zip(rows, spreads, strict=True) if spread > 1e-9]
    return np.array(kept) if kept else np.empty((0, len(p)))


def _factors(blocks: int, block_rows: int, tick_rows: int, least: int) -> list[int]:
    wanted = {1, max(1, blocks // 16)}
    wanted |= {max(1, round(tick_rows * times / block_rows)) for times in (1, 4, 16)}
    return sorted(factor for factor in wanted if blocks // factor >= least)


def _means(blocks: NDArray[Any], factor: int, scores: Floats) -> tuple[Floats, float]:
    """Sum `factor` neighbouring blocks each; give score means [blocks, h] and typical rows."""
    whole = len(blocks) // factor * factor
    summed = blocks[:whole].reshape(-1, factor, blocks.shape[1]).sum(axis=1).astype(np.float64)
    rows = np.maximum(summed.sum(axis=1), 1.0)
    return (summed @ scores.T) / rows[:, None], float(np.median(rows))


def _dispersion(means: Floats, rows: float) -> float:
    """Design effect from successive differences; a median, so that a few steps within the reference
    do not count.

    The largest of h noisy medians is too large by its noise, which is divided out: independent rows
    then give 1.
    """
    squares = np.diff(means, axis=0) ** 2
    typical = np.median(squares, axis=0) / _CHI2_MEDIAN
    capped = np.minimum(squares, _CAP * typical).mean(axis=0) / _CAPPED_MEAN
    estimates = capped / 2 * rows
    looked_at = _largest_of(means.shape[1]) + _LEVELS_ALLOWANCE
    noise = np.exp(_CAPPED_ERROR / np.sqrt(len(squares)) * looked_at)
    return float(estimates.max() / noise)


def _excess(means: Floats, phi: float, rows: float) -> float:
    """How far block means stray beyond what independent blocks would: the 95 % quantile, the
    maximum below 40 blocks.

    The limit is that of the largest of as many normal values as were looked at, not of one value.
    """
    blocks, scores = means.shape
    if blocks < 40:
        stray, looked_at = float(means.max()), blocks * scores
        limit = NormalDist().inv_cdf(1 - 0.05 / (2 * looked_at))
    else:
        stray = float(np.quantile(means, 0.95, axis=0).max())
        limit = 1.96 + _QUANTILE_ERROR / np.sqrt(blocks) * _largest_of(scores)
    return max(0.0, stray - limit * float(np.sqrt(phi / rows)))


def _largest_of(count: int) -> float:
    """Give roughly the mean of the largest of `count` standard normal values (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
