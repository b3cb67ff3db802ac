"""Rows that are odd by themselves, whatever the rest of the stream does.

Each feature gives a row a share: how much of the reference is at least as far out. Beyond the 2 %
at either end of a numeric feature that share falls exponentially, through the 2 % quantile and the
largest reference value and on along the same line (of the logarithm, where the feature is so skewed
that its tail is a power); of a missing value or a category it is the share of all that are as rare.
The row's share is its smallest one times the number of features (Bonferroni), which holds whatever
the dependence between features: a score of 3 says that at most about one reference row in 1,000 is
as odd. What is odd only in combination is not seen here (see `derivation`).

This is description, no test: it stands outside the false-alarm budget and gives no readings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.explain import shown
from detectors.reference import FeatureProfile, Reference
from detectors.rows.binning import MISSING, OUTSIDE, Binner, Bins, CategoryBins, NumericBins
from detectors.rows.columns import Column, Table, numbers
from detectors.rows.places import places

Floats = NDArray[np.float64]

#: -log10 of the share of reference rows as odd, from which a row counts as an outlier.
SCORE_MIN: Final = 3.0
SCORE_MAX: Final = 300.0
KEPT_MAX: Final = 32
#: Rows after which an outlier is no longer recent.
RECENT_ROWS: Final = 100_000
TOP: Final = 3
TAIL: Final = 0.02
#: A feature of fewer reference rows has no tail to speak of.
ROWS_MIN: Final = 200
_SKEWED: Final = 20.0  # largest value over median, from which a positive feature's tail is a power
_LN10: Final = math.log(10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OddRow:
    """One outlier: its row since the start, time if known, score, and the features that make it
    so, the oddest first, each with what is odd: low, high, missing, rare or unseen.
    """

    row: int
    at: float | None
    score: float
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tails:
    """-ln(share) of a value x beyond (low, high): base + slope x distance, in logs if `skewed`."""

    low: float
    high: float
    low_slope: float
    high_slope: float
    base: float
    skewed: bool

    def surprise(self, values: Floats) -> Floats:
        """Give -ln of the share of reference values as far out, [rows]; 0 inside, NaN for NaN."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            x = np.log(np.maximum(values, 0.0)) if self.skewed else values
            far = np.maximum((x - self.high) * self.high_slope, (self.low - x) * self.low_slope)
            result: Floats = np.where(far > 0, self.base + far, np.where(np.isnan(x), np.nan, 0.0))
        return result

    def reach(self, needed: float) -> tuple[float, float]:
        """Give limits that every value of at least so much surprise lies beyond, or a hair inside:
        a bound to choose by, not to judge by.
        """
        ends, outwards = np.array([self.low, self.high]), np.array([-1.0, 1.0])
        slopes = np.array([self.low_slope, self.high_slope])
        with np.errstate(all="ignore"):
            far = ends + outwards * (needed - self.base) / slopes
            far -= outwards * 1e-9 * (np.abs(far) + np.abs(ends))
            far = np.where(np.isnan(far), ends, far)
            low, high = np.exp(far) if self.skewed else far
        return float(low), float(high)


