"""Is something rare more frequent than it may be? A one-sided e-detector for shares, of many
subjects at once.

R <- (R + w a) x (likelihood ratio against a ceiling), as in `evidence`: a ceiling that already
allows for the reference's own error makes the expected number of false alarms (R >= 1) at most the
budget spent. Alternatives are odds 2, 5, 20 and 100 times those of the ceiling.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023). The one thing not to break: the ceiling is a
bound, never an estimate.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ODDS: Final = (2.0, 5.0, 20.0, 100.0)
#: Fewer hits than these are not spoken of, however unlikely they are.
HITS_MIN: Final = 20
CALM_ROWS: Final = 3_000
_FLOOR_TICKS: Final = 10.0
_LOG_STEP_MAX: Final = 300.0
_LEAST: Final = -690.0


class Excess:
    """Watches the shares of `ceilings` [subjects]; `phi` is the design effect of each.

    A subject alarms once, stays `latched` while the share is above its ceiling, and is back after
    3,000 rows at or below it. Raises ValueError for a senseless budget or ceiling.
    """

    def __init__(
        self,
        ceilings: Floats,
        *,
        false_alarms_per_month: float,
        ticks_per_month: float,
        phi: Floats | None = None,
    ) -> None:
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError("false_alarms_per_month and ticks_per_month must be above 0, finite")
        if ceilings.ndim != 1 or not ((ceilings > 0) & (ceilings <= 1)).all():
            raise ValueError("ceilings must be above 0 and at most 1")
        count = len(ceilings)
        self.ceilings = np.minimum(ceilings, 1 - 1e-9)
        self._phi = np.ones(count) if phi is None else np.maximum(phi, 1.0)
        self.unit = false_alarms_per_month / ticks_per_month / max(count, 1)  # a tick's, each
        odds = (self.ceilings / (1 - self.ceilings))[:, None] * np.array(ODDS)
        likely = odds / (1 + odds)
        self._hit = np.log(likely / self.ceilings[:, None])
        self._miss = np.log1p(-likely) - np.log1p(-self.ceilings)[:, None]
        self._log_r = np.full((count, len(ODDS)), -np.inf)
        self.latched = np.zeros(count, dtype=bool)
        self.since = np.zeros((count, 2), dtype=np.int64)  # hits, rows since the floor was left
        self._calm = np.zeros((count, 2), dtype=np.int64)

    def update(
        self, hits: NDArray[np.int64], rows: NDArray[np.int64], ticks: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Take a tick's hits and rows, [subjects] each; say who alarmed and who recovered."""
        seen = rows > 0
        step = hits[:, None] * self._hit + (rows - hits)[:, None] * self._miss
        step /= self._phi[:, None]
        gift = np.where(seen & ~self.latched, self.unit * min(max(ticks, 0.0), 1.0), 0.0)
        with np.errstate(divide="ignore"):
            granted = np.log(gift / len(ODDS))[:, None]
        self._log_r = np.logaddexp(self._log_r, granted) + np.clip(step, _LEAST, _LOG_STEP_MAX)
        self._log_r = np.where(self._log_r < _LEAST, -np.inf, self._log_r)
        self.since += np.stack((hits, rows), axis=1)
        level = self.log_r()
        alarmed = ~self.latched & (level >= 0) & (self.since[:, 0] >= HITS_MIN)
        floor = ~self.latched & ~alarmed & (level <= math.log(self.unit * _FLOOR_TICKS))
        self.since[floor] = 0
        recovered = self._calmed(hits, rows)
        self.latched |= alarmed
        self._calm[alarmed] = 0
        return alarmed, recovered

    def _calmed(self, hits: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Judge latched subjects once every 3,000 rows, on those rows alone."""
        self._calm[self.latched] += np.stack((hits, rows), axis=1)[self.latched]
        judged = self.latched & (self._calm[:, 1] >= CALM_ROWS)
        recovered: NDArray[np.bool_] = judged & (
            self._calm[:, 0] <= self.ceilings * self._calm[:, 1]
        )
        self._calm[judged] = 0
        self.latched[recovered] = False
        self._log_r[recovered] = -np.inf
        self.since[recovered] = 0
        return recovered

    def log_r(self) -> Floats:
        """Give ln R, [subjects]: an alarm at 0 and above."""
        level: Floats = np.logaddexp.reduce(self._log_r, axis=1)
        return level

    def reset(self) -> None:
        """Forget evidence and latched states."""
        self._log_r[:] = -np.inf
        self.latched[:] = False
        self.since[:], self._calm[:] = 0, 0

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as arrays."""
        return {
            "log_r": self._log_r.copy(),
            "latched": self.latched.copy(),
            "since": self.since.copy(),
            "calm": self._calm.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        log_r = np.array(state["log_r"], dtype=np.float64)
        latched = np.array(state["latched"], dtype=bool)
        since = np.array(state["since"], dtype=np.int64)
        calm = np.array(state["calm"], dtype=np.int64)
        shapes = (log_r.shape, latched.shape, since.shape, calm.shape)
        if shapes != (self._log_r.shape, self.latched.shape, self.since.shape, self._calm.shape):
            raise ValueError(f"evidence of shape {log_r.shape}, expected {self._log_r.shape}")
        if np.isnan(log_r).any() or (log_r == np.inf).any():
            raise ValueError("evidence that is not finite")
        self._log_r, self.latched, self.since, self._calm = log_r, latched, since, calm
