"""Rows to counts: every feature has the same 18 bins, so that counts of all features are one array
[features, 18].

Layout of a feature's bins: 0 to 15 hold values, 16 (`MISSING`) what was missing, 17 (`OUTSIDE`)
numbers far outside the reference and categories it never saw. Ordered bins that a feature does not
use stay empty.

Numeric features are binned all at once on a uniform grid of 1,024 cells whose lines include the bin
edges; the edges were snapped to grid lines when the reference was made, in the same float32
arithmetic, so counting is exact and not approximate: bin b holds edges[b-1] < x <= edges[b]. Cell 0
takes NaN, cells 1 and 1023 what lies off the grid. A feature whose edges would share a cell, or
whose values need more than float32, is sorted instead. Values are cast to float32 once, before
binning; comparing an uncast value with an edge would disagree at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.columns import Column, digest_of, key_counts, numbers
from detectors.sketch import Points

Counts = NDArray[np.int64]

BINS: Final = 16
MISSING: Final = 16
OUTSIDE: Final = 17
WIDTH: Final = 18
CELLS: Final = 1_024

#: Values beyond the reference's range by more than this share of it are outside.
RANGE_SLACK: Final = 0.05

_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_SLICE_VALUES: Final = 65_536  # what one pass works on: small enough for the second-level cache
_GROUP_FEATURES: Final = 32
_GRID_RANGES: Final = ((0.001, 0.999), (0.001, 0.97), (0.03, 0.97), (0.06, 0.94))


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericBins:
    """Edges between a feature's bins, the limits beyond which a value is outside, and its grid if
    it has one.

    `lines` are the grid lines of the edges (empty: no grid, sort instead); cell of x = floor(x *
    scale + offset). `low` > `high` means that no value is inside (a column that was all missing).
    """

    edges: tuple[float, ...]
    low: float
    high: float
    lines: tuple[int, ...] = ()
    scale: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryBins:
    """Categories by the hash of their key: one bin for each of `top`, the last ordered bin for
    `others`.

    `open` means the categories were too many to keep: whatever is not in `top` counts as other,
    never as unseen.
    """

    top: tuple[str, ...]
    others: frozenset[str]
    open: bool


Bins = NumericBins | CategoryBins


def fit_numeric(points: Points, minimum: float, maximum: float) -> NumericBins:
    """Choose at most 16 bins: one per value if there are so few, else equal shares; edges snapped
    to the grid.

    `minimum` and `maximum` are those of the finite reference values; both NaN if there were none.
    """
    if not points.values:
        return NumericBins(edges=(), low=1.0, high=0.0)
    slack = RANGE_SLACK * (maximum / 2 - minimum / 2) * 2  # halves, for a range may overflow
    low, high = (
        float(np.maximum(minimum - slack, -1e308)),
        float(np.minimum(maximum + slack, 1e308)),
    )
    values = np.array(points.values)
    if points.exact and len(values) <= BINS:
        edges = values[:-1] + (values[1:] / 2 - values[:-1] / 2)
    else:
        shares = np.arange(1, BINS) / BINS
        edges = np.unique(points.quantiles(shares))
        edges = edges[edges < maximum]
    for low_share, high_share in _GRID_RANGES:
        snapped = _snap(edges, values, _grid_range(points, low_share, high_share), (low, high))
        if snapped is not None:
            return snapped
    return NumericBins(edges=tuple(edges.tolist()), low=low, high=high)


def widened(bins: NumericBins) -> NumericBins:
    """Give the same bins with every finite number inside: what is outside is known at the end."""
    most = _FLOAT32_MAX if bins.lines else float(np.finfo(np.float64).max)
    return replace(bins, low=-most, high=most)


def _grid_range(points: Points, low_share: float, high_share: float) -> tuple[float, float]:
    first, last = points.quantiles(np.array([low_share, high_share])).tolist()
    if points.exact and len(points.values) <= BINS:
        first, last = points.values[0], points.values[-1]
    slack = RANGE_SLACK * (last / 2 - first / 2) * 2 or max(abs(first), 1.0) * RANGE_SLACK
    return first - slack, last + slack


def _snap(
    edges: NDArray[np.float64],
    values: NDArray[np.float64],
    span: tuple[float, float],
    limits: tuple[float, float],
) -> NumericBins | None:
    """Move edges to grid lines; None if the grid cannot keep them apart or float32 is too coarse
    for the feature.
    """
    first, last = span
    largest = max(abs(first), abs(last), abs(limits[0]), abs(limits[1]))
    if not (last > first and largest < _FLOAT32_MAX / 4):
        return None
    with np.errstate(over="ignore", under="ignore"):
        scale = np.float32((CELLS - 3) / (last - first))
        offset = np.float32(2.0 - first * float(scale))
    tiny = float(np.finfo(np.float32).tiny)
    if not (tiny < scale < _FLOAT32_MAX and np.isfinite(offset)):
        return None
    if float(np.spacing(np.float32(max(abs(first), abs(last))))) * float(scale) > 0.25:
        return None
    lines = _cells(edges.astype(np.float32), scale, offset) + 1
    if len(np.unique(lines)) < len(lines) or (
        len(lines) and (lines[0] < 3 or lines[-1] > CELLS - 1)
    ):
        return None
    snapped = _last_before(lines, scale, offset)
    if len(values) <= BINS and len(edges) == len(values) - 1:  # one bin per value must stay so
        inside = np.searchsorted(snapped, values.astype(np.float32).astype(np.float64), side="left")
        if not np.array_equal(inside, np.arange(len(values))):
            return None
    return NumericBins(
        edges=tuple(snapped.tolist()),
        low=max(float(np.float32(limits[0])), -_FLOAT32_MAX),
        high=min(float(np.float32(limits[1])), _FLOAT32_MAX),
        lines=tuple(lines.tolist()) or (0,),
        scale=float(scale),
        offset=float(offset),
    )


def _cells(values: NDArray[np.float32], scale: np.float32, offset: np.float32) -> NDArray[np.int64]:
    """Give each value's cell exactly as the hot path does: one float32 product, one float32 sum."""
    positions = np.clip(values * scale + offset, np.float32(1), np.float32(CELLS - 1))
    cells: NDArray[np.int64] = positions.astype(np.int64)
    return cells


