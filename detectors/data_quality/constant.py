"""Features and predictions that stop varying: a sensor that is stuck, a model that says one thing,
a column without any value.

Only whole ticks count in which a column holds one value, so that the rows themselves are looked at
only where a column may be constant. The evidence is an e-detector against the bins of the
reference: a run of n rows in a bin of share p has probability at most stay^n, where stay = 1 - 2 (1
- p) / (phi + 1) is the chance that a value so autocorrelated stays (a two-state chain of design
effect phi; p itself when rows are independent). p is the upper limit of what the reference allows.
What hardly varied in the reference therefore never alarms.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023). The one thing not to break: stay is a bound.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.data_quality.latches import Latches
from detectors.drift.explain import shown
from detectors.reading import Change, Kind, Scope, State
from detectors.reference import FeatureProfile
from detectors.references.calibration import REFERENCE_ERRORS
from detectors.rows.binning import WIDTH
from detectors.rows.columns import Column, digest_of, is_masked, key_of
from detectors.rows.places import places

#: A run of fewer rows is not spoken of, however unlikely it is.
RUN_ROWS_MIN: Final = 200
_LOG_STEP_MAX: Final = 300.0
_MISSING: Final = ""


class Constant:
    """Watches columns for runs of one value; `model` names those that are the model's output.

    Raises ValueError for a senseless budget.
    """

    def __init__(
        self,
        profiles: Sequence[FeatureProfile],
        *,
        false_alarms_per_month: float,
        ticks_per_month: float,
        model: frozenset[str] = frozenset(),
    ) -> None:
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError("false_alarms_per_month and ticks_per_month must be above 0, finite")
        self._profiles = tuple(profiles)
        self._model = model
        d = len(self._profiles)
        self._unit = false_alarms_per_month / ticks_per_month / max(d, 1)
        self._gain = np.zeros((d, WIDTH))  # evidence per row of a run in that bin
        for j, profile in enumerate(self._profiles):
            self._gain[j] = _gains(profile)
        self._bins = np.array([max(int(p.live().sum()), 1) for p in self._profiles])
        # a value that stays falls into other bins as hours pass: counts tell nothing of it
        self._seasonal = np.array([bool(p.phases) for p in self._profiles], dtype=bool)
        self._log_r = np.full(d, -np.inf)
        self._rows = np.zeros(d, dtype=np.int64)  # of the run, 0: none
        self._value = [_MISSING] * d  # digest of the run's value
        self._latches = Latches(patience_rows=0)

    def update(
        self,
        columns: Mapping[str, Column],
        rows: int,
        *,
        ticks: float,
        counts: NDArray[np.int64] | None = None,
    ) -> list[Change]:
        """Take one tick's columns of `rows` rows each; `counts` [features, 18], if known, spare a
        look at the columns themselves.
        """
        if not rows:
            return []
        which: Iterable[int] = range(len(self._profiles))
        if counts is not None:
            told = (counts.max(axis=1, initial=0) < counts.sum(axis=1)) & ~self._seasonal
            self._rows[told], self._log_r[told] = 0, -np.inf
            which = np.flatnonzero(~told).tolist()
        changes: list[Change] = []
        troubled: set[str] = set()
        said: dict[str, tuple[int, str]] = {}
        for j in which:
            profile = self._profiles[j]
            column = columns.get(profile.name)
            if column is None:  # nothing is known of it: the schema speaks
                if self._latches.troubled(profile.name):
                    troubled.add(profile.name)
                continue
            if not _may_be_constant(column) or not _is_constant(column):
                self._rows[j], self._log_r[j] = 0, -np.inf
                continue
            key = self._run(j, column, rows, ticks)
            if self._stuck(j) or self._latches.troubled(profile.name):
                troubled.add(profile.name)
                said[profile.name] = (j, key)
        for name, state in self._latches.step(troubled, rows).items():
            if name in said:
                changes.append(self._change(*said[name], state))
            elif state is State.OK:
                changes.append(self._recovered(name, rows))
        return changes

    def standing(self) -> list[str]:
        """Give the columns that are said to be constant now."""
        return self._latches.standing()

    def stuck(self) -> bool:
        """Say whether any column is said to be constant now."""
        return self._latches.any_troubled()

    def _run(self, j: int, column: Column, rows: int, ticks: float) -> str:
        """Go on with the feature's run, or begin one; give what its value is called."""
        key = key_of(column[0])
        value = _MISSING if key is None else digest_of(key)
        if value != self._value[j] or not self._rows[j]:
            self._rows[j], self._log_r[j] = 0, -np.inf
        self._value[j] = value
        bin_ = int(places(column[:1], self._profiles[j].bins)[0])
        gift = self._unit * min(max(ticks, 0.0), 1.0) / self._bins[j]
        granted = math.log(gift) if gift > 0 else -math.inf
        grown = min(float(self._gain[j, bin_]) * rows, _LOG_STEP_MAX)
        self._log_r[j] = np.logaddexp(self._log_r[j], granted) + grown
        self._rows[j] += rows
        return "" if key is None else key

    def _stuck(self, j: int) -> bool:
        return bool(self._log_r[j] >= 0 and self._rows[j] >= RUN_ROWS_MIN)

    def _change(self, j: int, key: str, state: State) -> Change:
        profile, run = self._profiles[j], int(self._rows[j])
        name = shown(profile.name)
        if self._value[j] == _MISSING:
            explain = f"{name} had no value in any of {run:,} rows"
        elif profile.sensitive:
            explain = f"{name} was one and the same in {run:,} rows; in the reference it varied"
        else:
            explain = f"{name} was {shown(key)} in all of {run:,} rows; in the reference it varied"
        if profile.name in self._model:
            explain = f"the model's output does not vary: {explain}"
        evidence = (float(self._log_r[j]) - math.log(self._unit)) / math.log(10)
        return Change(
            kind=Kind.DATA_QUALITY,
            scope=Scope.MODEL if profile.name in self._model else Scope.FEATURE,
            subject=profile.name,
            detector="constant",
            state=state,
            statistic=evidence,
            threshold=-math.log10(self._unit),
            evidence=evidence,
            rows=run,
            explain=explain,
        )

    def _recovered(self, name: str, rows: int) -> Change:
        return Change(
            kind=Kind.DATA_QUALITY,
            scope=Scope.MODEL if name in self._model else Scope.FEATURE,
            subject=name,
            detector="constant",
            state=State.OK,
            statistic=0.0,
            threshold=-math.log10(self._unit),
            evidence=0.0,
            rows=rows,
            explain=f"{shown(name)} varies again",
        )

    def reset(self) -> None:
        """Forget runs and what was said."""
        self._log_r[:], self._rows[:] = -np.inf, 0
        self._latches = Latches(patience_rows=0)

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep: arrays, and JSON values. Values are kept by hash."""
        return {
            "log_r": self._log_r.copy(),
            "rows": self._rows.copy(),
            "value": list(self._value),
            "latches": self._latches.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        log_r = np.array(state["log_r"], dtype=np.float64)
        rows = np.array(state["rows"], dtype=np.int64)
        value = [str(v) for v in state["value"]]
        if not log_r.shape == rows.shape == self._rows.shape or len(value) != len(self._value):
            raise ValueError(f"runs of {len(value)} features, expected {len(self._value)}")
        if np.isnan(log_r).any() or (rows < 0).any():
            raise ValueError("runs that cannot be")
        self._latches.restore(state["latches"])
        self._log_r, self._rows, self._value = log_r, rows, value


def _gains(profile: FeatureProfile) -> NDArray[np.float64]:
    """Give -ln(stay) of each bin, [18]."""
    p = profile.probabilities()
    phi = max(profile.phi, 1.0)
    rows = max(profile.rows / phi, 1.0)
    slack = profile.tolerance + REFERENCE_ERRORS / math.sqrt(rows)
    upper = np.minimum(p + slack * np.sqrt(p * (1 - p)) + 7 / (3 * rows), 1.0)
    stay = 1 - 2 * (1 - upper) / (phi + 1)
    gains: NDArray[np.float64] = -np.log(np.maximum(stay, 1e-300))
    return gains


def _may_be_constant(column: Column) -> bool:
    """Compare the first value with two others: most columns that vary are told by that."""
    try:
        first = column[0]
        for other in (column[len(column) // 2], column[-1]):
            same = first is other or bool(first == other) or (first != first and other != other)
            if not same:
                return key_of(first) is None and key_of(other) is None
    except Exception:  # any object may stand in a column, and its comparison may raise anything
        return False
    return True


def _is_constant(column: Column) -> bool:
    """Say whether all rows hold one value, missing being one."""
    first = key_of(column[0])
    if is_masked(column) or column.dtype.kind == "O":
        values = column.tolist()
        try:
            if first is not None:
                return bool(values.count(values[0]) == len(values))
        except Exception:  # a comparison that raises, or gives an array
            return False
        return all(key_of(value) is None for value in values)
    if first is None:
        return bool(np.isnat(column).all() if column.dtype.kind in "mM" else np.isnan(column).all())
    return bool((column == column[0]).all())
