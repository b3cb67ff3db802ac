"""Constant memory for any number of rows: quantiles of a numeric column, counts of a categorical
one.

A `QuantileSketch` holds levels of sorted values; a full level is sorted and every other value moves
up with twice the weight (Munro and Paterson 1980; Karnin, Lang, Liberty 2016). With capacity k the
rank error is at most log2(n / k) / k of n, and because the kept half alternates, in practice some
thirty times less. `Points` is its frozen form: at most 256 weighted values, which merge with the
points of another part at a further rank error of at most 1 / 512 each. Up to 256 different values
are kept exactly.

A `KeyTable` counts category keys exactly up to a capacity; beyond it the smallest counts are
dropped (Misra and Gries 1982): each count is then too small by at most rows / capacity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POINTS_MAX: Final = 256
KEYS_MAX: Final = 1_000
_LEVEL_VALUES_MAX: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """A column's distribution as sorted values with weights; the weights sum to the finite rows
    seen.
    """

    values: tuple[float, ...]
    weights: tuple[float, ...]
    exact: bool

    def quantile(self, share: float) -> float:
        """Give the smallest value with at least `share` of the weight at or below it; NaN if there
        is none.
        """
        return float(self.quantiles(np.array([share]))[0])

    def quantiles(self, shares: Floats) -> Floats:
        """Give the quantile of each share; NaN if there are no values."""
        if not self.values:
            return np.full(len(shares), np.nan)
        ranks = np.cumsum(self.weights)
        positions = np.searchsorted(ranks, shares * ranks[-1] - 1e-9)
        found: Floats = np.array(self.values)[np.minimum(positions, len(self.values) - 1)]
        return found

    def at_most(self, limits: Floats) -> Floats:
        """Give the weight at or below each limit."""
        ranks = np.concatenate(([0.0], np.cumsum(self.weights)))
        below: Floats = ranks[np.searchsorted(np.array(self.values), limits, side="right")]
        return below

    def merged(self, other: Points) -> Points:
        """Add another part: the result is the same whichever part comes first."""
        values = np.array(self.values + other.values)
        weights = np.array(self.weights + other.weights)
        return _thin(values, weights, exact=self.exact and other.exact)


class QuantileSketch:
    """Quantiles of finite values in at most some 512 values per doubling of the rows.

    `level_values` makes the levels smaller, and the rank error larger; different values are then
    not counted exactly.
    """

    def __init__(self, *, level_values: int | None = None) -> None:
        self._level_values = _LEVEL_VALUES_MAX if level_values is None else level_values
        self._levels: list[Floats] = [np.empty(0)]
        self._keep_odd: list[int] = [0]
        self._distinct: dict[float, int] | None = {} if level_values is None else None

    def update(self, values: NDArray[Any]) -> None:
        """Add finite values, in any order."""
        if not len(values):
            return
        ordered = np.sort(values.astype(np.float64))
        self._count_distinct(ordered)
        level, carried = 0, ordered
        while len(carried):
            if level == len(self._levels):
                self._levels.append(np.empty(0))
                self._keep_odd.append(0)
            held = np.concatenate((self._levels[level], carried))
            if len(held) <= self._level_values:
                self._levels[level] = held
                return
            held.sort()
            even = len(held) & ~1
            self._levels[level] = held[even:]
            carried = held[self._keep_odd[level] : even : 2]
            self._keep_odd[level] ^= (
                1  # alternating cancels most of the error of always keeping one side
            )
            level += 1

    def points(self) -> Points:
        """Freeze: at most 256 weighted values."""
        if self._distinct is not None:
            values = np.array(sorted(self._distinct))
            return _thin(
                values, np.array([float(self._distinct[v]) for v in values.tolist()]), exact=True
            )
        return weighted_points([self])

    def weighted(self) -> tuple[Floats, Floats]:
        """Give the values held and their weights, [n] each."""
        weights = [np.full(len(level), 2.0**height) for height, level in enumerate(self._levels)]
        return np.concatenate(self._levels), np.concatenate(weights)

    def _count_distinct(self, ordered: Floats) -> None:
        if self._distinct is None:
            return
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        if len(starts) > POINTS_MAX:
            self._distinct = None
            return
        counts = np.diff(np.concatenate((starts, [len(ordered)])))
        for value, count in zip(ordered[starts].tolist(), counts.tolist(), strict=True):
            self._distinct[value] = self._distinct.get(value, 0) + count
        if len(self._distinct) > POINTS_MAX:
            self._distinct = None


def weighted_points(sketches: Sequence[QuantileSketch]) -> Points:
    """Freeze several sketches as the one of all their rows."""
    parts = [sketch.weighted() for sketch in sketches]
    values = np.concatenate([values for values, _ in parts])
    return _thin(values, np.concatenate([weights for _, weights in parts]), exact=False)


def points_of(values: Floats, weights: Floats) -> Points:
    """Freeze weighted values that came from elsewhere, [n] each."""
    return _thin(values, weights, exact=False)


def _thin(values: Floats, weights: Floats, *, exact: bool) -> Points:
    """Sort, add the weights of equal values, and keep at most 256 values, one per equal share of
    the weight.
    """
    # + 0.0 makes -0.0 and 0.0 one value
    distinct, inverse = np.unique(values + 0.0, return_inverse=True)
    total = np.bincount(inverse, weights=weights, minlength=len(distinct)).astype(np.float64)
    if len(distinct) > POINTS_MAX:
        exact = False
        rows = float(total.sum())
        targets = (np.arange(POINTS_MAX) + 0.5) / POINTS_MAX * rows
        picked = np.minimum(np.searchsorted(np.cumsum(total), targets), len(distinct) - 1)
        kept, repeats = np.unique(picked, return_counts=True)
        distinct = distinct[kept]
        total = repeats.astype(np.float64) * (rows / POINTS_MAX)
    return Points(values=tuple(distinct.tolist()), weights=tuple(total.tolist()), exact=exact)


class KeyTable:
    """Counts of category keys (text), exact up to `KEYS_MAX` different ones."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.exact = True

    def update(self, counts: Mapping[str, int]) -> None:
        """Add counted keys."""
        held = self.counts
        for key, count in counts.items():
            held[key] = held.get(key, 0) + count
        self.counts, whole = heaviest(held)
        self.exact &= whole


def heaviest(counts: dict[str, int]) -> tuple[dict[str, int], bool]:
    """Keep at most `KEYS_MAX` keys, Misra-Gries fashion; say whether all were kept."""
    if len(counts) <= KEYS_MAX:
        return counts, True
    cut = sorted(counts.values(), reverse=True)[KEYS_MAX]
    return {key: count - cut for key, count in counts.items() if count > cut}, False


def by_count(counts: Mapping[str, int]) -> list[str]:
    """Order category digests by falling count, equal ones by digest."""
    return sorted(counts, key=lambda digest: (-counts[digest], digest))
