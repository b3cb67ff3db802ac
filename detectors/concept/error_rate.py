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
EFFECT_Z = 2.0
# An error rate of 0 or 1 has no odds.
RATE_MIN = 1e-4
LOG_FLOOR = -690.0
LOG_CEILING = 300.0
# A state is taken back when so many rows in a row are within this many standard errors.
CALM_ROWS = 3_000
CALM_Z = 1.0


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

    Each alternative has a null of its own, `z` standard errors of the baseline away from it. A
    baseline that is wrong by u standard errors multiplies an alternative's false alarms by about
    exp(2 L u / d), where L is the log of its threshold and d its distance from the baseline in
    standard errors. Far alternatives hardly notice and need no wide margin; near ones get two
    standard errors, which 98 % of baselines do not exceed. With z = L / 2.5d the rate of false
    alarms over all baselines is .5 to .85 of the budget, measured
    (`benchmarks/detection_concept.py`); a margin of two for all keeps it at .1 and takes a quarter
    more rows to see a doubled error rate.
    """

    def __init__(self, level: tuple[int, int], direction: Direction, budget: float) -> None:
        sign = 1.0 if direction == "up" else -1.0
        rate = _rate(*level)
        self._shares = np.asarray(WEIGHTS) * (budget * SHARES[direction])
        ratios = np.asarray(ODDS_RATIOS) ** sign
        # Two errors and two right rows more: few rows without an error are no certainty.
        doubted = (level[0] + 2.0) / (level[1] + 4.0)
        spread = math.sqrt(doubted * (1.0 - doubted) / max(level[1], 1))
        gap = np.maximum(np.abs(_times_odds(np.asarray(rate), ratios) - rate), 1e-9)
        z = np.minimum(
            -np.log(np.minimum(self._shares, 1.0)) * spread / gap / BASELINE_PART, BASELINE_Z
        )
        null = np.clip(rate + sign * (TOLERANCE + z * spread), RATE_MIN, 1.0 - RATE_MIN)
        alternative = _times_odds(null, ratios)
        self.direction: Direction = direction
        self._error = np.log(alternative / null)
        self._right = np.log((1.0 - alternative) / (1.0 - null))
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
        self._log_r = np.asarray(state["log_r"], dtype=np.float64)
        self._cusum = np.asarray(state["cusum"], dtype=np.float64)
        self._since = np.asarray(state["since"], dtype=np.int64)


class ErrorRateDetector:
    """Watches labelled errors against a baseline error rate, in both directions.

    Without a baseline the first `learn_rows` labelled rows become it. After a drift has been
    reported the detector arms itself again against the new level (learnt from `rearm_rows`), so
    that the next change is seen; a return to the first baseline is reported as `ok`.

    Feed it few rows at a time: a change in the middle of a tick is diluted by the rows before it.

    Parameters
    ----------
    errors, rows
        The labelled baseline: so many errors in so many rows; 0 rows learns it from the stream.
    false_alarms_per_month
        This detector's share of the budget, both directions together.
    ticks_per_month
        How many ticks (`update(..., ticks=1)`) make up the month of the budget.
    effect_min
        Change of the error rate, less two standard errors, that makes a `warning` a `drift`.
    what
        What the rate is called in sentences: a label's share is a rate like any other.

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
        what: str = "the error rate",
    ) -> None:
        self._what = what
        self._budget = false_alarms_per_month / ticks_per_month
        self._effect_min = effect_min
        self._learn_rows = learn_rows
        self._rearm_rows = rearm_rows
        self.rebase(errors=errors, rows=rows)

    def rebase(self, *, errors: int = 0, rows: int = 0) -> None:
        """A new model version: its own baseline, nothing latched. Raises `ValueError` for a
        baseline that cannot be.
        """
        if not 0 <= errors <= rows:
            raise ValueError(f"a baseline of {errors} errors in {rows} rows")
        self._origin: tuple[int, int] | None = (errors, rows) if rows else None
        self._level = (errors, rows)
        self._learning = [0, 0]
        self._learn_target = self._learn_rows
        self._sides: tuple[_Side, ...] = ()
        self._warned: _Side | None = None  # its evidence came, its effect has not yet
        self._calm = [0, 0]  # errors and rows since the change, or since they were last looked at
        self._was_up = False  # the direction of the last change
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
        """The stronger direction's evidence, as log10 of the e-value in alarms of the budget."""
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
        length = min(max(ticks, 0.0), 1.0)
        for side in self._sides:
            side.update(rows, errors, length)
        loudest = max(self._sides, key=lambda side: side.log_e)
        if loudest.log_e >= 0.0:
            return self._alarm(loudest)
        if self._warned is not None and self._effect(self._warned) >= self._effect_min:
            # The evidence came first, the effect has now grown to match it.
            return self._alarm(self._warned)
        return self._calmed(rows, errors)

    def rearm(self) -> None:
        """Begin anew against the first baseline, nothing latched."""
        errors, rows = self._origin or (0, 0)
        self.rebase(errors=errors, rows=rows)

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
            return [self._recovered("down" if self._was_up else "up", level)]
        return []

    def _alarm(self, side: _Side) -> list[ConceptChange]:
        level, log_e = side.level, side.log_e
        if self.status in ("drift", "warning") and self._is_origin(level):
            return [self._recovered(side.direction, level, log_e)]
        if self._effect(side) >= self._effect_min:
            change = self._change("drift", side, log_e)
            self._rearm()
            return [change]
        side.latch()
        if self.status != "ok":
            # Already said: a warning again, or a small step on top of a drift, is no news.
            self._warned = side
            return []
        self._warned = side
        return [self._change("warning", side, log_e)]

    def _calmed(self, rows: int, errors: int) -> list[ConceptChange]:
        """A state ends when the rate is back, also where that raises no evidence on either side."""
        if self.status == "ok":
            return []
        self._calm[0] += errors
        self._calm[1] += rows
        if self._calm[1] < CALM_ROWS:
            return []
        level = (self._calm[0], self._calm[1])
        self._calm = [0, 0]
        if not self._is_origin(level, CALM_Z):
            return []
        return [self._recovered("down" if self._was_up else "up", level)]

    def _effect(self, side: _Side) -> float:
        """What two standard errors leave of the change: an alarm picks the worst stretch."""
        errors, rows = side.level
        if not rows:
            return 0.0
        now = _rate(errors, rows)
        return abs(now - _rate(*self._level)) - EFFECT_Z * math.sqrt(now * (1.0 - now) / rows)

    def _change(self, state: ConceptState, side: _Side, log_e: float) -> ConceptChange:
        self.status, self._was_up, self._calm = state, side.direction == "up", [0, 0]
        was, now = _rate(*self._level), _rate(*side.level)
        verb = "rose" if side.direction == "up" else "fell"
        return ConceptChange(
            state=state,
            direction=side.direction,
            baseline_rate=was,
            rate=now,
            rows=side.level[1],
            log10_evidence=log_e / math.log(10.0),
            explain=f"{self._what} {verb} from {was:.3f} to {now:.3f} "
            f"over {side.level[1]:,} labelled rows",
        )

    def _recovered(
        self, direction: Direction, level: tuple[int, int], log_e: float = 0.0
    ) -> ConceptChange:
        """Back at the first baseline, and armed against that again."""
        assert self._origin is not None
        self.status = "ok"
        self._arm(self._origin)
        return ConceptChange(
            state="ok",
            direction=direction,
            baseline_rate=_rate(*self._origin),
            rate=_rate(*level),
            rows=level[1],
            log10_evidence=log_e / math.log(10.0),
            explain=f"{self._what} is back at {_rate(*level):.3f}, "
            f"near its baseline {_rate(*self._origin):.3f}",
        )

    def _is_origin(self, level: tuple[int, int], z: float = BASELINE_Z) -> bool:
        assert self._origin is not None
        was, now = _rate(*self._origin), _rate(*level)
        spread = math.sqrt(was * (1 - was) * (1 / max(self._origin[1], 1) + 1 / max(level[1], 1)))
        return abs(now - was) <= TOLERANCE + z * spread

    def _arm(self, level: tuple[int, int]) -> None:
        self._level = level
        self._sides = (_Side(level, "up", self._budget), _Side(level, "down", self._budget))
        self._warned = None

    def _rearm(self) -> None:
        """Forget the old level; the next rows teach the new one."""
        self._sides, self._warned = (), None
        self._learning = [0, 0]
        self._learn_target = self._rearm_rows

    def state(self) -> dict[str, Any]:
        """Everything that matters, as JSON-able values."""
        return {
            "origin": None if self._origin is None else list(self._origin),
            "level": list(self._level),
            "learning": list(self._learning),
            "learn_target": self._learn_target,
            "calm": list(self._calm),
            "was_up": self._was_up,
            "status": self.status,
            "sides": [side.state() for side in self._sides],
            "warned": None if self._warned is None else self._warned.direction,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off; the same ticks then give the same changes."""
        origin = state["origin"]
        self._origin = None if origin is None else (int(origin[0]), int(origin[1]))
        self._level = (int(state["level"][0]), int(state["level"][1]))
        self._learning = [int(state["learning"][0]), int(state["learning"][1])]
        self._learn_target = int(state["learn_target"])
        self._calm = [int(state["calm"][0]), int(state["calm"][1])]
        self._was_up = bool(state["was_up"])
        self.status = state["status"]
        self._sides, self._warned = (), None
        if state["sides"]:
            self._arm(self._level)
            armed: _Side
            for armed, saved in zip(self._sides, state["sides"], strict=True):
                armed.restore(saved)
                if state["warned"] == armed.direction:
                    self._warned = armed


def _rate(errors: float, rows: float) -> float:
    """Error rate with half an error of doubt, so that a perfect record is not taken for proof."""
    return (errors + 0.5) / (rows + 1.0)


def _times_odds(rate: NDArray[np.float64], ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = rate / (1.0 - rate) * ratios
    return odds / (1.0 + odds)
