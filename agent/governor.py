"""How much may be looked at for what it costs: measurements in, a scale of the sampling rates out.

Pure: time is an argument. The scale is 1 when everything asked for is kept; lowered when the
budgets are overdrawn, raised slowly when there is room. Nothing here may look at what single
exchanges contain: a rate that is decided by load alone, before an exchange is drawn, leaves every
weight and all evidence exact.

CPU. What is used is averaged from the last change of the scale on, over `AVERAGE_S` at most, so
that a cost of before a change is never held against the rate of after it. What goes beyond the
budget adds up to a debt; only a debt of `BURST_S` seconds' worth of budget lowers the scale. A
reference that is built, a snapshot or a scrape so cost nothing, and a large excess is answered
sooner than a small one. At the start `START_S` seconds' worth are free.

Raising waits `RAISE_AFTER_S`, twice as long each time that a raise had to be taken back, and goes
only to where the budget would hold at the present cost per exchange: load that stays the same
changes the scale a few times and then no more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Limit: TypeAlias = Literal["cpu", "memory", "rows"]
Why: TypeAlias = Literal["none", "cpu", "memory", "rows"]

AVERAGE_S: Final = 30.0
BURST_S: Final = 50.0
START_S: Final = 100.0
TARGET: Final = 0.85  # of the budget: where a change of the scale aims at
ROOM: Final = 0.7  # of the budget: below it the scale may rise
STEP_DOWN_MIN: Final = 0.1  # one step never goes below this share of the scale
STEP_UP_MAX: Final = 2.0
RAISE_AFTER_S: Final = 60.0
RAISE_AFTER_S_MAX: Final = 1_920.0
TAKEN_BACK_S: Final = 300.0  # a lowering so soon after a raise says that the raise was too much
MEMORY_PATIENCE_S: Final = 30.0  # memory falls late: arrays go with their tick, and pages later
MEMORY_STEP: Final = 0.5
MEMORY_ROOM: Final = 0.9
ROWS_EVERY_S: Final = 5.0
ROWS_STEP_UP_MAX: Final = 1.25
ROWS_DEADBAND: Final = 0.05
GAP_S_MAX: Final = 60.0  # between two measurements: more was a suspended machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be used, and how far the scale may fall."""

    cpu: float = 0.1  # cores
    memory_bytes: float = 268_435_456.0
    rows_per_s: float | None = None
    scale_min: float = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Cumulative figures may start from 0 again: a process was started again."""

    at: float  # monotonic seconds
    cpu_s: float  # cumulative
    rows: int  # cumulative, looked at
    memory_bytes: float | None = None  # None: could not be measured


class Governor:
    """Holds the budgets; `step` is called about once a second."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.scale = 1.0
        self.why: Why = "none"  # which limit has the scale where it is
        self.used_cpu = 0.0  # cores, averaged
        self.memory_bytes: float | None = None
        self.rows_per_s = 0.0
        self.unheld: frozenset[Limit] = frozenset()  # budgets overdrawn at the lowest scale
        self.changes = 0
        self._governed = 1.0  # the scale without the limit of rows
        self._governed_why: Why = "none"
        self._row_scale = 1.0
        self._debt_s = -START_S * budget.cpu  # CPU seconds; less than 0: that much is free
        self._averaged_s = 0.0  # how long the average has been gathered
        self._over_s = self._over_cpu_s = 0.0  # since there is a debt: how long, and what was used
        self._room_s = 0.0  # for how long there has been room to rise
        self._last: Measurement | None = None
        self._rows_from: Measurement | None = None
        self._raised_at = -math.inf
        self._taken_back_at = -math.inf
        self._raise_after_s = RAISE_AFTER_S
        self._over_memory_s = 0.0

    def set_budget(self, budget: Budget) -> None:
        """Another budget from now on: a reload."""
        self.budget = budget

    def step(self, seen: Measurement) -> bool:
        """Take a measurement; True when the scale is another one now."""
        last, self._last = self._last, seen
        if last is None or not 0.0 < seen.at - last.at <= GAP_S_MAX or seen.cpu_s < last.cpu_s:
            self._rows_from = seen
            return False
        elapsed_s = seen.at - last.at
        self._account(elapsed_s, seen.cpu_s - last.cpu_s)
        self._look_at_memory(elapsed_s, seen.memory_bytes)
        self._look_at_rows(seen)
        if not self._lower(seen.at):
            self._raise(seen.at)
        return self._settle(seen.at)

    # Measuring.

    def _account(self, elapsed_s: float, cpu_s: float) -> None:
        self._averaged_s = min(self._averaged_s + elapsed_s, AVERAGE_S)
        share = min(1.0, elapsed_s / self._averaged_s)
        self.used_cpu += share * (cpu_s / elapsed_s - self.used_cpu)
        debt_s = self._debt_s + cpu_s - self.budget.cpu * elapsed_s
        # What is free at the start goes as it is used, and is not saved up again.
        floor_s = min(self._debt_s, 0.0)
        self._debt_s = min(max(debt_s, floor_s), BURST_S * self.budget.cpu)
        if self._debt_s > floor_s:
            self._over_s += elapsed_s
            self._over_cpu_s += cpu_s
        else:
            self._over_s = self._over_cpu_s = 0.0
        room = self.used_cpu <= ROOM * self.budget.cpu and self._debt_s <= 0.0
        self._room_s = self._room_s + elapsed_s if room else 0.0

    def _look_at_memory(self, elapsed_s: float, memory_bytes: float | None) -> None:
        self.memory_bytes = memory_bytes
        over = memory_bytes is not None and memory_bytes > self.budget.memory_bytes
        self._over_memory_s = self._over_memory_s + elapsed_s if over else 0.0

    def _look_at_rows(self, seen: Measurement) -> None:
        """Rows a second, and the scale that the limit on them leaves for the next interval."""
        start = self._rows_from
        if start is None or seen.rows < start.rows:
            self._rows_from = seen
            return
        elapsed_s = seen.at - start.at
        if elapsed_s < ROWS_EVERY_S:
            return
        self._rows_from = seen
        self.rows_per_s = (seen.rows - start.rows) / elapsed_s
        limit = self.budget.rows_per_s
        if limit is None:
            self._row_scale = 1.0
            return
        wanted = self.scale * limit / self.rows_per_s if self.rows_per_s else math.inf
        wanted = min(wanted, self._row_scale * ROWS_STEP_UP_MAX, 1.0)
        if abs(wanted - self._row_scale) > ROWS_DEADBAND * self._row_scale or wanted == 1.0:
            self._row_scale = wanted

    # Deciding.

    @property
    def _over_cpu(self) -> bool:
        overdrawn = self._debt_s >= BURST_S * self.budget.cpu
        return overdrawn and self._over_cpu_s > self.budget.cpu * self._over_s

    @property
    def _over_memory(self) -> bool:
        return self._over_memory_s >= MEMORY_PATIENCE_S

    def _lower(self, now: float) -> bool:
        """Whether a budget is overdrawn; lowers the scale where it can."""
        if self._over_cpu:
            # What the excess was, not what the average makes of it with the calm before.
            factor = max(TARGET * self.budget.cpu * self._over_s / self._over_cpu_s, STEP_DOWN_MIN)
            self._go(self.scale * factor, "cpu", now)
        elif self._over_memory:
            self._over_memory_s = 0.0
            self._go(self.scale * MEMORY_STEP, "memory", now)
        else:
            self._relieve()
            return False
        return True

    def _go(self, wanted: float, why: Limit, now: float) -> None:
        if self.scale <= self.budget.scale_min:
            self.unheld |= {why}
            return
        self._governed, self._governed_why = max(wanted, self.budget.scale_min), why
        self._start_over()
        if now - self._raised_at < TAKEN_BACK_S:
            self._raise_after_s = min(2.0 * self._raise_after_s, RAISE_AFTER_S_MAX)
            self._raised_at = -math.inf
            self._taken_back_at = now

    def _relieve(self) -> None:
        """What was overdrawn at the lowest scale and is not any more."""
        if "cpu" in self.unheld and self.used_cpu <= self.budget.cpu:
            self.unheld -= {"cpu"}
        memory = self.memory_bytes
        if "memory" in self.unheld and memory is not None and memory <= self.budget.memory_bytes:
            self.unheld -= {"memory"}

    def _raise(self, now: float) -> None:
        if self._governed >= 1.0 or self._room_s < self._raise_after_s:
            return
        memory = self.memory_bytes
        if memory is not None and memory > MEMORY_ROOM * self.budget.memory_bytes:
            return
        factor = STEP_UP_MAX
        if self.used_cpu > 0.0:
            factor = min(factor, TARGET * self.budget.cpu / self.used_cpu)
        self._governed = min(1.0, self._governed * factor)
        if self._governed == 1.0:
            self._governed_why = "none"
        if now - self._taken_back_at > 2.0 * self._raise_after_s:
            self._raise_after_s = max(RAISE_AFTER_S, self._raise_after_s / 2.0)
        self._raised_at = now
        self._start_over()

    def _start_over(self) -> None:
        self._averaged_s = self._room_s = 0.0
        self._over_s = self._over_cpu_s = 0.0
        self._debt_s = 0.0

    def _settle(self, now: float) -> bool:
        """The lowest of what each limit leaves."""
        scale, why = self._governed, self._governed_why
        if self._row_scale < scale:
            scale, why = self._row_scale, "rows"
        scale = min(1.0, max(scale, self.budget.scale_min))
        if self._row_scale < self.budget.scale_min and self.budget.rows_per_s is not None:
            self.unheld |= {"rows"}
        else:
            self.unheld -= {"rows"}
        changed = scale != self.scale
        self.changes += changed
        self.scale, self.why = scale, why
        return changed

    # Restarts.

    def state(self) -> dict[str, Any]:
        """What a restart goes on with: load that was too much still is."""
        return {"scale": self._governed, "why": self._governed_why}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`. Raises KeyError, TypeError or ValueError."""
        scale = float(state["scale"])
        if not 0.0 < scale <= 1.0:
            raise ValueError(f"a scale of {scale} was never in force")
        self._governed = max(scale, self.budget.scale_min)
        why: Why = "memory" if state["why"] == "memory" else "cpu"
        self._governed_why = why if scale < 1.0 else "none"
        self.scale, self.why = self._governed, self._governed_why
