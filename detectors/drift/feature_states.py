"""What state each feature of one reference is in, and when that changes: counts in, changes out.

`ok` until one of two paths alarms, then latched, then `ok` again. Everything that a restart must
keep and that is not a name or a setting is here, one row of each array for a feature.

The one thing not to break: rows from before a recovery must never be held against a feature again,
or it would flap; `fresh_row` sees to that, for windows reach further back than evidence.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.effects import Effects
from detectors.drift.evidence import EXPORTED_SCORES, Evidence
from detectors.drift.ladder import LADDER_SHARE, Ladder
from detectors.drift.recovery import Recovery
from detectors.references.feature_profile import FeatureProfile
from detectors.rows.bins import WIDTH
from detectors.rows.windows import WINDOW_ROWS, Ring

OK: Final = 0
WARNING: Final = 1
DRIFT: Final = 2

#: What can alarm, by its number in `path`.
PATHS: Final = ("e_detector", "ladder")

#: An effect measured on fewer rows says nothing yet: chance alone moves PSI by .03 at 200 rows.
EFFECT_ROWS_MIN: Final = 200
RECOVERY_PSI: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one tick changed, by feature number: raised to `warning` or `drift`, or back at `ok`
    with the rows and the corrected PSI of the last window.
    """

    raised: tuple[int, ...] = ()
    recovered: tuple[tuple[int, int, float], ...] = ()


