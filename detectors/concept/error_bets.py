"""Bets that an error rate is higher, or lower, than a baseline's: one direction's e-detector.

A tick needs only the number of labelled rows and of errors. Each alternative has a null of its own,
away from the baseline by what the baseline's estimation error explains: whoever narrows it makes
the detector cry wolf.

Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection" (2023); Page (1954) for the rows since a change.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["up", "down"]

# Alternatives: the odds of an error times these (and divided by them for the other direction),
# and the share of the budget that each gets: the middle ones are the changes worth finding soon.
ODDS_RATIOS = (1.15, 1.3, 1.6, 2.2, 3.5)
WEIGHTS = (0.06, 0.16, 0.34, 0.32, 0.12)
# Of the budget: a model that became better can wait a little longer than one that became worse.
SHARES: Mapping[Direction, float] = {"up": 0.85, "down": 0.15}
# Standard errors of the baseline that the null allows for at most, and what is declared irrelevant.
BASELINE_Z = 2.0
BASELINE_PART = 2.5
TOLERANCE = 0.001
# An error rate of 0 or 1 has no odds.
RATE_MIN = 1e-4
LOG_FLOOR = -690.0
LOG_CEILING = 300.0


class Side:
    """One direction's e-detector: weights over alternatives, restarted at each alarm.

    Beside each alternative's evidence runs its CUSUM: the rows since that last stood at zero are
    the best guess of what happened since the change, and the effect is measured over them.

    Each alternative has a null of its own, `z` standard errors of the baseline away from it. A
    baseline that is wrong by u standard errors multiplies an alternative's false alarms by about
    exp(2 L u / d), where L is the log of its threshold and d its distance from the baseline in
    standard errors. Far alternatives hardly notice and need no wide margin; near ones get two
    standard errors, which 98 % of baselines do not exceed. With z = L / 2.5d the rate of false
    alarms over all baselines is .5 to .85 of the budget, measured
    (`benchmarks/detection_concept.py`); a margin of two for all keeps it at .1 and takes a quarter
    more rows to see a doubled error rate.
    """

    def __init__(
        self,
        level: tuple[int, int],
        direction: Direction,
        budget: float,
        *,
        phi: float,
        wander: float,
    ) -> None:
        sign = 1.0 if direction == "up" else -1.0
        rate = rate_of(*level)
        worth = level[1] / phi
        self._shares = np.asarray(WEIGHTS) * (budget * SHARES[direction])
        ratios = np.asarray(ODDS_RATIOS) ** sign
        # Two errors and two right rows more: few rows without an error are no certainty.
        doubted = (level[0] / phi + 2.0) / (worth + 4.0)
        spread = math.sqrt(doubted * (1.0 - doubted) / max(worth, 1.0))
        gap = np.maximum(np.abs(_times_odds(np.asarray(rate), ratios) - rate), 1e-9)
        z = np.minimum(
            -np.log(np.minimum(self._shares, 1.0)) * spread / gap / BASELINE_PART, BASELINE_Z
        )
        margin = TOLERANCE + z * spread + wander * math.sqrt(rate * (1.0 - rate))
        null = np.clip(rate + sign * margin, RATE_MIN, 1.0 - RATE_MIN)
        alternative = _times_odds(null, ratios)
        self.direction: Direction = direction
        self._error = np.log(alternative / null) / phi
        self._right = np.log((1.0 - alternative) / (1.0 - null)) / phi
        count = len(ODDS_RATIOS)
        # log of R, one entry for each alternative; e-values start from nothing.
        self._log_r: NDArray[np.float64] = np.full(count, LOG_FLOOR)
        self._cusum: NDArray[np.float64] = np.zeros(count)
        self._since: NDArray[np.int64] = np.zeros((2, count), dtype=np.int64)  # errors, rows

    def update(self, rows: int, errors: int, ticks: float) -> None:
        """One tick of so many rows and errors, `ticks` long."""
        step = errors * self._error + (rows - errors) * self._right
        fresh = self._log_r
        if ticks > 0.0:
            fresh = np.logaddexp(fresh, np.log(self._shares * ticks))
        # The floor is nothing, and nothing grows: only the budget begins evidence.
        grown = np.clip(fresh + step, LOG_FLOOR, LOG_CEILING)
        self._log_r = np.where(fresh <= LOG_FLOOR, LOG_FLOOR, grown)
        self._cusum = np.maximum(self._cusum + step, 0.0)
        self._since += np.asarray([[errors], [rows]])
        self._since[:, self._cusum == 0.0] = 0

    @property
    def log_e(self) -> float:
        """Log of the e-value summed over alternatives, in alarms of the budget: 0 is an alarm."""
        return float(np.logaddexp.reduce(self._log_r))

    @property
    def level(self) -> tuple[int, int]:
        """Errors and rows since the change, by the alternative that explains it best."""
        best = int(np.argmax(self._cusum))
        return int(self._since[0, best]), int(self._since[1, best])

    def latch(self) -> None:
        """The alarm was counted: the evidence starts anew, the rows since the change stay."""
        self._log_r = np.full(len(ODDS_RATIOS), LOG_FLOOR)

    def state(self) -> dict[str, Any]:
        return {
            "log_r": self._log_r.tolist(),
            "cusum": self._cusum.tolist(),
            "since": self._since.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        log_r = np.array(state["log_r"], dtype=np.float64)
        cusum = np.array(state["cusum"], dtype=np.float64)
        since = np.array(state["since"], dtype=np.int64)
        shapes = (log_r.shape, cusum.shape, since.shape)
        if shapes != (self._log_r.shape, self._cusum.shape, self._since.shape):
            raise ValueError(f"bets on an error rate: of shapes {shapes}")
        if not (np.isfinite(log_r).all() and np.isfinite(cusum).all() and (since >= 0).all()):
            raise ValueError("bets on an error rate: figures that cannot be")
        self._log_r, self._cusum, self._since = log_r, cusum, since


def rate_of(errors: float, rows: float) -> float:
    """Error rate with half an error of doubt, so that a perfect record is not taken for proof."""
    return (errors + 0.5) / (rows + 1.0)


def _times_odds(rate: NDArray[np.float64], ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = rate / (1.0 - rate) * ratios
    return odds / (1.0 + odds)
