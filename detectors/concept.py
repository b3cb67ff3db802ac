"""Concept drift on the stream of labelled errors: is the model wrong more (or less) often?

The evidence is a Shiryaev-Roberts e-detector for Bernoulli outcomes. A tick needs only the
number of labelled rows and of errors, so states are small and ticks of replicas add up.
The null hypothesis has a margin around the baseline's error rate; whoever narrows it makes the
detector alarm on the baseline's own estimation error.

Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection" (2023); Ville's inequality for the bound on false alarms.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["up", "down"]
ConceptState = Literal["ok", "warning", "drift", "insufficient_data"]

# Alternatives: the odds of an error times these (and divided by them for the other direction).
ODDS_RATIOS = (1.15, 1.3, 1.6, 2.2, 3.5)
# Standard errors of the baseline that the null allows for, and what is declared irrelevant.
BASELINE_Z = 2.0
TOLERANCE = 0.001
# An error rate of 0 or 1 has no odds.
RATE_MIN = 1e-4
LOG_FLOOR = -690.0
LOG_CEILING = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptChange:
    """A change of mind of the detector. Rates are errors per labelled row."""

    state: ConceptState
    direction: Direction
    baseline_rate: float
    rate: float  # over the rows since the evidence last left its floor
    rows: int  # those rows
    log10_evidence: float
    explain: str


class _Side:
    """One direction's e-detector: weights over alternatives, restarted at each alarm.

    Beside each alternative's evidence runs its CUSUM: the rows since that last stood at zero are
    the best guess of what happened since the change, and the effect is measured over them.
    """

    def __init__(self, rate: float, rows: float, direction: Direction) -> None:
        sign = 1.0 if direction == "up" else -1.0
        spread = BASELINE_Z * math.sqrt(rate * (1.0 - rate) / max(rows, 1.0))
        null = min(max(rate + sign * (TOLERANCE + spread), RATE_MIN), 1.0 - RATE_MIN)
        odds = null / (1.0 - null) * np.asarray(ODDS_RATIOS) ** sign
        alternative = odds / (1.0 + odds)
        self.direction: Direction = direction
        self._error = np.log(alternative / null)
        self._right = np.log((1.0 - alternative) / (1.0 - null))
        count = len(ODDS_RATIOS)
        # log of R, one entry for each alternative; e-values start from nothing.
        self._log_r: NDArray[np.float64] = np.full(count, LOG_FLOOR)
        self._cusum: NDArray[np.float64] = np.zeros(count)
        self._since: NDArray[np.int64] = np.zeros((2, count), dtype=np.int64)  # errors, rows

    def update(self, rows: int, errors: int, budget: float) -> float:
        """One tick; returns log of the summed e-value. `budget` is the share of one alarm."""
        start = math.log(budget / len(ODDS_RATIOS)) if budget > 0 else LOG_FLOOR
        step = errors * self._error + (rows - errors) * self._right
        fresh = np.logaddexp(self._log_r, start)
        self._log_r = np.clip(fresh + step, LOG_FLOOR, LOG_CEILING)
        self._cusum = np.maximum(self._cusum + step, 0.0)
        self._since += np.asarray([[errors], [rows]])
        self._since[:, self._cusum == 0.0] = 0
        return self.log_e

    @property
    def log_e(self) -> float:
        return float(np.logaddexp.reduce(self._log_r))

    @property
    def level(self) -> tuple[int, int]:
        """Errors and rows since the change, by the alternative that explains it best."""
        best = int(np.argmax(self._log_r))
        return int(self._since[0, best]), int(self._since[1, best])

    def latch(self) -> None:
        """The alarm was counted: the evidence starts anew, the rows since the change stay."""
        self._log_r = np.full(len(ODDS_RATIOS), LOG_FLOOR) + self._cusum

    def state(self) -> dict[str, Any]:
        return {
            "log_r": self._log_r.tolist(),
            "cusum": self._cusum.tolist(),
            "since": self._since.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._log_r = np.asarray(state["log_r"], dtype=np.float64)
        self._cusum = np.asarray(state["cusum"], dtype=np.float64)
        self._since = np.asarray(state["since"], dtype=np.int64)


class ErrorRateDetector:
    """Watches labelled errors against a baseline error rate, in both directions.

    Without a baseline the first `learn_rows` labelled rows become it. After a change has been
    reported the detector arms itself again against the new level (learnt from `rearm_rows`), so
    that the next change is seen; a return to the first baseline is reported as `ok`.

    Parameters
    ----------
    errors, rows
        The labelled baseline: so many errors in so many rows; 0 rows learns it from the stream.
    false_alarms_per_month
        This detector's share of the budget, both directions together.
    ticks_per_month
        How many ticks (`update(..., ticks=1)`) make up the month of the budget.
    effect_min
        Absolute change of the error rate that makes a `warning` a `drift`.

    >>> detector = ErrorRateDetector(errors=250, rows=5000)
    >>> [c.state for _ in range(12) for c in detector.update(rows=100, errors=15)]
    ['drift']
    """

    def __init__(
        self,
        *,
        errors: int = 0,
        rows: int = 0,
        false_alarms_per_month: float = 0.2,
        ticks_per_month: float = 43_200,
        effect_min: float = 0.02,
        learn_rows: int = 1_000,
        rearm_rows: int = 1_000,
    ) -> None:
        self._budget = false_alarms_per_month / ticks_per_month / 2.0
        self._effect_min = effect_min
        self._learn_rows = learn_rows
        self._rearm_rows = rearm_rows
        self._origin: tuple[int, int] | None = (errors, rows) if rows else None
        self._learning = [0, 0]
        self._learn_target = learn_rows
        self._sides: tuple[_Side, ...] = ()
        self._warned: _Side | None = None  # its evidence came, its effect has not yet
        self._level = (errors, rows)
        self.status: ConceptState = "insufficient_data"
        if self._origin is not None:
            self._arm(self._origin)
            self.status = "ok"

    @property
    def baseline_rate(self) -> float | None:
        """The error rate that changes are reported against, if there is one yet."""
        return None if not self._sides else _rate(*self._level)

    @property
    def log10_evidence(self) -> float:
        """The stronger direction's evidence, as log10 of the e-value per budgeted alarm."""
        if not self._sides:
            return 0.0
        return max(side.log_e for side in self._sides) / math.log(10.0)

    def update(self, *, rows: int, errors: int, ticks: float = 1.0) -> list[ConceptChange]:
        """Take a tick's labelled rows and errors; returns changes of state, usually none.

        Raises `ValueError` unless 0 <= errors <= rows.
        """
        if not 0 <= errors <= rows:
            raise ValueError(f"{errors} errors in {rows} rows")
        if rows == 0:
            return []
        if not self._sides:
            return self._learn(rows, errors)
        changes = []
        for side in self._sides:
            log_e = side.update(rows, errors, self._budget * min(ticks, 1.0))
            if log_e >= 0.0:
                changes.append(self._alarm(side, log_e))
                break
            if self._warned is side and self._effect(side) >= self._effect_min:
                # The evidence came first, the effect has now grown to match it.
                changes.append(self._change("drift", side, log_e))
                self._rearm()
                break
        return changes

    def _learn(self, rows: int, errors: int) -> list[ConceptChange]:
        self._learning[0] += errors
        self._learning[1] += rows
        if self._learning[1] < self._learn_target:
            return []
        level = (self._learning[0], self._learning[1])
        self._learning = [0, 0]
        if self._origin is None:
            self._origin = level
            self.status = "ok"
        self._arm(level)
        if self.status != "ok" and self._is_origin(level):
            self.status = "ok"
            self._arm(self._origin)
            side = self._sides[0]
            return [self._recovered(side, level)]
        return []

    def _alarm(self, side: _Side, log_e: float) -> ConceptChange:
        assert self._origin is not None
        level = side.level
        if self.status in ("drift", "warning") and self._is_origin(level):
            self.status = "ok"
            change = self._recovered(side, level, log_e)
            self._arm(self._origin)
            return change
        effect = self._effect(side)
        change = self._change("drift" if effect >= self._effect_min else "warning", side, log_e)
        if change.state == "drift":
            self._rearm()
        else:
            side.latch()
            self._warned = side
        return change

    def _effect(self, side: _Side) -> float:
        return abs(_rate(*side.level) - _rate(*self._level))

    def _change(self, state: ConceptState, side: _Side, log_e: float) -> ConceptChange:
        self.status = state
        was, now = _rate(*self._level), _rate(*side.level)
        verb = "rose" if side.direction == "up" else "fell"
        return ConceptChange(
            state=state,
            direction=side.direction,
            baseline_rate=was,
            rate=now,
            rows=side.level[1],
            log10_evidence=log_e / math.log(10.0),
            explain=f"the error rate {verb} from {was:.3f} to {now:.3f} "
            f"over {side.level[1]:,} labelled rows",
        )

    def _recovered(self, side: _Side, level: tuple[int, int], log_e: float = 0.0) -> ConceptChange:
        assert self._origin is not None
        return ConceptChange(
            state="ok",
            direction=side.direction,
            baseline_rate=_rate(*self._origin),
            rate=_rate(*level),
            rows=level[1],
            log10_evidence=log_e / math.log(10.0),
            explain=f"the error rate is back at {_rate(*level):.3f}, "
            f"near its baseline {_rate(*self._origin):.3f}",
        )

    def _is_origin(self, level: tuple[int, int]) -> bool:
        assert self._origin is not None
        was, now = _rate(*self._origin), _rate(*level)
        spread = math.sqrt(was * (1 - was) * (1 / max(self._origin[1], 1) + 1 / max(level[1], 1)))
        return abs(now - was) <= TOLERANCE + BASELINE_Z * spread

    def _arm(self, level: tuple[int, int]) -> None:
        self._level = level
        rate = _rate(*level)
        self._sides = (_Side(rate, level[1], "up"), _Side(rate, level[1], "down"))
        self._warned = None

    def _rearm(self) -> None:
        """Forget the old level; the next rows teach the new one."""
        self._sides, self._warned = (), None
        self._learning = [0, 0]
        self._learn_target = self._rearm_rows

    def rebase(self, *, errors: int = 0, rows: int = 0) -> None:
        """A new model version: its own baseline, nothing latched."""
        self._origin = (errors, rows) if rows else None
        self._learning, self._learn_target = [0, 0], self._learn_rows
        self._sides, self._warned = (), None
        self.status = "insufficient_data"
        if self._origin is not None:
            self._arm(self._origin)
            self.status = "ok"

    def state(self) -> dict[str, Any]:
        """Everything that matters, as JSON-able values."""
        return {
            "origin": self._origin,
            "level": self._level,
            "learning": list(self._learning),
            "learn_target": self._learn_target,
            "status": self.status,
            "sides": [side.state() for side in self._sides],
            "warned": None if self._warned is None else self._warned.direction,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off; the same ticks then give the same changes."""
        origin = state["origin"]
        self._origin = None if origin is None else (int(origin[0]), int(origin[1]))
        self._learning = [int(state["learning"][0]), int(state["learning"][1])]
        self._learn_target = int(state["learn_target"])
        self.status = state["status"]
        self._sides = ()
        if state["sides"]:
            self._arm((int(state["level"][0]), int(state["level"][1])))
            armed: _Side
            for armed, saved in zip(self._sides, state["sides"], strict=True):
                armed.restore(saved)
                if state["warned"] == armed.direction:
                    self._warned = armed


def _rate(errors: float, rows: float) -> float:
    """Error rate with half an error of doubt, so that a perfect record is not taken for proof."""
    return (errors + 0.5) / (rows + 1.0)
