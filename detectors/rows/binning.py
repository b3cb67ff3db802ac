"""Rows to counts: every feature has the same 18 bins (see `bins`), so that counts of all features
are one array [features, 18].

Numeric features are binned all at once on a uniform grid of 1,024 cells whose lines include the bin
edges; the edges were snapped to grid lines when the reference was made, in the same float32
arithmetic, so counting is exact and not approximate: bin b holds edges[b-1] < x <= edges[b]. Cell 0
takes NaN, cells 1 and 1023 what lies off the grid. A feature whose edges would share a cell, or
whose values need more than float32, is sorted instead; so are all where numpy sorts quicker than
the grid counts (see `sorted_counts`). Values are cast to float32 once, before
binning; comparing an uncast value with an edge would disagree at the edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import (
    BINS,
    CELLS,
    MISSING,
    OUTSIDE,
    WIDTH,
    Bins,
    CategoryBins,
    NumericBins,
    fit_numeric,
    numeric_counts,
    widened,
)
from detectors.rows.columns import Column, digest_of, key_counts, numbers
from detectors.rows.sorted_counts import QUICK, SortedCounts

__all__ = [
    "BINS", "CELLS", "HOUR_S", "MISSING", "OUTSIDE", "WIDTH", "Binner", "Bins", "CategoryBins",
    "Counts", "NumericBins", "count_sorted", "fit_numeric", "numeric_counts", "parts_of", "widened",
]  # fmt: skip

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

HOUR_S: Final = 3_600.0

_SLICE_VALUES: Final = 65_536  # what one pass works on: small enough for the second-level cache
_GROUP_FEATURES: Final = 32


class Binner:
    """Counts rows into the bins of a fixed list of features. Holds no rows and no state but scratch
    space.
    """

    def __init__(self, features: Sequence[tuple[str, Bins]], *, sorting: bool = QUICK) -> None:
        self.names = [name for name, _ in features]
        self._bins = dict(features)
        bins = [bins for _, bins in features]
        numeric = [(i, b) for i, b in enumerate(bins) if isinstance(b, NumericBins)]
        steady = [(i, b) for i, b in numeric if not b.phases]
        self._seasonal = Seasonal([(i, self.names[i], b) for i, b in numeric if b.phases])
        self._grid = [i for i, b in steady if b.lines]
        self._plain = [(i, b) for i, b in steady if not b.lines]
        self._categories = [
            (i, _Categories(b)) for i, b in enumerate(bins) if isinstance(b, CategoryBins)
        ]
        grid_bins = [b for _, b in steady if b.lines]
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
        self._sorted = SortedCounts(grid_bins) if sorting else None

    def bins_of(self, name: str) -> Bins:
        """Give the bins of one feature."""
        return self._bins[name]

    def count(
        self, columns: Mapping[str, Column], rows: int, times: Floats | None = None
    ) -> Counts:
        """Count columns of `rows` rows: [features, 18]; a feature whose column is absent has all
        counts 0.

        `times` [rows], Unix seconds, say which edges a row of a seasonal feature is counted with;
        without a finite time it is not counted there: edges of another hour would call the season
        a drift.
        """
        counts = np.zeros((len(self.names), WIDTH), dtype=np.int64)
        if not rows:
            return counts
        present = [(g, i) for g, i in enumerate(self._grid) if self.names[i] in columns]
        if self._sorted is not None and present:
            places, features = zip(*present, strict=True)
            arrays = [numbers(columns[self.names[i]]) for i in features]
            counts[list(features)] = self._sorted.count(places, arrays)
            present = []
        for start in range(0, len(present), _GROUP_FEATURES):
            self._count_grid(columns, rows, present[start : start + _GROUP_FEATURES], counts)
        for i, bins in self._plain:
            if self.names[i] in columns:
                counts[i] = count_sorted(numbers(columns[self.names[i]]), bins)
        for i, categories in self._categories:
            if self.names[i] in columns:
                counts[i] = categories.count(columns[self.names[i]])
        if times is not None and self._seasonal.cycles:
            self._seasonal.count(columns, times, counts)
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


class Seasonal:
    """Counts features whose edges differ with the hour: the rows of each part of a cycle with a
    binner of its own, made when that part first comes. Usually a tick lies in one part.
    """

    def __init__(self, features: Sequence[tuple[int, str, NumericBins]]) -> None:
        self.cycles = sorted({len(bins.phases) for _, _, bins in features})
        self._features = {
            parts: [(i, name, bins) for i, name, bins in features if len(bins.phases) == parts]
            for parts in self.cycles
        }
        self._binners: dict[tuple[int, int], Binner] = {}  # one per part at most

    def count(self, columns: Mapping[str, Column], times: Floats, counts: Counts) -> None:
        """Add the counts of the seasonal features to `counts` [features, 18]."""
        known = np.isfinite(times)
        for parts, features in self._features.items():
            held = {name: columns[name] for _, name, _ in features if name in columns}
            places = parts_of(times, parts)
            for place in np.unique(places[known]).tolist():
                rows = known & (places == place)
                part = held
                if not rows.all():
                    part = {name: column[rows] for name, column in held.items()}
                binner = self._binner(parts, place)
                found = binner.count(part, int(np.count_nonzero(rows)))
                counts[[i for i, _, _ in features]] += found

    def _binner(self, parts: int, place: int) -> Binner:
        key = (parts, place)
        if key not in self._binners:
            features = self._features[parts]
            self._binners[key] = Binner([(name, bins.phases[place]) for _, name, bins in features])
        return self._binners[key]


def parts_of(times: Floats, parts: int) -> NDArray[np.int64]:
    """Give the part of its day (of 24 or 96) or week (of 168 or 672) that each Unix time is in; any
    for no finite time.

    >>> parts_of(np.array([0.0, 3_600.0, 90_000.0]), 24).tolist()
    [0, 1, 1]
    """
    period_s = 24 * HOUR_S if parts in (24, 96) else 168 * HOUR_S
    finite = np.where(np.isfinite(times), times, 0.0)
    places: NDArray[np.int64] = np.mod(np.floor(finite / period_s * parts), parts).astype(np.int64)
    return places


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