class Outliers:
    """Scores rows against a reference, counts outliers, and keeps the oddest recent ones.

    >>> from detectors import build_reference
    >>> from detectors.rows.columns import as_table
    >>> rng = np.random.default_rng(7)
    >>> reference = build_reference({"age": rng.normal(40, 9, 20_000), "sex": ["f", "m"] * 10_000})
    >>> outliers = Outliers(reference)
    >>> outliers.update(as_table({"age": [41.0, 400.0], "sex": ["m", "f"]}))
    1
    >>> outliers.oddest()[0].features
    (('age', 'high'),)
    """

    def __init__(self, reference: Reference) -> None:
        self._profiles = reference.features
        self._binner: Binner | None = None  # made if nobody else counts
        d = max(len(self._profiles), 1)
        self._offset = math.log(d)  # Bonferroni
        self._needed = SCORE_MIN * _LN10 + self._offset  # of one feature, to make a row an outlier
        self._tails = [_tails(profile) for profile in self._profiles]
        self._by_bin = np.array([_surprises(profile) for profile in self._profiles]).reshape(-1, 18)
        pairs = zip(self._tails, self._profiles, strict=True)
        reach = [_reaches_inside(tails, p.bins, self._needed) for tails, p in pairs]
        self._inside = np.array(reach, dtype=bool)
        everything = (math.inf, -math.inf)
        self._reach = [t.reach(self._needed) if t else everything for t in self._tails]
        self.rows_total = 0
        self.outliers_total = 0
        self._kept: list[OddRow] = []

    def score(self, table: Table) -> Floats:
        """Give each row's score, [rows]: -log10 of the share of reference rows that are as odd, at
        least 0 and at most 300. Columns that are absent make no row odd.
        """
        worst = np.zeros(table.rows)
        for j, profile in enumerate(self._profiles):
            column = table.columns.get(profile.name)
            if column is not None:
                worst = np.maximum(worst, self._feature(j, column))
        scores: Floats = np.clip((worst - self._offset) / _LN10, 0.0, SCORE_MAX)
        return scores

    def update(
        self, table: Table, *, at: float | None = None, counts: NDArray[np.int64] | None = None
    ) -> int:
        """Take one tick's rows; give how many are outliers (score 3 and above).

        `counts` [features, 18] of the same rows spare counting them: only features with values that
        can be odd are looked at.
        """
        if not table.rows:
            return 0
        if counts is None:
            if self._binner is None:
                self._binner = Binner([(profile.name, profile.bins) for profile in self._profiles])
            counts = self._binner.count(table.columns, table.rows)
        rare = (self._by_bin >= self._needed) & (counts > 0)
        numeric = np.array([tails is not None for tails in self._tails], dtype=bool)
        suspects = rare.any(axis=1) | (numeric & (self._inside | (counts[:, OUTSIDE] > 0)))
        hits: dict[int, list[tuple[float, int]]] = {}
        odd = np.zeros(table.rows, dtype=bool)
        for j in np.flatnonzero(suspects).tolist():
            column = table.columns.get(self._profiles[j].name)
            if column is None:
                continue
            found, surprise = self._odd_rows(j, column)
            odd[found] = True
            oddest = np.argsort(-surprise, kind="stable")[:KEPT_MAX]
            for row, how in zip(found[oddest].tolist(), surprise[oddest].tolist(), strict=True):
                hits.setdefault(row, []).append((how, j))
        outliers = int(odd.sum())
        self._keep(hits, table, at)
        self.rows_total += table.rows
        self.outliers_total += outliers
        return outliers

    def oddest(self) -> list[OddRow]:
        """Give the oddest rows of about the last 100,000, the oddest first, at most 32."""
        return list(self._kept)

    def ratio(self) -> float:
        """Give the share of outliers among all rows so far; 0 before the first."""
        return self.outliers_total / max(self.rows_total, 1)

    def _odd_rows(self, j: int, column: Column) -> tuple[NDArray[np.intp], Floats]:
        """Give the rows that one feature makes outliers, and their -ln(share).

        Of numbers only those beyond the reach of the tails are worked out: hardly any.
        """
        tails = self._tails[j]
        which = None
        if tails is not None:
            values = numbers(column).astype(np.float64, copy=False)
            low, high = self._reach[j]
            rare = self._by_bin[j, MISSING] >= self._needed
            # the extremes are cheaper than comparing every row, and mostly settle it
            if np.fmin.reduce(values) <= low or np.fmax.reduce(values) >= high:
                beyond = (values <= low) | (values >= high)
            else:
                beyond = np.zeros(len(values) if rare else 0, dtype=bool)
            which = (beyond | np.isnan(values) if rare else beyond).nonzero()[0]
            if not len(which):
                return which, np.empty(0)
            column = values[which]
        surprise = self._feature(j, column)
        found = (surprise >= self._needed).nonzero()[0]
        return found if which is None else which[found], surprise[found]

    def _feature(self, j: int, column: Column) -> Floats:
        """Give each row's -ln(share) by one feature, [rows]."""
        tails = self._tails[j]
        if tails is None:
            by_place: Floats = self._by_bin[j][places(column, self._profiles[j].bins)]
            return by_place
        surprise = tails.surprise(numbers(column).astype(np.float64))
        surprise[np.isnan(surprise)] = self._by_bin[j, MISSING]
        return np.minimum(surprise, 1e6)

    def _what(self, j: int, column: Column, row: int) -> str:
        one = column[row : row + 1]
        place = int(places(one, self._profiles[j].bins)[0])
        if place == MISSING:
            return "missing"
        tails = self._tails[j]
        if tails is None:
            return "unseen" if place == OUTSIDE else "rare"
        value = float(numbers(one).astype(np.float64)[0])
        middle = self._profiles[j].median
        return "high" if value > middle else "low"

    def _keep(
        self, hits: Mapping[int, Sequence[tuple[float, int]]], table: Table, at: float | None
    ) -> None:
        """Merge this tick's oddest rows into those kept."""
        end = self.rows_total + table.rows
        self._kept = [kept for kept in self._kept if end - kept.row <= RECENT_ROWS]
        best = sorted(hits.items(), key=lambda item: (-max(item[1])[0], item[0]))[:KEPT_MAX]
        for row, found in best:
            top = sorted(found, key=lambda item: (-item[0], item[1]))[:TOP]
            score = min((top[0][0] - self._offset) / _LN10, SCORE_MAX)
            names = [(self._profiles[j].name, j) for _, j in top]
            features = tuple((shown(n), self._what(j, table.columns[n], row)) for n, j in names)
            self._kept.append(
                OddRow(row=self.rows_total + row, at=at, score=score, features=features)
            )
        self._kept.sort(key=lambda kept: (-kept.score, kept.row))
        del self._kept[KEPT_MAX:]

    def reset(self) -> None:
        """Forget the rows kept; the counters stay."""
        self._kept = []

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        kept = [
            {"row": k.row, "at": k.at, "score": k.score, "features": [list(f) for f in k.features]}
            for k in self._kept
        ]
        return {
            "rows_total": self.rows_total,
            "outliers_total": self.outliers_total,
            "kept": kept,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        kept = [
            OddRow(
                row=int(entry["row"]),
                at=None if entry["at"] is None else float(entry["at"]),
                score=float(entry["score"]),
                features=tuple((str(name), str(what)) for name, what in entry["features"]),
            )
            for entry in state["kept"]
        ]
        if len(kept) > KEPT_MAX:
            raise ValueError(f"{len(kept)} rows kept, at most {KEPT_MAX}")
        self._kept = kept
        self.rows_total = int(state["rows_total"])
        self.outliers_total = int(state["outliers_total"])


def _surprises(profile: FeatureProfile) -> Floats:
    """Give -ln of the share of reference rows in bins as rare as each, [18]; of a numeric feature
    only that of missing values counts.
    """
    p = profile.probabilities()
    result = np.zeros(len(p))
    if isinstance(profile.bins, CategoryBins) or profile.kind == "boolean":
        live = profile.live()
        for b in np.flatnonzero(live):
            result[b] = -math.log(min(float(p[p <= p[b]].sum()), 1.0))
    else:
        result[MISSING] = -math.log(float(p[MISSING]))
    return np.maximum(result, 0.0)


def _tails(profile: FeatureProfile) -> _Tails | None:
    """Fit both tails; None for a feature that has none (a category, too few rows)."""
    rows, points = profile.rows, profile.points
    if profile.kind != "numeric" or points is None or not points.values or rows < ROWS_MIN:
        return None
    share = max(TAIL, 20 / rows)
    low, middle, high = points.quantiles(np.array([share, 0.5, 1 - share])).tolist()
    least, most = profile.minimum, profile.maximum
    skewed = least > 0 and middle > 0 and most / middle > _SKEWED
    if skewed:
        low, high, least, most = (math.log(value) for value in (low, high, least, most))
    drop = math.log(share * (rows + 1))
    # a tail without width, as of few values, is given a twentieth of the range
    width = max((most - least) / 20, 1e-9 * max(abs(most), abs(least)), 1e-300)
    return _Tails(
        low=low,
        high=high,
        low_slope=drop / max(low - least, width),
        high_slope=drop / max(most - high, width),
        base=-math.log(2 * share),
        skewed=skewed,
    )


def _reaches_inside(tails: _Tails | None, bins: Bins, needed: float) -> bool:
    """Say whether a value that is not `outside` can make a row an outlier."""
    if tails is None or not isinstance(bins, NumericBins):
        return False
    ends = np.array([bins.low, bins.high])
    return bool((tails.surprise(ends) >= needed).any())
