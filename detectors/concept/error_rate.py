"""Concept drift on the stream of labelled errors: is the model wrong more (or less) often?

The evidence is a Shiryaev-Roberts e-detector for Bernoulli outcomes. A tick needs only the
number of labelled rows and of errors, so states are small and ticks of replicas add up.
The null hypothesis has a margin around the baseline's error rate; whoever narrows it makes the
detector alarm on the baseline's own estimation error. Rows that resemble their neighbours tell less
than as many independent ones: evidence, and what the baseline is worth, are divided by their design
effect (see `references.calibration`).

Source: Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection" (2023); Ville's inequality for the bound on false alarms.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from detectors.concept.error_bets import BASELINE_Z, TOLERANCE, Direction, Side, rate_of

ConceptState = Literal["ok", "warning", "drift", "insufficient_data"]

EFFECT_Z = 2.0
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
    phi, wander
        Design effect of successive rows, at least 1, and how far the rate wanders by itself beyond
        that, in standard deviations of one row.

    Raises ValueError for a baseline that cannot be.

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
        phi: float = 1.0,
        wander: float = 0.0,
    ) -> None:
        self._what = what
        self._phi, self._wander = max(phi, 1.0), max(wander, 0.0)
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
        self._sides: tuple[Side, ...] = ()
        self._warned: Side | None = None  # its evidence came, its effect has not yet
        self._calm = [0, 0]  # errors and rows since the change, or since they were last looked at
        self._was_up = False  # the direction of the last change
        self.status: ConceptState = "insufficient_data"
        if self._origin is not None:
            self._arm(self._origin)
            self.status = "ok"

    @property
    def baseline_rate(self) -> float | None:
        """The error rate that changes are reported against, if there is one yet."""
        return None if not self._sides else rate_of(*self._level)

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

    def _alarm(self, side: Side) -> list[ConceptChange]:
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

    def _effect(self, side: Side) -> float:
        """What two standard errors leave of the change: an alarm picks the worst stretch."""
        errors, rows = side.level
        if not rows:
            return 0.0
        now = rate_of(errors, rows)
        error = math.sqrt(now * (1.0 - now) * self._phi / rows)
        return abs(now - rate_of(*self._level)) - EFFECT_Z * error

    def _change(self, state: ConceptState, side: Side, log_e: float) -> ConceptChange:
        self.status, self._was_up, self._calm = state, side.direction == "up", [0, 0]
        was, now = rate_of(*self._level), rate_of(*side.level)
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
            baseline_rate=rate_of(*self._origin),
            rate=rate_of(*level),
            rows=level[1],
            log10_evidence=log_e / math.log(10.0),
            explain=f"{self._what} is back at {rate_of(*level):.3f}, "
            f"near its baseline {rate_of(*self._origin):.3f}",
        )

    def _is_origin(self, level: tuple[int, int], z: float = BASELINE_Z) -> bool:
        assert self._origin is not None
        was, now = rate_of(*self._origin), rate_of(*level)
        deviation = math.sqrt(was * (1 - was))
        doubt = math.sqrt(self._phi * (1 / max(self._origin[1], 1) + 1 / max(level[1], 1)))
        return abs(now - was) <= TOLERANCE + deviation * (self._wander + z * doubt)

    def _arm(self, level: tuple[int, int]) -> None:
        self._level = level
        rows = {"phi": self._phi, "wander": self._wander}
        self._sides = (
            Side(level, "up", self._budget, **rows),
            Side(level, "down", self._budget, **rows),
        )
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
        """Continue where `state()` left off; the same ticks then give the same changes.

        Raises ValueError, KeyError or TypeError for what does not fit.
        """
        origin = state["origin"]
        if state["status"] not in get_args(ConceptState):
            raise ValueError(f"error rate: status {state['status']!r}")
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
            armed: Side
            for armed, saved in zip(self._sides, state["sides"], strict=True):
                armed.restore(saved)
                if state["warned"] == armed.direction:
                    self._warned = armed
