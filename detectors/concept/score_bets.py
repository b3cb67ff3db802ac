"""Bets that scores no longer mean what they did: betting on the residual of an outcome.

Whatever bounded bet is made on y - q, y being 0 or 1 and q the probability of 1, its pay-off is a
likelihood ratio, so the bets are written as such: the odds of a positive are a ratio higher (or
lower) than expected, in all rows, in those of low, middle or high scores, or lower at one end and
higher at the other (the score separates worse or better, and the mean residual may stay at zero).
Each bet has its part of the budget, and starts from the edge of what the level's own estimation
error and the tolerance explain; whoever narrows that edge makes it cry wolf.

Sources: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Waudby-Smith, Ramdas, "Estimating means of
bounded random variables by betting" (2024); Page (1954) for the rows since a change.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detectors.concept.score_levels import RATE_MIN, THIRDS, Cells, Floats

# Where the odds rise (1) and fall (-1): low, middle, high scores; and each bet's part.
PATTERNS: Final = np.array(
    [
        [1, 1, 1],
        [-1, -1, -1],
        [1, 0, 0],
        [-1, 0, 0],
        [0, 1, 0],
        [0, -1, 0],
        [0, 0, 1],
        [0, 0, -1],
        [1, 0, -1],
        [-1, 0, 1],
    ],
    dtype=np.float64,
)
PATTERN_WEIGHTS: Final = np.array([0.2, 0.2, *[0.05] * 6, 0.2, 0.1])
ODDS_RATIOS: Final = np.array([1.15, 1.3, 1.6, 2.2, 3.5])
RATIO_WEIGHTS: Final = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
_STEPS: Final = np.log(ODDS_RATIOS)
_MIDDLE: Final = 2  # the ratio whose CUSUM dates a change
# Declared irrelevant, in log-odds: .012 at a rate of one half.
TOLERANCE: Final = 0.05
# Standard errors of the level that a bet's null allows for: at most, and as a part of log(1 /
# budget) x error / ratio. Far bets hardly notice the level's error and need no wide edge.
ERRORS_MAX: Final = 2.0
ERRORS_PART: Final = 0.5
# Rows that the shares of cells are remembered for.
MEMORY_ROWS: Final = 5_000.0
NOTHING: Final = -1e300

#: What is summed over rows, by third of the scores: rows, y - q, q (1 - q), and the latter two
#: against the first level.
SUMS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Few labelled rows at a time, in order: `start` [groups] of each, and what is summed."""

    sizes: Floats  # [groups]
    sums: Floats  # [groups, 5, 3]
    steps: Floats  # [groups, patterns, ratios]: log of each bet's pay-off


