"""Sums over rows by bin of a score: quantile edges, columns that add, tables that merge.

A bin is closed above: it holds the values greater than the edge before it and at most its own. A
reader must not change that: an edge is a value that was seen, and scores that come in a few
different values keep a bin each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.intp]

BINS: Final = 64
#: Cells of a finder for so many edges, and of mantissa bits the numbers that are tried.
CELLS_PER_EDGE: Final = 32
MANTISSA_BITS: Final = range(4, 16)
#: Fewer edges are quicker searched than looked up.
FINDER_EDGES_MIN: Final = 8


def quantile_edges(values: Floats, bins: int = BINS) -> Floats:
    """At most `bins` - 1 values that cut the rows into bins of about equal size."""
    ordered = np.sort(values)
    distinct = ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered
    if len(distinct) <= bins:
        return np.asarray(distinct[:-1])
    # The least value that has so many rows at or below it (the inverted distribution function).
    ranks = -(-np.arange(1, bins) * len(ordered) // bins) - 1
    edges = ordered[ranks]
    return np.unique(edges[edges < distinct[-1]])


class BinFinder:
    """Finds bins as `BinTable.places` does, exactly and a few times as quick: made once for edges.

    The leading bits of a positive float64 rise with it, so they are the number of a cell; a table
    says how many edges lie in cells before, and a cell with one edge needs one comparison. Values
    in cells with several edges are searched. Where most edges share cells, or one is negative, all
    are.
    """

    def __init__(self, edges: Floats) -> None:
        self._edges = edges
        self._grid = False
        if len(edges) < FINDER_EDGES_MIN or edges[0] < 0.0:
            return
        count = 1 << (CELLS_PER_EDGE * len(edges)).bit_length()
        keys = (edges + 0.0).view(np.int64)
        # The finest cells leave out what is small, the coarsest do not tell near ones apart.
        found = [self._cells(keys, 52 - bits, count) for bits in MANTISSA_BITS]
        sharing = [int(np.count_nonzero(cells[1:] == cells[:-1])) for cells, _ in found]
        best = int(np.argmin(sharing))
        if sharing[best] > len(edges) // 4:
            return
        (cells, self._first), self._shift = found[best], 52 - MANTISSA_BITS[best]
        inside = np.bincount(cells, minlength=int(cells[-1]) + 2)
        self._before: Places = np.asarray(inside.cumsum() - inside, dtype=np.intp)
        self._edge = np.full(len(self._before), np.inf)
        self._edge[cells] = edges
        self._crowded = (inside > 1) if sharing[best] else None
        self._grid = True

    @staticmethod
    def _cells(keys: NDArray[np.int64], shift: int, count: int) -> tuple[NDArray[np.int64], int]:
        """Cells of edges, and the number of the first cell."""
        high = keys >> shift
        first = max(int(high[0]), int(high[-1]) - count + 1)
        return np.maximum(high - first, 0), first

    def places(self, values: Floats) -> Places:
        """The bin of each value; values are finite."""
        if not self._grid:
            return np.searchsorted(self._edges, values, side="left")
        cells = np.ascontiguousarray(values).view(np.int64) >> self._shift
        cells -= self._first
        np.maximum(cells, 0, out=cells)
        np.minimum(cells, len(self._before) - 1, out=cells)
        found: Places = self._before[cells]
        found += values > self._edge[cells]
        if self._crowded is not None:
            rows = np.flatnonzero(self._crowded[cells])
            found[rows] = np.searchsorted(self._edges, values[rows], side="left")
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinTable:
    """Sums by bin of one score.

    `edges` are the [bins - 1] upper ends of all bins but the last, `low` and `high` the least and
    the greatest value seen, `sums` is [bins, columns]; a column is a count or a sum over rows.
    """

    edges: Floats
    low: float
    high: float
    sums: Floats

    @classmethod
    def empty(cls, values: Floats, columns: int, bins: int = BINS) -> Self:
        """No rows yet, with the edges that these values ask for."""
        edges = quantile_edges(values, bins)
        sums = np.zeros((len(edges) + 1, columns))
        return cls(edges=edges, low=math.inf, high=-math.inf, sums=sums)

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    def places(self, values: Floats) -> Places:
        """The bin of each value; values are finite."""
        return np.searchsorted(self.edges, values, side="left")

    def plus(
        self,
        values: Floats,
        column: Places,
        amounts: Floats | None = None,
        *,
        places: Places | None = None,
    ) -> Self:
        """Add one for each row, or its amount, to its column in the bin of its value; `places`
        where they are known.
        """
        columns = self.sums.shape[1]
        flat = (self.places(values) if places is None else places) * columns + column
        added = np.bincount(flat, amounts, minlength=self.sums.size).reshape(self.sums.shape)
        if not len(values):
            return self
        return replace(
            self,
            low=min(self.low, float(values.min())),
            high=max(self.high, float(values.max())),
            sums=self.sums + added,
        )

    def merged(self, other: Self, rows: slice) -> Self:
        """Both, exactly where the edges are the same.

        Else the edges are chosen anew among those of both and rows are taken to lie evenly between
        two edges; `rows` are the columns that count a row once. Raises ValueError for tables with
        other columns.
        """
        if self.sums.shape[1] != other.sums.shape[1]:
            raise ValueError(f"{self.sums.shape[1]} columns and {other.sums.shape[1]}")
        if not other.sums.any():
            return self
        if not self.sums.any():
            return other
        low, high = min(self.low, other.low), max(self.high, other.high)
        if np.array_equal(self.edges, other.edges):
            return replace(self, low=low, high=high, sums=self.sums + other.sums)
        edges = np.union1d(self.edges, other.edges)
        pooled = self._below(edges) + other._below(edges)
        whole = self.sums.sum(axis=0, keepdims=True) + other.sums.sum(axis=0, keepdims=True)
        below = np.concatenate([np.zeros_like(whole), pooled, whole])
        both = replace(self, edges=edges, low=low, high=high, sums=np.diff(below, axis=0))
        return both.coarsened(rows)

    def coarsened(self, rows: slice) -> Self:
        """At most `BINS` bins of about equal size, made of whole bins; `rows` as in `merged`."""
        if self.bins <= BINS or not self.sums.any():
            return self
        below = self.sums.cumsum(axis=0)
        share = below[:, rows].sum(axis=1) / below[-1, rows].sum()
        wanted = np.arange(1, BINS) / BINS
        kept = np.unique(np.abs(share[:-1, None] - wanted).argmin(axis=0))
        ends = np.concatenate([np.zeros((1, below.shape[1])), below[kept], below[-1:]])
        return replace(self, edges=self.edges[kept], sums=np.diff(ends, axis=0))

    def _below(self, limits: Floats) -> Floats:
        """The sums at or below each limit, [limits, columns]."""
        knots = np.concatenate([[min([self.low, *self.edges[:1]])], self.edges, [self.high]])
        cumulated = np.concatenate([np.zeros((1, self.sums.shape[1])), self.sums.cumsum(axis=0)])
        return np.stack([np.interp(limits, knots, column) for column in cumulated.T], axis=1)

    def tree(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "edges": self.edges.tolist(),
            "low": self.low,
            "high": self.high,
            "sums": self.sums.tolist(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], columns: int) -> Self:
        """Read `tree` back. Raises ValueError for what cannot be such a table."""
        try:
            edges = np.asarray(tree["edges"], dtype=np.float64)
            sums = np.asarray(tree["sums"], dtype=np.float64)
            low, high = float(tree["low"]), float(tree["high"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a table of sums by bin: {error!r}") from error
        fits = edges.ndim == 1 and len(edges) < BINS and sums.shape == (len(edges) + 1, columns)
        if not fits or not np.isfinite(sums).all() or not np.isfinite(edges).all():
            raise ValueError(f"{edges.shape} edges and sums of {sums.shape}")
        if (np.diff(edges) <= 0).any() or not low <= high:
            raise ValueError("edges that do not rise")
        return cls(edges=edges, low=low, high=high, sums=sums)