def _last_before(
    lines: NDArray[np.int64], scale: np.float32, offset: np.float32
) -> NDArray[np.float64]:
    """Give, for each grid line, the largest float32 in the cells before it, by bisection over the
    float32 numbers.
    """
    with np.errstate(over="ignore"):
        guess = _order(((lines - np.float64(offset)) / np.float64(scale)).astype(np.float32))
        most = int(_order(np.array([_FLOAT32_MAX], dtype=np.float32))[0])
        below, above = np.maximum(guess - 256, -most), np.minimum(guess + 256, most)
        below[
            _cells(_unorder(below), scale, offset) >= lines
        ] = -most  # near 0 the numbers lie dense
        above[_cells(_unorder(above), scale, offset) < lines] = most
        while (above - below > 1).any():
            middle = (below + above) // 2
            before = _cells(_unorder(middle), scale, offset) < lines
            below, above = np.where(before, middle, below), np.where(before, above, middle)
    return _unorder(below).astype(np.float64)


def _order(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number the float32 values in their own order, so that they can be bisected."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _unorder(order: NDArray[np.int64]) -> NDArray[np.float32]:
    magnitude = np.abs(order).astype(np.int32).view(np.float32)
    values: NDArray[np.float32] = np.where(order < 0, -magnitude, magnitude)
    return values


class Binner:
    """Counts rows into the bins of a fixed list of features. Holds no rows and no state but scratch
    space.
    """

    def __init__(self, features: Sequence[tuple[str, Bins]]) -> None:
        self.names = [name for name, _ in features]
        self._bins = dict(features)
        bins = [bins for _, bins in features]
        self._grid = [i for i, b in enumerate(bins) if isinstance(b, NumericBins) and b.lines]
        self._plain = [
            (i, b) for i, b in enumerate(bins) if isinstance(b, NumericBins) and not b.lines
        ]
        self._categories = [
            (i, _Categories(b)) for i, b in enumerate(bins) if isinstance(b, CategoryBins)
        ]
        grid_bins = [b for b in bins if isinstance(b, NumericBins) and b.lines]
        self._scale = np.array([b.scale for b in grid_bins], dtype=np.float32)[:, None]
        self._offset = np.array([b.offset for b in grid_bins], dtype=np.float32)[:, None]
        self._low = np.array([b.low for b in grid_bins], dtype=np.float32)[:, None]
        self._high = np.array([b.high for b in grid_bins], dtype=np.float32)[:, None]
        # Cells up to but not including stops[b] belong to bins 0 to b; unused bins end where the
        # last used one does.
        self._stops = np.full((len(grid_bins), BINS), CELLS, dtype=np.int64)
        for row, b in enumerate(grid_bins):
            self._stops[row, : len(b.edges)] = b.lines[: len(b.edges)]
        self._last = np.array([len(b.edges) for b in grid_bins], dtype=np.int64)
        self._always_outside_check = np.array([b.low == b.high for b in grid_bins], dtype=bool)

    def bins_of(self, name: str) -> Bins:
        """Give the bins of one feature."""
        return self._bins[name]

    def count(self, columns: Mapping[str, Column], rows: int) -> Counts:
        """Count columns of `rows` rows: [features, 18]; a feature whose column is absent has all
        counts 0.
        """
        counts = np.zeros((len(self.names), WIDTH), dtype=np.int64)
        if not rows:
            return counts
        present = [(g, i) for g, i in enumerate(self._grid) if self.names[i] in columns]
        for start in range(0, len(present), _GROUP_FEATURES):
            self._count_grid(columns, rows, present[start : start + _GROUP_FEATURES], counts)
        for i, bins in self._plain:
            if self.names[i] in columns:
                counts[i] = count_sorted(numbers(columns[self.names[i]]), bins)
        for i, categories in self._categories:
            if self.names[i] in columns:
                counts[i] = categories.count(columns[self.names[i]])
        return counts

    def _count_grid(
        self, columns: Mapping[str, Column], rows: int, group: list[tuple[int, int]], counts: Counts
    ) -> None:
        """Count one group of grid features, a cache-sized slice of rows at a time."""
        which = np.array([g for g, _ in group])
        arrays = [numbers(columns[self.names[i]]) for _, i in group]
        step = max(256, _SLICE_VALUES // len(group))
        width = min(step, rows)
        values = np.empty((len(group), width), dtype=np.float32)
        places = np.empty((len(group), width), dtype=np.float32)
        cells = np.empty((len(group), width), dtype=np.int64)
        first_cells = (np.arange(len(group)) * CELLS)[:, None]
        histogram = np.zeros(len(group) * CELLS, dtype=np.int64)
        beyond = np.zeros((2, len(group)), dtype=np.int64)
        scale, offset = self._scale[which], self._offset[which]
        # NaN to an integer is INT_MIN on x86 and 0 on ARM: the maximum makes both cell 0, and the
        # warning is moot.
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            for start in range(0, rows, step):
                n = min(step, rows - start)
                x, q, c = values[:, :n], places[:, :n], cells[:, :n]
                for row, array in enumerate(arrays):
                    x[row] = array[start : start + n]
                np.multiply(x, scale, out=q)
                np.add(q, offset, out=q)
                np.clip(q, np.float32(1), np.float32(CELLS - 1), out=q)
                np.copyto(c, q, casting="unsafe")
                np.maximum(c, 0, out=c)
                np.add(c, first_cells, out=c)
                part = np.bincount(c.reshape(-1), minlength=len(histogram))
                histogram += part
                self._count_beyond(x, part.reshape(len(group), CELLS), which, beyond)
        hits = histogram.reshape(len(group), CELLS)
        features = np.array([i for _, i in group])
        upto = np.cumsum(hits[:, 1:], axis=1)
        bins = np.take_along_axis(upto, self._stops[which] - 2, axis=1)
        counts[features, :BINS] = np.diff(bins, axis=1, prepend=0)
        counts[features, MISSING] = hits[:, 0]
        counts[features, 0] -= beyond[0]
        counts[features, self._last[which]] -= beyond[1]
        counts[features, OUTSIDE] = beyond.sum(axis=0)

    def _count_beyond(
        self, x: NDArray[np.float32], hits: Counts, which: NDArray[np.int64], beyond: Counts
    ) -> None:
        """Compare with the limits, exactly, only features with values off the grid."""
        off = (hits[:, 1] + hits[:, CELLS - 1] > 0) | self._always_outside_check[which]
        for row in np.flatnonzero(off):
            values, low, high = x[row], self._low[which[row], 0], self._high[which[row], 0]
            # the extremes are cheaper than two comparisons, and nearly always settle it
            if np.fmin.reduce(values) < low or np.fmax.reduce(values) > high:
                beyond[0, row] += np.count_nonzero(values < low)
                beyond[1, row] += np.count_nonzero(values > high)


def count_sorted(values: Column, bins: NumericBins) -> Counts:
    """Count one feature without a grid, [18]: sort, then find the edges, in double precision."""
    ordered = np.sort(values.astype(np.float64))  # NaN sorts last
    present = len(ordered) - int(np.count_nonzero(np.isnan(ordered)))
    ordered = ordered[:present]
    counts = np.zeros(WIDTH, dtype=np.int64)
    first, last = (
        np.searchsorted(ordered, bins.low, side="left"),
        np.searchsorted(ordered, bins.high, side="right"),
    )
    inside = ordered[first : max(first, last)]
    upto = np.searchsorted(inside, bins.edges, side="right")
    counts[: len(bins.edges) + 1] = np.diff(np.concatenate(([0], upto, [len(inside)])))
    counts[MISSING] = len(values) - present
    counts[OUTSIDE] = present - len(inside)
    return counts


class _Categories:
    """Counts one categorical feature; remembers the bins of its top keys by name once it has met
    them.
    """

    def __init__(self, bins: CategoryBins) -> None:
        self._bins = bins
        self._place = {digest: place for place, digest in enumerate(bins.top)}
        self._known: dict[str, int] = {}

    def count(self, column: Column) -> Counts:
        counts = np.zeros(WIDTH, dtype=np.int64)
        for key, count in key_counts(column).items():
            counts[MISSING if key is None else self._bin(key)] += count
        return counts

    def _bin(self, key: str) -> int:
        place = self._known.get(key)
        if place is not None:
            return place
        digest = digest_of(key)
        place = self._place.get(digest)
        if place is not None:
            self._known[key] = place  # bounded: only the top keys are remembered
            return place
        return BINS - 1 if self._bins.open or digest in self._bins.others else OUTSIDE


def numeric_counts(points: Points, bins: NumericBins) -> NDArray[np.float64]:
    """Give the weight of a frozen sketch in each bin, [18], where the rows themselves are gone."""
    counts = np.zeros(WIDTH)
    if points.values:
        upto = points.at_most(np.array(bins.edges))
        counts[: len(bins.edges) + 1] = np.diff(
            np.concatenate(([0.0], upto, [sum(points.weights)]))
        )
    return counts


def as_float_counts(counts: Any) -> tuple[float, ...]:
    """Give counts as exact floats for a record."""
    return tuple(float(count) for count in counts)