class Bets:
    """The recursion over groups of rows: one Shiryaev-Roberts e-detector in 50 bets."""

    def __init__(self, cells: Cells, budget: float) -> None:
        present = np.bincount(cells.third, cells.shares, THIRDS) > 0
        weights = PATTERN_WEIGHTS * (np.abs(PATTERNS) @ present > 0)
        weights = weights / max(weights.sum(), 1e-300)
        self.cells = cells
        self._shares = weights[:, None] * RATIO_WEIGHTS * budget  # per tick
        self._log_shares = np.log(np.maximum(self._shares, 1e-300))
        self._recent = cells.shares * CELL_PRIOR
        shape = self._shares.shape
        self._log_r: Floats = np.full(shape, NOTHING)
        self._cusum: Floats = np.zeros(len(PATTERNS))
        self._since: Floats = np.zeros((len(PATTERNS), SUMS, THIRDS))

    def margins(self) -> Floats:
        """Give each bet's edge in log-odds, [patterns, ratios]."""
        shares = self.recent_shares()
        doubt = np.array([self.cells.doubt(shares, row != 0) for row in PATTERNS])[:, None]
        wanted = ERRORS_PART * -np.minimum(self._log_shares, 0.0) * doubt / _STEPS
        margins: Floats = TOLERANCE + np.minimum(wanted, ERRORS_MAX) * np.minimum(doubt, 10.0)
        return margins

    def recent_shares(self) -> Floats:
        """Give the share of each cell among recent rows, [cells]."""
        total = float(self._recent.sum())
        shares: Floats = self._recent / total if total > 0 else self.cells.shares
        return shares

    def group(self, scores: Floats, outcomes: Floats, origin: Cells, rows_at_once: int) -> Group:
        """Cut rows into groups, and price the bets on each."""
        cells, expected = self.cells.expected(scores)
        counts = np.bincount(cells, minlength=len(self._recent))
        self._recent = self._recent * math.exp(-len(scores) / MEMORY_ROWS) + counts
        third = self.cells.third[cells]
        first = expected if origin is self.cells else origin.expected(scores)[1]
        starts = np.arange(0, len(scores), rows_at_once)
        sums = np.zeros((len(scores), SUMS, THIRDS))
        summed = np.stack(
            [
                np.ones(len(scores)),
                outcomes - expected,
                expected * (1 - expected),
                outcomes - first,
                first * (1 - first),
            ],
            axis=1,
        )
        sums[np.arange(len(scores)), :, third] = summed
        signs = PATTERNS[:, third].T[:, :, None]  # [rows, patterns, 1]
        null = (
            expected[:, None, None]
            + signs * self.margins() * self.cells.variance[cells, None, None]
        )
        null = np.clip(null, RATE_MIN, 1 - RATE_MIN)
        # The odds of the null times a ratio: its log-likelihood ratio, for outcomes 1 and 0.
        steps = signs * outcomes[:, None, None] * _STEPS
        steps -= np.log1p(null * np.expm1(signs * _STEPS))
        return Group(
            sizes=np.diff(np.append(starts, len(scores))).astype(np.float64),
            sums=np.add.reduceat(sums, starts),
            steps=np.add.reduceat(steps, starts),
        )

    def take(self, group: Group, ticks: float) -> int | None:
        """Take groups up to the first alarm; give its index, None if there was none.

        `ticks` is the budget that all groups bring, in ticks.
        """
        rows = float(group.sizes.sum())
        with np.errstate(divide="ignore"):
            gifts = np.log(group.sizes * (max(ticks, 0.0) / max(rows, 1.0)))[:, None, None]
        gained = np.cumsum(group.steps, axis=0)
        before = np.concatenate([np.zeros((1, *gained.shape[1:])), gained[:-1]])
        held = np.concatenate([self._log_r[None], self._log_shares + gifts - before])
        wealth = np.logaddexp.accumulate(held, axis=0)[1:] + gained
        log_e = np.logaddexp.reduce(wealth.reshape(len(wealth), -1), axis=1)
        over = np.flatnonzero(log_e >= 0.0)
        last = int(over[0]) if len(over) else len(group.sizes) - 1
        self._log_r = np.maximum(wealth[last], NOTHING)
        self._date(group, gained[: last + 1, :, _MIDDLE], last)
        return last if len(over) else None

    def _date(self, group: Group, gained: Floats, last: int) -> None:
        """Follow each pattern's CUSUM: rows since it last stood at zero are those of a change."""
        path = np.concatenate([np.zeros((1, len(PATTERNS))), gained]) + self._cusum
        sums = np.concatenate([np.zeros((1, SUMS, THIRDS)), np.cumsum(group.sums[: last + 1], 0)])
        lowest = len(path) - 1 - np.argmin(path[::-1], axis=0)
        for k, place in enumerate(lowest.tolist()):
            floor = float(path[place, k])
            if floor <= 0.0:
                self._cusum[k] = path[-1, k] - floor
                self._since[k] = sums[-1] - sums[place]
            else:
                self._cusum[k] = path[-1, k]
                self._since[k] += sums[-1]

    @property
    def log_e(self) -> float:
        """Log of the e-value summed over bets, in alarms of the budget: 0 is an alarm."""
        return float(np.logaddexp.reduce(self._log_r.ravel()))

    def leading(self) -> int:
        """Give the pattern with most evidence."""
        return int(np.logaddexp.reduce(self._log_r, axis=1).argmax())

    def since(self, pattern: int) -> Floats:
        """Give the sums [5, 3] over the rows since that pattern's change."""
        sums: Floats = self._since[pattern].copy()
        return sums

    def latch(self) -> None:
        """The alarm was counted: evidence starts anew, the rows since the change stay."""
        self._log_r = np.full_like(self._log_r, NOTHING)

    def state(self) -> dict[str, Any]:
        """Give JSON values."""
        return {
            "recent": self._recent.tolist(),
            "log_r": self._log_r.tolist(),
            "cusum": self._cusum.tolist(),
            "since": self._since.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError for what does not fit."""
        for name in ("recent", "log_r", "cusum", "since"):
            held: Floats = getattr(self, f"_{name}")
            given = np.asarray(state[name], np.float64)
            if given.shape != held.shape or not np.isfinite(given).all():
                raise ValueError(f"bets: {name} of shape {given.shape}, expected {held.shape}")
            setattr(self, f"_{name}", given)


# Rows that the reference's own shares of cells count for, before any were seen.
CELL_PRIOR: Final = 500.0


def far_from(sums: Floats, errors: Floats) -> float:
    """How far rows are from a first level: the sum over thirds of squared standard errors.

    `sums` [5, 3] as in `SUMS`; `errors` [3] are the level's own. What the tolerance explains counts
    for nothing.
    """
    rows = np.maximum(sums[0], 1e-9)
    spread = np.sqrt(np.maximum(sums[4], RATE_MIN) / rows**2 + errors**2)
    slack = TOLERANCE * sums[4] / rows
    off = np.maximum(np.abs(sums[3] / rows) - slack, 0.0) / spread
    return float((np.where(sums[0] > 0, off, 0.0) ** 2).sum())
