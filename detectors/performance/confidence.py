"""Intervals that hold at every look at once, so that a figure may be watched row by row.

`betting_interval` is for the mean of outcomes in [0, 1]: it holds the mean that the rows were drawn
with, at all times at once, with probability 95 %, whatever their distribution. A limit is given up
only when somebody who bet against it would have become forty times as rich. Wealth is the mean over
a fixed grid of stakes, so it does not depend on the order of the rows. `asymptotic_half` is for
everything that is a mean in the limit of many rows; it has no guarantee for few of them.

One thing must not break: stakes never depend on an outcome.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024);
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences" (2024); Ville (1939).
"""

import math
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.intervals import Estimate

Floats: TypeAlias = NDArray[np.float64]

ALPHA: Final = 0.05
#: Half of alpha for either side.
LOG_WEALTH: Final = math.log(2.0 / ALPHA)
# Log-spaced, for outcomes of any spread in windows of some tens to some ten thousands of rows.
STAKES: Final = np.geomspace(0.02, 20.0, 12)
# No bet risks more than this part of the wealth.
RISK_MAX: Final = 0.95
TOLERANCE: Final = 1e-5
STEPS_MAX: Final = 60
# Factors of one product: their smallest is 1 - RISK_MAX, so that it stays a number.
FACTORS: Final = 32
ROWS_AT_A_TIME: Final = 4_096
#: Below so many rows there is no asymptotic interval.
ASYMPTOTIC_ROWS_MIN: Final = 30


def betting_interval(outcomes: Floats, counts: Floats | None = None) -> tuple[float, float]:
    """Lower and upper limit of the mean of outcomes in [0, 1], [n]; `counts` says how often each
    occurred (once each without it).

    >>> lower, upper = betting_interval(np.array([1.0, 0.0]), np.array([90.0, 10.0]))
    >>> round(lower, 2), round(upper, 2)
    (0.77, 0.97)
    """
    times = np.ones(len(outcomes)) if counts is None else counts
    if times.sum() <= 0:
        return 0.0, 1.0
    lower = _lower_limit(outcomes, times)
    return lower, 1.0 - _lower_limit(1.0 - outcomes, times)


def share_estimate(hits: float, misses: float) -> Estimate | None:
    """A share of whole rows with its betting interval; None of no rows."""
    rows = hits + misses
    if rows <= 0:
        return None
    lower, upper = betting_interval(np.array([1.0, 0.0]), np.array([hits, misses]))
    return _estimate(hits / rows, lower, upper, round(rows))


def mean_estimate(outcomes: Floats, *, most: float) -> Estimate | None:
    """The mean of outcomes in [0, most] with its betting interval; None of no rows."""
    if not len(outcomes):
        return None
    lower, upper = betting_interval(np.clip(outcomes / most, 0.0, 1.0))
    return _estimate(float(outcomes.mean()), lower * most, upper * most, len(outcomes))


def _estimate(value: float, lower: float, upper: float, rows: int) -> Estimate:
    return Estimate(
        value=value, lower=min(lower, value), upper=max(upper, value), rows=rows, kind="betting"
    )


def _lower_limit(outcomes: Floats, times: Floats) -> float:
    """The least mean that nobody got rich by betting the truth is above it.

    Wealth falls as the mean that is bet against rises, and at the outcomes' own mean nobody won.
    """
    low, high = 0.0, float(outcomes @ times / times.sum())
    gain_low = _gain(low, outcomes, times)
    if gain_low <= 0.0 or high <= 0.0:
        return 0.0
    gain_high = _gain(high, outcomes, times)
    for step in range(STEPS_MAX):
        if high - low <= TOLERANCE:
            break
        # By the chord, every third time by halves: the curve may be steep on one side.
        part = gain_low / (gain_low - gain_high) if step % 3 else 0.5
        middle = low + (high - low) * min(max(part, 0.01), 0.99)
        gain = _gain(middle, outcomes, times)
        if gain > 0.0:
            low, gain_low = middle, gain
        else:
            high, gain_high = middle, gain
    return low


def _gain(mean: float, outcomes: Floats, times: Floats) -> float:
    """Log-wealth of betting that the truth is above `mean`, less what it takes to believe it."""
    stakes = STAKES if mean <= 0.0 else np.minimum(STAKES, RISK_MAX / mean)
    if len(outcomes) <= FACTORS:
        wealth = np.log1p(stakes[:, None] * (outcomes - mean)) @ times
    else:
        wealth = np.zeros(len(stakes))
        for start in range(0, len(outcomes), ROWS_AT_A_TIME):
            wealth += _log_products(stakes, outcomes[start : start + ROWS_AT_A_TIME] - mean)
    top = float(wealth.max())
    return top + math.log(float(np.exp(wealth - top).mean())) - LOG_WEALTH


def _log_products(stakes: Floats, gains: Floats) -> Floats:
    """Sums of log(1 + stake x gain) by stake: logarithms of products, for logarithms are dear."""
    whole = np.zeros(-(-len(gains) // FACTORS) * FACTORS)
    whole[: len(gains)] = gains
    factors = whole.reshape(FACTORS, -1)
    products = np.ones((len(stakes), factors.shape[1]))
    for row in factors:
        products *= 1.0 + stakes[:, None] * row
    return np.asarray(np.log(products).sum(axis=1))


def asymptotic_half(variance: float, rows: float, *, tuned_rows: float) -> float:
    """Half the width of the sequence of intervals around a mean of `rows` rows (what they are worth
    when weighted) whose estimated variance is `variance`; narrowest at about `tuned_rows`.
    """
    doubled = -2.0 * math.log(ALPHA)
    scale = rows * (doubled + math.log(doubled + 1.0)) / tuned_rows
    width = 2.0 * (scale + 1.0) / scale * math.log(math.sqrt(scale + 1.0) / ALPHA)
    return math.sqrt(max(variance, 0.0) * width)


def asymptotic_estimate(
    value: float,
    variance: float,
    *,
    rows: int,
    worth: float,
    tuned_rows: float,
    most: float = math.inf,
) -> Estimate:
    """A figure between 0 and `most` with its asymptotic interval; none for few rows."""
    if worth < ASYMPTOTIC_ROWS_MIN:
        return Estimate(value=value, lower=math.nan, upper=math.nan, rows=rows, kind="none")
    half = asymptotic_half(variance, worth, tuned_rows=tuned_rows)
    lower, upper = max(0.0, value - half), min(most, value + half)
    return Estimate(value=value, lower=lower, upper=upper, rows=rows, kind="asymptotic")
