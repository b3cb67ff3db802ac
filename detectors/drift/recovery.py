"""Whether a drift has gone: the evidence turned round.

The hypothesis to be refuted is that rows still come from the drifted distribution q, estimated
from rows counted since the drift began; the alternative is the reference p. The bet of one row is
f = 2 p / (p + q). It loses on average, E_q f <= 1, not only for q but for whatever lies nearer to
q than to p, so that an estimate of q from few rows is good enough; and no row can win more than
ln 2. As in `evidence`, M <- (M + a) f is a Shiryaev-Roberts e-detector: while the drift lasts, the
expected number of times that M reaches one is at most the sum of a, here once in a month.

A drift that changes is followed: rows are added to the estimate of q, at an eighth of their weight
so that a drift that ends is not diluted by the rows that come after it, and only while the evidence
before them was low. To choose rows by what they themselves say would make q something that no row
was drawn from.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Ville (1939). f is the likelihood ratio of p
against q damped by half, so it needs no margin.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import WIDTH

Floats = NDArray[np.float64]

#: False recoveries of one lasting drift in a month of ticks, at most, on average.
FALSE_RECOVERIES_PER_MONTH: Final = 1.0

#: What is kept of the drifted rows: all are scaled down to this many, so that a slow drift is
#: seen as it is now, and single precision holds the counts.
_ROWS_MAX: Final = 200_000.0
_FOLLOW_MAX: Final = 0.01  # evidence above which rows no longer count as drifted
_FOLLOW_WEIGHT: Final = 1 / 8
_LOG_STEP_MIN: Final = -700.0
_LOG_STEP_MAX: Final = 300.0
_LEAST: Final = 1e-300
_MOST: Final = 100.0  # so that it falls again soon where a recovery has to wait


class Recovery:
    """The reverse process of each latched feature of one reference; nothing of the others."""

    def __init__(self, p: Floats, phi: Floats) -> None:
        self._p, self._phi = p, phi
        self._live = p > 0
        self._drifted = np.zeros((len(p), WIDTH), dtype=np.float32)
        self._wealth = np.zeros(len(p))

    def begin(self, features: NDArray[np.bool_], counts: NDArray[np.int64]) -> None:
        """Start for newly latched `features`, whose drifted rows so far are `counts` [., 18]."""
        most = _ROWS_MAX / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        self._drifted[features] = counts * np.minimum(most, 1.0)
        self._wealth[features] = 0.0

    def update(
        self, counts: NDArray[np.int64], latched: NDArray[np.bool_], ticks: float, month: float
    ) -> NDArray[np.bool_]:
        """Take a tick's counts; say for which latched features the drift has been refuted.

        `ticks` is the tick's length, `month` the ticks of a month.
        """
        refuted = np.zeros(len(latched), dtype=bool)
        if not latched.any():
            return refuted
        which = np.flatnonzero(latched & counts.any(axis=1))
        if not len(which):
            return refuted
        weights = np.where(self._live[which], self._drifted[which] + 0.5, 0.0)
        p, q = self._p[which], weights / weights.sum(axis=1, keepdims=True)
        bets = np.log(2 * p / np.maximum(p + q, _LEAST), where=p > 0, out=np.zeros_like(p))
        steps = (bets * counts[which]).sum(axis=1) / self._phi[which]
        low = self._wealth[which] < _FOLLOW_MAX
        wealth = self._wealth[which] + FALSE_RECOVERIES_PER_MONTH * ticks / month
        wealth *= np.exp(np.clip(steps, _LOG_STEP_MIN, _LOG_STEP_MAX))
        self._wealth[which] = np.clip(wealth, _LEAST, _MOST)
        self._follow(which[low], counts)
        refuted[which] = wealth >= 1.0
        return refuted

    def _follow(self, which: NDArray[np.intp], counts: NDArray[np.int64]) -> None:
        if len(which):
            drifted = self._drifted[which] + (_FOLLOW_WEIGHT * counts[which]).astype(np.float32)
            rows = drifted.sum(axis=1, keepdims=True)
            drifted *= np.minimum(_ROWS_MAX / np.maximum(rows, 1.0), 1.0).astype(np.float32)
            self._drifted[which] = drifted

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as a dictionary of arrays."""
        return {"drifted": self._drifted.copy(), "reverse": self._wealth.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit or is not finite."""
        drifted = np.array(state["drifted"], dtype=np.float32)
        wealth = np.array(state["reverse"], dtype=np.float64)
        if not np.isfinite(drifted).all() or (drifted < 0).any():
            raise ValueError("recovery: counts that are no finite numbers")
        if drifted.shape != self._drifted.shape or wealth.shape != self._wealth.shape:
            raise ValueError(f"recovery of shape {drifted.shape}, expected {self._drifted.shape}")
        if not np.isfinite(wealth).all() or (wealth < 0).any():
            raise ValueError("recovery: evidence that is no finite number")
        self._drifted, self._wealth = drifted, wealth
