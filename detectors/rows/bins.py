"""The 18 bins of a feature: where its edges lie, what is outside, and how they are chosen.

Layout of a feature's bins: 0 to 15 hold values, 16 (`MISSING`) what was missing, 17 (`OUTSIDE`)
numbers far outside the reference and categories it never saw. Ordered bins that a feature does not
use stay empty.

Edges are snapped to the lines of a uniform grid of 1,024 cells when they are chosen, in the very
float32 arithmetic that counting uses (see `binning`): that is what makes counting exact. Whoever
changes one changes both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.sketch import Points

BINS: Final = 16
MISSING: Final = 16
OUTSIDE: Final = 17
WIDTH: Final = 18
CELLS: Final = 1_024

#: Values beyond the reference's range by more than this share of it are outside.
RANGE_SLACK: Final = 0.05

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_GRID_RANGES: Final = ((0.001, 0.999), (0.001, 0.97), (0.03, 0.97), (0.06, 0.94))


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericBins:
    """Edges between a feature's bins, the limits beyond which a value is outside, and its grid if
    it has one.

    `lines` are the grid lines of the edges (empty: no grid, sort instead); cell of x = floor(x *
    scale + offset). `low` > `high` means that no value is inside (a column that was all missing).
    `phases` are the bins of each part of a cycle, whole hours or quarters of a day (24, 96) or of a
    week (168, 672; it begins on Thursday, like Unix time, UTC); empty for a feature without
    seasons. Rows are then counted with the edges of their own part, and these edges are those of
    all parts together, for people.
    """

    edges: tuple[float, ...]
    low: float
    high: float
    lines: tuple[int, ...] = ()
    scale: float = 0.0
    offset: float = 0.0
    phases: tuple[NumericBins, ...] = ()


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
    return fit_edges(edges, points, (low, high))


def fit_edges(
    edges: NDArray[np.float64], points: Points, limits: tuple[float, float]
) -> NumericBins:
    """Give bins with these edges, which rise: snapped to a grid over `points`, where there can be
    one. Beyond `limits` a value is outside.
    """
    values = np.array(points.values)
    for low_share, high_share in _GRID_RANGES:
        snapped = _snap(edges, values, _grid_range(points, low_share, high_share), limits)
        if snapped is not None:
            return snapped
    return NumericBins(edges=tuple(edges.tolist()), low=limits[0], high=limits[1])


def widened(bins: NumericBins) -> NumericBins:
    """Give the same bins with every finite number inside: what is outside is known at the end."""
    most = FLOAT32_MAX if bins.lines else float(np.finfo(np.float64).max)
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
    if not (last > first and largest < FLOAT32_MAX / 4):
        return None
    with np.errstate(over="ignore", under="ignore"):
        scale = np.float32((CELLS - 3) / (last - first))
        offset = np.float32(2.0 - first * float(scale))
    tiny = float(np.finfo(np.float32).tiny)
    if not (tiny < scale < FLOAT32_MAX and np.isfinite(offset)):
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
        low=max(float(np.float32(limits[0])), -FLOAT32_MAX),
        high=min(float(np.float32(limits[1])), FLOAT32_MAX),
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
        most = int(_order(np.array([FLOAT32_MAX], dtype=np.float32))[0])
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


def numeric_counts(points: Points, bins: NumericBins) -> NDArray[np.float64]:
    """Give the weight of a frozen sketch in each bin, [18], where the rows themselves are gone."""
    counts = np.zeros(WIDTH)
    if points.values:
        upto = points.at_most(np.array(bins.edges))
        counts[: len(bins.edges) + 1] = np.diff(
            np.concatenate(([0.0], upto, [sum(points.weights)]))
        )
    return counts