class FeatureStates:
    """Evidence, ladder, recovery and windows of one set of profiles.

    `effect` gives the bounds on corrected PSI or KS above which an alarm is a drift.
    """

    def __init__(
        self,
        profiles: tuple[FeatureProfile, ...],
        *,
        false_alarms_per_month: float,
        ticks_per_month: float,
        effect: Mapping[str, float],
    ) -> None:
        d = len(profiles)
        self.effect = effect
        self._per_tick = false_alarms_per_month / ticks_per_month
        self._ticks_per_month = ticks_per_month
        self.effects = Effects(profiles)
        self.evidence = Evidence(profiles)
        self.ladder = Ladder(profiles)
        self.rings = [Ring(d, rows) for rows in WINDOW_ROWS]
        self._recovery = Recovery(self.effects.p, self.effects.phi)
        self.rows, self.ticks = 0, 0.0
        self.total = np.zeros((d, WIDTH), dtype=np.int64)
        self.since = np.zeros((d, WIDTH), dtype=np.int64)  # since the evidence left its floor
        self.since_row = np.zeros(d, dtype=np.int64)
        self.value = np.zeros(d)  # R, as of the last tick
        self.peak = np.zeros(d)  # R at the alarm, while latched
        self.state_of = np.zeros(d, dtype=np.int8)
        self.path = np.zeros(d, dtype=np.int8)  # which path alarmed
        self.compared = np.zeros((d, 2))  # the ladder's figure at its alarm, and what was needed
        self.fresh_row = np.zeros(d, dtype=np.int64)
        self.up = np.zeros((d, len(EXPORTED_SCORES)))  # log-evidence since the start
        self.down = np.zeros((d, len(EXPORTED_SCORES)))

    @property
    def unit(self) -> float:
        """One tick's share of one feature's evidence budget: what R is measured in, for people."""
        return self._per_tick * (1 - LADDER_SHARE) * self.evidence.share

    def observe(self, counts: NDArray[np.int64], *, rows: int, ticks: float) -> Changes:
        """Take one tick's counts [features, 18] and the tick's length, at most one."""
        budget = ticks * self._per_tick
        self.value, steps = self.evidence.update(counts, budget * (1 - LADDER_SHARE))
        self.ladder.save(budget * LADDER_SHARE)
        self.up += np.maximum(steps, 0)
        self.down += np.maximum(-steps, 0)
        self.rows, self.ticks = self.rows + rows, self.ticks + ticks
        self.total += counts
        self.since += counts
        full = [ring.push(counts, rows) for ring in self.rings]

        latched = self.state_of != OK
        refuted = self._recovery.update(counts, latched, ticks, self._ticks_per_month)
        floor = self.evidence.floor(self.rows / self.ticks if self.ticks else math.inf)
        held = self.evidence.hold(latched, self.unit, floor)
        quiet: NDArray[np.bool_] = np.where(latched, held, self.value <= floor * self.unit)
        raised = self._alarms(~latched, full) | self._confirm(~refuted)
        recovered = self._recover(latched & refuted & quiet)
        quiet &= self.state_of == OK
        self.since[quiet] = 0
        self.since_row[quiet] = self.rows
        return Changes(raised=tuple(raised.nonzero()[0].tolist()), recovered=recovered)

    def gates(self, which: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
        """Give corrected PSI and KS of features `which` since their evidence left its floor: over
        all rows, and over the last 10,000 where those are only a part, so that a long small drift
        does not hide a big one.
        """
        since = self.since[which]
        found = self.effects.gates(which, since)
        long = since.sum(axis=1) > 1.25 * self.rings[1].rows()
        if long.any():
            latest = self.effects.gates(which[long], self.rings[1].counts()[which[long]])
            for name, values in latest.items():
                found[name][long] = np.maximum(found[name][long], values)
        return found

    def reset(self) -> None:
        """Forget evidence and latched states; counters and windows stay."""
        self.evidence.reset(np.ones(len(self.total), dtype=bool))
        self.state_of[:] = OK
        self.since[:], self.since_row[:] = 0, self.rows
        self.value[:], self.peak[:], self.fresh_row[:] = 0, 0, self.rows

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as a flat dictionary of arrays."""
        state: dict[str, Any] = {name: getattr(self, name).copy() for name in _ARRAYS}
        state |= self.evidence.state() | self._recovery.state()
        state |= {"rows": np.array(self.rows), "ticks": np.array(self.ticks)}
        state["saved"] = self.ladder.saved.copy()
        for ring in self.rings:
            state |= {f"ring{ring.rows_max}_{k}": v for k, v in ring.state().items()}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError or KeyError for what does not fit."""
        for name in _ARRAYS:
            held: NDArray[Any] = getattr(self, name)
            given = np.array(state[name], dtype=held.dtype)
            if given.shape != held.shape:
                raise ValueError(f"{name} of shape {given.shape}, expected {held.shape}")
            setattr(self, name, given)
        self.evidence.restore(state)
        self._recovery.restore(state)
        saved = np.array(state["saved"], dtype=np.float64)
        if saved.shape != self.ladder.saved.shape or not np.isfinite(saved).all():
            raise ValueError(f"ladder: budget of shape {saved.shape}")
        self.ladder.saved = saved
        for ring in self.rings:
            prefix = f"ring{ring.rows_max}_"
            ring.restore({k: state[prefix + k] for k in ("counts", "rows", "head")})
        self.rows, self.ticks = int(state["rows"]), float(state["ticks"])

    def _alarms(self, open_: NDArray[np.bool_], full: Sequence[bool]) -> NDArray[np.bool_]:
        """Latch the features that alarm, by evidence or by a window that is ready; say which."""
        alarmed = self.evidence.alarms(self.value, open_)
        self.path[alarmed] = 0
        for w, ring in enumerate(self.rings):
            if not full[w]:
                continue
            counts, start = ring.counts(), self.rows - ring.rows()
            seen = self.ladder.compare(w, counts)
            new = seen.differs & open_ & ~alarmed & (self.fresh_row <= start)
            if new.any():
                self.path[new] = 1
                self.compared[new] = np.stack([seen.exponent[new], seen.needed[new]], axis=1)
                self.since[new], self.since_row[new] = counts[new], start
                alarmed |= new
        if alarmed.any():
            self.state_of[alarmed] = WARNING
            self.peak[alarmed] = self.value[alarmed]
            self._recovery.begin(alarmed, self.since[alarmed])
        return alarmed

    def _confirm(self, lasts: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Raise warnings to drift where the effect, too, is big enough; say which were raised."""
        raised = np.zeros(len(self.total), dtype=bool)
        which = (lasts & (self.state_of == WARNING)).nonzero()[0]
        if len(which):
            found = self.gates(which)
            big = np.zeros(len(which), dtype=bool)
            for name, bound in self.effect.items():
                big |= found[name] >= bound
            raised[which] = big & (self.since[which].sum(axis=1) >= EFFECT_ROWS_MIN)
            self.state_of[raised] = DRIFT
        return raised

    def _recover(self, calm: NDArray[np.bool_]) -> tuple[tuple[int, int, float], ...]:
        """Let go of calm features whose last window looks like the reference; say which."""
        which = calm.nonzero()[0]
        if not len(which):
            return ()
        counts = self.rings[0].counts()[which]
        psi = self.effects.gates(which, counts)["psi"]
        back = which[psi < RECOVERY_PSI]
        self.state_of[back], self.peak[back], self.fresh_row[back] = OK, 0, self.rows
        freed = np.zeros(len(self.total), dtype=bool)
        freed[back] = True
        self.evidence.reset(freed)
        rows = counts.sum(axis=1)
        return tuple(
            (int(j), int(n), float(value))
            for j, n, value in zip(which, rows, psi, strict=True)
            if value < RECOVERY_PSI
        )


_ARRAYS: Final = (
    "total",
    "since",
    "since_row",
    "value",
    "peak",
    "state_of",
    "path",
    "compared",
    "fresh_row",
    "up",
    "down",
)
