"""Windows of 1,000, 10,000 and 100,000 rows against the reference, at levels that keep the budget.

The evidence of `evidence` grants the null hypothesis three standard errors of the reference and a
tolerance, which makes small shifts slow to find, the more so with a small reference. A comparison
of two samples needs no such grant: each time a quarter of a window is full, the window is compared
with the reference, at the level of the budget that the ticks since the last comparison brought.
The sum over all comparisons of their levels is then the budget spent, whatever depends on what.

What is compared, the levels divided by twice their number: of ordered bins the means of the
cosines (location, scale, skew, shape), of a category its share, and the share of missing values.
For a mean the exponent is that of Bernstein's inequality for draws without replacement from the
pooled rows (Hoeffding 1963; Bardenet and Maillard 2015), for a share that of the likelihood ratio
of two proportions: bounds at any number of rows, also at the levels of 1e-9 asked for here, where
the limits of large samples say nothing.

Kolmogorov and Smirnov's statistic at the same level on the same bins finds a shift a little less
often (.1 sigma in 100,000 rows, 5,000 of reference: .60 of the features, .68 here) and more
variance hardly ever (x1.2 in 10,000 rows, 50,000 of reference: .01, .99 here).

The one thing not to break: never compare at a level that no tick has paid for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.evidence import COSINES, cosine_scores, effective_rows
from detectors.references.calibration import TOLERANCE, wander
from detectors.references.feature_profile import FeatureProfile
from detectors.rows.bins import BINS, MISSING, WIDTH, CategoryBins
from detectors.rows.windows import WINDOW_ROWS

Floats = NDArray[np.float64]

#: Of a detector's budget, what the ladder gets; each of its windows gets the same.
LADDER_SHARE: Final = 1 / 3

#: A window's feature is not compared on fewer rows.
_ROWS_MIN: Final = 50
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One window against the reference, all features: which differ, and by how much, [features].

    `exponent` is -ln of the bound on the chance of such a difference, over `needed` where it is
    believed.
    """

    differs: NDArray[np.bool_]
    exponent: Floats
    needed: Floats


