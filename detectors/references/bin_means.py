"""What the model said, and how wrong it was, by bin of each feature: what a drift is weighed with.

Means over reference rows, [features, 18]: of the model's number (the score of the positive class,
or a regression's prediction) and of its loss (1 where a labelled row was wrong and 0 where right;
the absolute error of a regression). Constant memory; parts add. The first 65,536 rows are taken
whole, of later ones every sixteenth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import WIDTH, Bins
from detectors.rows.columns import Column
from detectors.rows.places import places

Floats = NDArray[np.float64]

WHOLE_ROWS: Final = 65_536
THINNED: Final = 16
#: Losses and scores beyond this count as this, so that one row never decides a mean.
VALUE_MAX: Final = 1e12
QUANTITIES: Final = ("score", "loss")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinMeans:
    """Sums by bin: `sums` [2, features, 18, 3] are rows, sum and sum of squares of the score and of
    the loss, in that order.
    """

    names: tuple[str, ...]
    sums: Floats

    def rows(self, quantity: str) -> Floats:
        """Give the rows of each bin that had a score or a loss, [features, 18]."""
        rows: Floats = self.sums[QUANTITIES.index(quantity), :, :, 0]
        return rows

    def means(self, quantity: str) -> Floats:
        """Give each bin's mean, [features, 18]; NaN where there were no rows."""
        rows, total = self.rows(quantity), self.sums[QUANTITIES.index(quantity), :, :, 1]
        means: Floats = np.where(rows > 0, total / np.maximum(rows, 1.0), np.nan)
        return means

    def variances(self, quantity: str) -> Floats:
        """Give the variance over all rows, [features]."""
        rows, total, squares = np.moveaxis(self.sums[QUANTITIES.index(quantity)].sum(axis=1), 1, 0)
        mean = total / np.maximum(rows, 1.0)
        variances: Floats = np.maximum(squares / np.maximum(rows, 1.0) - mean**2, 0.0)
        return variances

    def merged(self, other: "BinMeans") -> "BinMeans":
        """Add another part with the same bins. Raises ValueError for other features."""
        if self.names != other.names:
            raise ValueError("means of other features do not add")
        return BinMeans(names=self.names, sums=self.sums + other.sums)

    def tree(self) -> dict[str, Any]:
        """Give JSON values."""
        return {"names": list(self.names), "sums": self.sums.tolist()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "BinMeans":
        """Read them back. Raises ValueError or KeyError for what is malformed."""
        names = tuple(str(name) for name in tree["names"])
        sums = np.array(tree["sums"], dtype=np.float64)
        if sums.shape != (2, len(names), WIDTH, 3) or not np.isfinite(sums).all():
            raise ValueError(f"means of shape {sums.shape}, expected (2, {len(names)}, {WIDTH}, 3)")
        return cls(names=names, sums=sums)


class BinMeansBuilder:
    """Takes reference rows chunk by chunk, in the bins of `features`, by name."""

    def __init__(self, features: Sequence[tuple[str, Bins]]) -> None:
        self._features = tuple(features)
        self._sums = np.zeros((2, len(self._features), WIDTH, 3))
        self._seen = 0

    def update(
        self, columns: Mapping[str, Column], score: Floats | None, loss: Floats | None
    ) -> None:
        """Take a chunk: score and loss [rows], NaN or None where unknown. Raises ValueError for
        arrays of different lengths.
        """
        values = [q for q in (score, loss) if q is not None]
        if not values:
            return
        rows = len(values[0])
        step = 1 if self._seen < WHOLE_ROWS else THINNED
        self._seen += rows
        for j, (name, bins) in enumerate(self._features):
            column = columns.get(name)
            if column is None:
                continue
            if len(column) != rows:
                raise ValueError(f"{len(column)} rows of a column for {rows} scores or losses")
            place = places(column[::step], bins)
            for k, quantity in enumerate((score, loss)):
                if quantity is not None:
                    self._add(self._sums[k, j], place, np.asarray(quantity, np.float64)[::step])

    @staticmethod
    def _add(sums: Floats, place: NDArray[np.int64], values: Floats) -> None:
        known = np.isfinite(values)
        bins, held = place[known], np.clip(values[known], -VALUE_MAX, VALUE_MAX)
        for power in range(3):
            sums[:, power] += np.bincount(bins, held**power, WIDTH)

    def finish(
        self, moved: Mapping[str, NDArray[np.int64] | None] | None = None
    ) -> BinMeans | None:
        """Give the means so far; None if there was neither a score nor a loss.

        `moved` gives, for a feature whose final bins stand in another order, each bin's final
        place; None if its bins could not be kept: it then has no means.
        """
        if not self._sums[:, :, :, 0].any():
            return None
        sums = self._sums.copy()
        for j, (name, _) in enumerate(self._features):
            if moved is not None and name in moved:
                sums[:, j] = 0.0
                final = moved[name]
                places_now = [] if final is None else final.tolist()
                for b, place in enumerate(places_now):
                    sums[:, j, place] += self._sums[:, j, b]
        return BinMeans(names=tuple(name for name, _ in self._features), sums=sums)
