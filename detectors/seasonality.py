"""Seasons: the edges of every hour of a day or week, so that an hour is compared with its own past.

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

from detectors.binning import HOUR_S, hours_of
from detectors.bins import BINS, NumericBins, fit_edges, widened
from detectors.calibration import TOLERANCE, WANDER_FACTOR, slack
from detectors.columns import Table, as_table, guess_kind, numbers
from detectors.sketch import QuantileSketch, weighted_points

Floats = NDArray[np.float64]

DAY, WEEK = 24, 168
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
    """Bins of a feature for each hour of a cycle; `rows` of the hour that had fewest."""

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
        hours = hours_of(times, self._cycle)[known]
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
            seasons = [self._season(sketches, cycle) for cycle in cycles]
            kept = tuple(season for season in seasons if season is not None)
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

    def _season(self, sketches: Sequence[QuantileSketch], cycle: int) -> Season | None:
        if cycle < len(sketches):
            cells = [weighted_points(sketches[hour::cycle]) for hour in range(cycle)]
        else:
            cells = [weighted_points([sketch]) for sketch in sketches]
        whole = weighted_points(sketches)
        rows = np.array([sum(cell.weights) for cell in cells])
        seen = rows[rows > 0]
        if not len(seen) or (cycle == WEEK and seen.min() < CELL_ROWS_MIN):
            return None
        shares = np.arange(1, BINS) / BINS
        pooled = whole.quantiles(shares)
        phases = []
        for cell, count in zip(cells, rows.tolist(), strict=True):
            weight = min(count / CELL_ROWS_MIN, 1.0)
            own = cell.quantiles(shares) if count else pooled
            edges = pooled + (own - pooled) * weight
            if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
                return None  # few different values: they are told apart one by one, not by rank
            grid = cell if count >= CELL_ROWS_MIN else whole
            phases.append(widened(fit_edges(edges, grid, (whole.values[0], whole.values[-1]))))
        if any(len(phase.edges) != BINS - 1 for phase in phases):
            return None
        return Season(phases=tuple(phases), rows=max(float(seen.min()), CELL_ROWS_MIN))


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
