"""The labelled rows that a figure is computed from, and how sure such a figure is.

Where all weights are equal, means of bounded outcomes get a betting interval. Where they differ the
weighted mean is a ratio of two sums, which nobody can bet on without a bound on weights that is
known beforehand: its interval is asymptotic, with the rows that the weights leave (Kish).
"""

from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.confidence import asymptotic_estimate, mean_estimate, share_estimate
from detectors.performance.intervals import Estimate, smooth_variance, without

Floats: TypeAlias = NDArray[np.float64]
Booleans: TypeAlias = NDArray[np.bool_]

#: Weights that differ by less than this part are equal.
SAME: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedRows:
    """Rows of one window: `said` and `true` are codes of classes or numbers, `score` is
    [rows, columns] with NaN for unknown, `weight` is positive; `tuned_rows` is how many rows
    asymptotic intervals are narrowest at.
    """

    said: NDArray[Any]
    true: NDArray[Any]
    score: Floats
    weight: Floats
    tuned_rows: float

    def __len__(self) -> int:
        return len(self.weight)

    def where(self, chosen: Booleans) -> "WeightedRows":
        """Only some of the rows."""
        return WeightedRows(
            said=self.said[chosen],
            true=self.true[chosen],
            score=self.score[chosen],
            weight=self.weight[chosen],
            tuned_rows=self.tuned_rows,
        )

    def with_score(self, score: Floats) -> "WeightedRows":
        """The same rows with other scores."""
        return replace(self, score=score)

    @property
    def equal(self) -> bool:
        """Whether every row stands for as many as every other."""
        least, most = float(self.weight.min()), float(self.weight.max())
        return most - least <= SAME * most

    @property
    def worth(self) -> float:
        """Kish's effective sample size: what weighted rows are worth."""
        return float(self.weight.sum() ** 2 / (self.weight**2).sum())

    def share(self, hits: Booleans) -> Estimate | None:
        """Of the rows those that hit; None of no rows."""
        if not len(self):
            return None
        if self.equal:
            found = int(hits.sum())
            return share_estimate(found, len(self) - found)
        return self.mean(hits.astype(np.float64), most=1.0)

    def mean(self, outcomes: Floats, *, most: float | None = None) -> Estimate | None:
        """Mean of outcomes that are never negative, nor more than `most` if that is known."""
        if not len(self):
            return None
        if most is not None and self.equal:
            return mean_estimate(outcomes, most=most)
        value = float(np.average(outcomes, weights=self.weight))
        # A share of 0 or 1 seen in few rows is not known exactly.
        floor = smooth_variance(self.worth, self.worth) if most == 1.0 else 0.0
        slopes = (outcomes - value) / self.weight.sum()
        return self.figure(value, slopes, most=np.inf if most is None else most, floor=floor)

    def figure(
        self, value: float, slopes: Floats, *, most: float = np.inf, floor: float = 0.0
    ) -> Estimate:
        """Any figure with its slopes, [rows]: by how much one more such row, for one unit of
        weight, moves it. `floor` is the least variance that is believed.
        """
        variance = max(float((self.weight**2 * slopes**2).sum()), floor)
        return asymptotic_estimate(
            value,
            variance,
            rows=len(self),
            worth=self.worth,
            tuned_rows=self.tuned_rows,
            most=most,
        )

    def plain(self, value: float) -> Estimate:
        """A figure that has no interval."""
        return without(value, len(self))