class Ladder:
    """The comparisons of all features of one reference, and the budget saved up for each window."""

    def __init__(self, profiles: Sequence[FeatureProfile]) -> None:
        d = len(profiles)
        self._p = np.array([profile.probabilities() for profile in profiles])
        self._rows = np.array([effective_rows(profile) for profile in profiles])
        self._phi = np.array([profile.phi for profile in profiles])
        self._wander = np.array([wander(profile.tolerance) for profile in profiles])
        self._cosines = np.zeros((d, COSINES, WIDTH))
        self._shares = np.zeros((d, WIDTH), dtype=bool)
        self._tests = np.empty(d)
        for j, profile in enumerate(profiles):
            self._tests[j] = 2 * self._choose(j, profile)
        self._squares = self._cosines**2
        self._peaks = np.abs(self._cosines).max(axis=2)
        spread = np.sqrt(self._p * (1 - self._p))
        # What a share may move without being compared: without end where it never is.
        self._allowed = np.where(self._shares, self._wander[:, None] * spread, np.inf)
        self._tolerated = TOLERANCE * spread
        self.saved = np.zeros(len(WINDOW_ROWS))  # of the budget, since each window's last look

    def _choose(self, j: int, profile: FeatureProfile) -> int:
        """Fill in what is compared of one feature and say how many comparisons that is."""
        self._shares[j, MISSING] = True
        bins = profile.bins
        if isinstance(bins, CategoryBins):
            # The shares of rare and of unseen categories are estimates, not counts. The most
            # frequent categories were chosen for their counts, hence one comparison for each known.
            self._shares[j, : min(len(bins.top), BINS - 1)] = True
            return 1 + len(bins.top) + len(bins.others)
        scores = cosine_scores(self._p[j], int(profile.live()[:BINS].sum()))
        self._cosines[j, : len(scores)] = scores
        return 1 + len(scores)

    def save(self, budget: float) -> None:
        """Take the budget that a tick brings."""
        self.saved += budget / len(WINDOW_ROWS)

    def compare(self, window: int, counts: NDArray[np.int64]) -> Comparison:
        """Look at window number `window`, counts [features, 18], and spend what it had saved."""
        level = max(self.saved[window], 1e-300) / max(len(self._p), 1)
        self.saved[window] = 0.0
        needed = np.log(self._tests / level)
        rows = counts.sum(axis=1)
        n = rows / self._phi
        q = counts / np.maximum(rows, 1)[:, None]
        of_means = self._mean_exponents(q, n, needed)
        of_shares = self._share_exponents(q, n)
        exponent = np.where(n >= _ROWS_MIN, np.maximum(of_means, of_shares), 0.0)
        return Comparison(differs=exponent >= needed, exponent=exponent, needed=needed)

    def smallest_shift(self) -> Floats:
        """Give the shift in standard deviations that the longest window finds every other time, if
        a tick has as many rows as the shortest window, by a budget of one alarm in 43,200 ticks.
        """
        level = WINDOW_ROWS[-1] / WINDOW_ROWS[0] / 43_200 / len(WINDOW_ROWS) * LADDER_SHARE / 4
        n = WINDOW_ROWS[-1] / self._phi
        joint = n * self._rows / (n + self._rows)
        shift = np.sqrt(2 * np.log(self._tests * len(self._p) / level) / joint)
        return np.where(self._peaks[:, 0] > 0, self._wander + np.maximum(shift, TOLERANCE), np.inf)

    def _mean_exponents(self, q: Floats, n: Floats, needed: Floats) -> Floats:
        """The largest exponent of a feature's cosines: n m / (n + m) D^2 / (2 s^2 + 2/3 M D)."""
        means = np.matmul(self._cosines, q[:, :, None])[:, :, 0]
        exponent = np.zeros(len(q))
        # n D^2 / 2 is above the exponent; most features most of the time are settled by it.
        far = n[:, None] * means**2 / 2 >= needed[:, None]
        if not far.any():
            return exponent
        which = far.any(axis=1).nonzero()[0]
        rows = self._rows[which]
        pooled = np.maximum(n[which] + rows, 1)
        joint = n[which] * rows / pooled
        mixed = n[which, None] * q[which] + rows[:, None] * self._p[which]
        mixed /= pooled[:, None]
        square = np.matmul(self._squares[which], mixed[:, :, None])[:, :, 0]
        mean = np.matmul(self._cosines[which], mixed[:, :, None])[:, :, 0]
        variance = np.maximum(square - mean**2, _TINY)
        gap = np.abs(means[which]) - self._wander[which, None]
        size = np.where(gap > TOLERANCE, gap, 0.0)
        peak = self._peaks[which] + np.abs(mean)
        values = joint[:, None] * size**2 / (2 * variance + peak * size * 2 / 3)
        exponent[which] = values.max(axis=1)
        return exponent

    def _share_exponents(self, q: Floats, n: Floats) -> Floats:
        """The largest exponent of a feature's single bins: n KL(q, r) + m KL(p, r), r pooled."""
        excess = np.abs(q - self._p) - self._allowed
        moved = excess > self._tolerated
        exponent = np.zeros(len(q))
        if not moved.any():
            return exponent
        which = moved.any(axis=1).nonzero()[0]
        p, gap = self._p[which], np.where(moved[which], excess[which], 0.0)
        near = np.clip(p + np.sign(q[which] - p) * gap, 0.0, 1.0)
        weight = (self._rows[which] / np.maximum(n[which] + self._rows[which], 1))[:, None]
        r = weight * p + (1 - weight) * near
        values = n[which, None] * _divergence(near, r)
        values += self._rows[which, None] * _divergence(p, r)
        exponent[which] = np.where(gap > 0, values, 0.0).max(axis=1)
        return exponent


def _divergence(a: Floats, b: Floats) -> Floats:
    """Kullback-Leibler divergence of a coin of chance `a` from one of chance `b`, in nats."""
    b = np.clip(b, _TINY, 1 - _TINY)
    a = np.clip(a, _TINY, 1 - _TINY)
    result: Floats = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
    return np.maximum(result, 0.0)
