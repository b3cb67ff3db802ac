"""Seasons: edges for every hour of a day or week, so that an hour is compared with its own past.

A feature that is high at noon and low at night wanders by itself; self-calibration then grants it
that wander and is blind to smaller shifts. Binned with the edges of its own hour it wanders no
more: bins stay uniform, and everything behind them is as before.

Fitting takes a pass of its own over the rows, before they are counted: a small sketch per feature
and hour. What an hour's edges rest on is that hour's rows and not all rows, so the evidence must
allow for their error (`Season.rows`): left out, every tick of an hour that the reference saw
seldom would look like a drift.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.references.calibration import TOLERANCE, WANDER_FACTOR, slack
from detectors.rows.binning import HOUR_S, parts_of
from detectors.rows.bins import BINS, NumericBins, fit_edges, widened
from detectors.rows.columns import Table, as_table, guess_kind, numbers
from detectors.rows.sketch import QuantileSketch, weighted_points

Floats = NDArray[np.float64]

DAY, WEEK, QUARTERS = 24, 168, 4
#: How many parts a cycle may have been cut into, in the order in which they are tried.
PARTS: Final = (DAY * QUARTERS, DAY, WEEK * QUARTERS, WEEK)
CYCLES: Final[Mapping[str, int]] = {"day": DAY, "week": WEEK}
#: An hour of fewer reference rows has edges shrunk towards those of all hours together.
CELL_ROWS_MIN: Final = 300
#: A shorter reference shows a cycle once: nobody knows then whether it comes again.
CYCLES_MIN: Final = 2
#: Of more features than this no hours of a week are kept, and of more than the second no hours.
WEEK_FEATURES_MAX: Final = 64
FEATURES_MAX: Final = 1_024

_QUARTILES: Final = (BINS // 4 - 1, 3 * BINS // 4 - 1)
_LEVEL_VALUES: Final = (
    256  # of a cell: its rank error, .6 % at most, stays below that of so few rows
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """Bins of a feature for each part of a cycle; `rows` of the hour that had fewest.

    A stepped season has one set of edges per hour; a smooth one four, between those of
    neighbouring hours: within an hour that the level rises in, a tick of a minute is no drift.
    """

    phases: tuple[NumericBins, ...]
    rows: float

    def margin(self, phi: float, rows: float) -> float:
        """Give what the tolerance must grow by: each hour is a reference of its own few rows, and
        what the evidence grants must be what it would grant to these.
        """
        own, whole = (slack(TOLERANCE, n / phi) for n in (self.rows, rows))
        return max(own - whole, 0.0) / WANDER_FACTOR

    def spread(self, pooled: NumericBins) -> float:
        """Give how wide an hour is, in widths of all hours together: what a shift is measured in.

        Widths are those between quartiles, whatever the tails are like.
        """
        own = float(np.median([_width(phase) for phase in self.phases]))
        whole = _width(pooled)
        return own / whole if whole > 0 else 1.0


class SeasonFitter:
    """The first pass: what each hour of the week looked like, for every numeric column.

    `kinds` as for the builder; `ignored` columns have no seasons; `wanted` is `auto`, `day` or
    `week`. Raises ValueError for anything else.
    """

    def __init__(
        self,
        *,
        kinds: Mapping[str, str] | None = None,
        ignored: Collection[str] = (),
        wanted: str = "auto",
    ) -> None:
        if wanted not in ("auto", *CYCLES):
            raise ValueError(f"seasons {wanted!r}: known are auto, day, week")
        self._kinds, self._ignored, self._wanted = dict(kinds or {}), frozenset(ignored), wanted
        self._cycle = WEEK
        self._sketches: dict[str, list[QuantileSketch]] | None = None
        self._range = (np.inf, -np.inf)
        self.note = ""  # why no seasons are looked for, in words

    def update(self, columns: Any, times: Floats) -> None:
        """Take rows and their Unix times; rows without a finite time teach nothing.

        Raises TypeError if `columns` is no mapping and no table, ValueError for times of another
        length.
        """
        table = as_table(columns)
        if len(times) != table.rows:
            raise ValueError(f"{len(times)} times for {table.rows} rows")
        known = np.isfinite(times)
        if not known.any():
            return
        if self._sketches is None:
            self._sketches = self._begin(table)
        seen = times[known]
        first, last = self._range
        self._range = (min(first, float(seen.min())), max(last, float(seen.max())))
        hours = parts_of(times, self._cycle)[known]
        order = np.argsort(hours, kind="stable")
        present, starts = np.unique(hours[order], return_index=True)
        for name, sketches in self._sketches.items():
            if name not in table.columns:
                continue
            values = numbers(table.columns[name]).astype(np.float64)[known][order]
            for hour, part in zip(present.tolist(), np.split(values, starts[1:]), strict=True):
                sketches[hour].update(part[np.isfinite(part)])

    def finish(self) -> dict[str, tuple[Season, ...]]:
        """Give the seasons that each column may have; a column without any is left out.

        A week needs a reference of two weeks and 300 rows in each hour that had any, a day one of
        two days. Whether a season is used is decided when rows are counted with it.
        """
        found = {}
        for name, sketches in (self._sketches or {}).items():
            cycles = [cycle for cycle in (DAY, WEEK) if self._fits(cycle)]
            kept = tuple(season for c in cycles for season in self._seasons(sketches, c))
            if kept:
                found[name] = kept
        return found

    def _begin(self, table: Table) -> dict[str, list[QuantileSketch]]:
        names = [
            name
            for name, column in table.columns.items()
            if name not in self._ignored and self._kinds.get(name, guess_kind(column)) == "numeric"
        ]
        if len(names) > WEEK_FEATURES_MAX or self._wanted == "day":
            self._cycle = DAY
        if len(names) > FEATURES_MAX:
            self.note = f"more than {FEATURES_MAX:,} numeric columns: no seasons are looked for"
            return {}
        return {
            name: [QuantileSketch(level_values=_LEVEL_VALUES) for _ in range(self._cycle)]
            for name in names
        }

    def _fits(self, cycle: int) -> bool:
        first, last = self._range
        wanted = self._wanted == "auto" or CYCLES[self._wanted] == cycle
        return wanted and cycle <= self._cycle and last - first >= CYCLES_MIN * cycle * HOUR_S

    def _seasons(self, sketches: Sequence[QuantileSketch], cycle: int) -> list[Season]:
        """Give the smooth and the stepped season, none where edges cannot be told apart."""
        cells = [weighted_points(sketches[hour::cycle]) for hour in range(cycle)]
        whole = weighted_points(sketches)
        rows = np.array([sum(cell.weights) for cell in cells])
        seen = rows[rows > 0]
        if not len(seen) or (cycle == WEEK and seen.min() < CELL_ROWS_MIN):
            return []
        shares = np.arange(1, BINS) / BINS
        pooled = whole.quantiles(shares)
        own = np.array([cell.quantiles(shares) if cell.values else pooled for cell in cells])
        edges = pooled + (own - pooled) * np.minimum(rows / CELL_ROWS_MIN, 1.0)[:, None]
        if not np.isfinite(edges).all() or (np.diff(edges, axis=1) <= 0).any():
            return []  # few different values: they are told apart one by one, not by rank
        fewest = max(float(seen.min()), CELL_ROWS_MIN)
        limits = (whole.values[0], whole.values[-1])
        found = []
        for steps in (_between(edges, rows), edges):
            grids = [cells[hour * cycle // len(steps)] for hour in range(len(steps))]
            phases = tuple(
                widened(fit_edges(step, grid if len(grid.values) > BINS else whole, limits))
                for step, grid in zip(steps, grids, strict=True)
            )
            found.append(Season(phases=phases, rows=fewest))
        return found


def _between(edges: Floats, rows: Floats) -> Floats:
    """Give edges of quarters, [4 hours, 15]: a straight line from the middle of each hour to the
    next. Hours without rows are no neighbours.
    """
    quarters = np.empty((len(edges), QUARTERS, edges.shape[1]))
    for quarter in range(QUARTERS):
        away = (quarter + 0.5) / QUARTERS - 0.5  # from the middle, in hours
        step = 1 if away > 0 else -1
        neighbour, known = np.roll(edges, -step, axis=0), np.roll(rows, -step) > 0
        weight = np.where(known, abs(away), 0.0)[:, None]
        quarters[:, quarter] = edges + (neighbour - edges) * weight
    return quarters.reshape(-1, edges.shape[1])


def _width(bins: NumericBins) -> float:
    return bins.edges[_QUARTILES[1]] - bins.edges[_QUARTILES[0]]


def with_range(phases: Sequence[NumericBins], bins: NumericBins) -> tuple[NumericBins, ...]:
    """Give the phases with the limits of the whole feature, beyond which a value is outside."""
    limits = (float(np.float32(bins.low)), float(np.float32(bins.high)))
    return tuple(
        replace(
            phase,
            low=limits[0] if phase.lines else bins.low,
            high=limits[1] if phase.lines else bins.high,
        )
        for phase in phases
    )


def unix_seconds(times: NDArray[Any]) -> Floats:
    """Give times as Unix seconds: dates (UTC) or numbers; NaN for what is neither.

    >>> unix_seconds(np.array(["1970-01-02"], dtype="datetime64[D]")).tolist()
    [86400.0]
    """
    if times.dtype.kind == "M":
        seconds: Floats = times.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(times), np.nan, seconds)
    if times.dtype.kind in "fiub":
        return times.astype(np.float64)
    return np.full(len(times), np.nan)
