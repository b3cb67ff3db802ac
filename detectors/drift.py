"""Data and prediction drift of one model version: batches of columns in, readings out.

One call of `update` is one tick. Each feature is `ok` until the evidence (see `evidence`) crosses
the budgeted level; then it is latched as `warning`, or as `drift` if the effect over the rows since
the evidence left its floor is big enough too. It is `ok` again after the evidence is back at its
floor and PSI over the last 1,000 rows stayed below .05 for 3,000 rows. The same batches give the
same state and the same readings; a restart with `restore` changes nothing.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors import export
from detectors.binning import WIDTH, Binner
from detectors.calibration import detectable_shift
from detectors.columns import Table, as_table
from detectors.distances import ks, ks_corrected, psi_corrected, shares
from detectors.evidence import EXPORTED_SCORES, FLOOR_TICKS, Evidence, effective_rows
from detectors.explain import Narrator
from detectors.reading import Effect, Kind, Moment, Reading, Scope, State
from detectors.reference import FeatureProfile, ProfileError, Reference
from detectors.windows import WINDOW_ROWS, Ring

STATE_FORMAT: Final = 1
#: An effect measured on fewer rows says nothing yet: chance alone moves PSI by .03 at 200 rows.
EFFECT_ROWS_MIN: Final = 200
RECOVERY_PSI: Final = 0.05
RECOVERY_ROWS: Final = 3 * WINDOW_ROWS[0]
EFFECT_DEFAULT: Final[Mapping[str, float]] = {"psi": 0.1, "ks": 0.1}

_OK, _WARNING, _DRIFT = 0, 1, 2
_STATES: Final = (State.OK, State.WARNING, State.DRIFT)


class DriftDetector:
    """Watches the features of a reference, or its prediction (`kind="prediction_drift"`).

    `false_alarms_per_month` is the budget over all features together, a month being
    `ticks_per_month` ticks; `effect` gives the bounds above which evidence becomes `drift`.
    Raises ProfileError if the reference has nothing to watch, ValueError for a senseless budget.

    >>> import numpy as np
    >>> from detectors import build_reference
    >>> rng = np.random.default_rng(7)
    >>> monitor = DriftDetector(build_reference({"age": rng.normal(40, 9, 20_000)}))
    >>> monitor.update({"age": rng.normal(40, 9, 1_000)})
    []
    >>> [reading] = monitor.update({"age": rng.normal(49, 9, 1_000)})
    >>> reading.state.value, reading.subject
    ('drift', 'age')
    """

    def __init__(
        self,
        reference: Reference,
        *,
        false_alarms_per_month: float = 1.0,
        ticks_per_month: float = 43_200,
        effect: Mapping[str, float] | None = None,
        version: str = "",
        kind: str = "data_drift",
        scope: str | None = None,
        profiles: Sequence[FeatureProfile] | None = None,
    ) -> None:
        self.kind = Kind(kind)
        model = self.kind in (Kind.PREDICTION_DRIFT, Kind.LABEL_DRIFT)
        self.scope = Scope(scope) if scope is not None else Scope.MODEL if model else Scope.FEATURE
        profiles = _watched(reference, self.kind) if profiles is None else tuple(profiles)
        if not profiles:
            raise ProfileError("reference: has no features to watch")
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError(
                "false_alarms_per_month and ticks_per_month must be above 0 and finite"
            )
        self.reference, self.version = reference, version
        self.effect = dict(EFFECT_DEFAULT if effect is None else effect)
        if not self.effect or set(self.effect) - set(EFFECT_DEFAULT):
            raise ValueError(
                f"effect: bounds on {sorted(EFFECT_DEFAULT)}, not {sorted(self.effect)}"
            )
        self._false_alarms, self._ticks_per_month = false_alarms_per_month, ticks_per_month
        self.names = tuple(profile.name for profile in profiles)
        self._profiles = profiles
        d = len(profiles)
        self._p = np.array([profile.probabilities() for profile in profiles])
        self._reference_rows = np.array([effective_rows(profile) for profile in profiles])
        self._ordered = np.array([profile.ordered for profile in profiles])
        self._limits = export.limits(profiles)
        self._binner = Binner([(profile.name, profile.bins) for profile in profiles])
        self._evidence = Evidence(profiles)
        self._narrator = Narrator(
            kind=self.kind, scope=self.scope, reference=reference.digest, version=version
        )
        self._rings = [Ring(d, rows) for rows in WINDOW_ROWS]
        self._total = np.zeros((d, WIDTH), dtype=np.int64)
        self._since = np.zeros((d, WIDTH), dtype=np.int64)  # since the evidence left its floor
        self._since_row = np.zeros(d, dtype=np.int64)
        self._value = np.zeros(d)  # R, as of the last tick
        self._peak = np.zeros(d)  # R at the alarm, while latched
        self._state = np.zeros(d, dtype=np.int8)
        self._calm_rows = np.zeros(d, dtype=np.int64)
        self._up = np.zeros((d, len(EXPORTED_SCORES)))
        self._down = np.zeros((d, len(EXPORTED_SCORES)))
        self.rows = 0

    def update(
        self,
        columns: Any,
        *,
        ticks: float = 1.0,
        at: float | None = None,
        times: NDArray[np.float64] | None = None,
    ) -> list[Reading]:
        """Take one tick's rows and give the changes of state, none if nothing changed.

        `ticks` is the tick's length in ticks (its share of the budget), at most 1 whatever is
        said; `at` the time in Unix seconds that readings carry; `times` that of each row, for
        features binned by their phase. Columns that are absent or malformed count nothing; they
        never raise. Zero rows change nothing. Raises TypeError if `columns` is no mapping or table.
        """
        table = columns if isinstance(columns, Table) else as_table(columns)
        if not table.rows:
            return []
        if times is None:
            counts = self._binner.count(table.columns, table.rows)
        else:
            counts = self._binner.count(table.columns, table.rows, times)
        return self.observe(counts, rows=table.rows, ticks=ticks, at=at)

    def observe(
        self,
        counts: NDArray[np.int64],
        *,
        rows: int,
        ticks: float = 1.0,
        at: float | None = None,
    ) -> list[Reading]:
        """Take one tick as counts [features, 18], binned elsewhere with this very reference.

        Counts of replicas add: the readings of a fleet are those of the summed counts.
        """
        if rows <= 0:
            return []
        ticks = min(max(ticks, 0.0), 1.0) if math.isfinite(ticks) else 0.0
        budget = ticks * self._false_alarms / self._ticks_per_month
        self._value, steps = self._evidence.update(counts, budget)
        self._up += np.maximum(steps, 0)
        self._down += np.maximum(-steps, 0)
        self.rows += rows
        self._total += counts
        self._since += counts
        for ring in self._rings:
            ring.push(counts, rows)
        moment = Moment(row=self.rows, at=at)

        latched = self._state != _OK
        quiet = np.where(
            latched,
            self._evidence.hold(latched, self._unit()),
            self._value <= FLOOR_TICKS * self._unit(),
        )
        alarmed = self._evidence.alarms(self._value, ~latched)
        self._state[alarmed] = _WARNING
        self._peak[alarmed] = self._value[alarmed]
        changed = alarmed | self._confirm(~quiet)
        readings = [self._drift_reading(int(j), moment) for j in np.flatnonzero(changed)]
        readings += self._recover(quiet, rows, moment)
        self._since[quiet] = 0
        self._since_row[quiet] = self.rows
        return readings

    def effects(self, window_rows: int = 10_000) -> dict[str, dict[str, float | int | str]]:
        """Give each feature's distances over about the last `window_rows` rows, and its state.

        Windows are 1,000, 10,000 and 100,000 rows. `wasserstein` is in the feature's own unit;
        `psi_corrected` is PSI less what chance alone gives for that many rows.
        """
        counts = self._rings[WINDOW_ROWS.index(window_rows)].counts()
        figures = export.figures(self._p, counts, self._reference_rows, self._ordered, self._limits)
        states = self.states()
        return {
            name: {
                **{key: float(values[j]) for key, values in figures.items()},
                "rows": int(counts[j].sum()),
                "state": states[name].value,
            }
            for j, name in enumerate(self.names)
        }

    def states(self) -> dict[str, State]:
        """Give each feature's state; `insufficient_data` before its first row."""
        seen = self._total.sum(axis=1) > 0
        return {
            name: _STATES[self._state[j]] if seen[j] else State.INSUFFICIENT_DATA
            for j, name in enumerate(self.names)
        }

    def evidence(self) -> dict[str, float]:
        """Give log10 of each feature's e-value, in ticks: 0 is one tick's worth of budget."""
        return dict(zip(self.names, self._log_evidence().tolist(), strict=True))

    @property
    def evidence_threshold(self) -> float:
        """Give the level that evidence must cross: log10(features x ticks per false alarm)."""
        return -math.log10(self._unit())

    def bin_counts(self) -> dict[str, NDArray[np.int64]]:
        """Give each feature's rows per bin since the start, 18 counts that only ever rise."""
        return {name: self._total[j].copy() for j, name in enumerate(self.names)}

    def export_bins(self) -> dict[str, dict[str, int]]:
        """Give each feature's rows since the start in the 8 exported bins, by label."""
        return export.grouped_counts(self._profiles, self._total)

    def export_reference(self) -> dict[str, dict[str, float]]:
        """Give each feature's reference shares in the 8 exported bins."""
        return export.grouped_shares(self._profiles)

    def distributions(self, window_rows: int = 10_000) -> dict[str, dict[str, Any]]:
        """Give what a page shows: labels, reference and current shares of each feature's bins."""
        counts = self._rings[WINDOW_ROWS.index(window_rows)].counts()
        return export.distributions(self._profiles, counts)

    def detectable_shift(self) -> dict[str, float]:
        """Give the smallest shift of each feature, in standard deviations, that can be seen."""
        rows = (p.rows if p.counts_exact else effective_rows(p) * p.phi for p in self._profiles)
        return {
            p.name: detectable_shift(p.tolerance, p.phi, r)
            for p, r in zip(self._profiles, rows, strict=True)
        }

    def score_counters(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Give each feature's log-evidence since the start, (up, down) for each exported score."""
        scores = list(EXPORTED_SCORES.items())
        return {
            name: {
                label: (float(self._up[j, s]), float(self._down[j, s]))
                for s, (label, k) in enumerate(scores)
                if self._evidence.weights[j, k] > 0
            }
            for j, name in enumerate(self.names)
        }

    def reset(self) -> None:
        """Forget evidence and latched states; counters and windows stay."""
        everything = np.ones(len(self.names), dtype=bool)
        self._evidence.reset(everything)
        self._state[:] = _OK
        self._since[:], self._since_row[:] = 0, self.rows
        self._value[:], self._peak[:], self._calm_rows[:] = 0, 0, 0

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep, as a flat dictionary of arrays (`numpy.savez` takes
        it).
        """
        options = {
            "format": STATE_FORMAT,
            "reference": self.reference.digest,
            "false_alarms_per_month": self._false_alarms,
            "ticks_per_month": self._ticks_per_month,
            "effect": self.effect,
            "version": self.version,
            "kind": self.kind.value,
            "scope": self.scope.value,
            "rows": self.rows,
        }
        state: dict[str, Any] = {"options": np.array(json.dumps(options))}
        state |= {name: getattr(self, f"_{name}").copy() for name in _ARRAYS}
        state |= self._evidence.state()
        for ring in self._rings:
            state |= {f"ring{ring.rows_max}_{k}": v for k, v in ring.state().items()}
        return state

    @classmethod
    def restore(
        cls,
        reference: Reference,
        state: Mapping[str, Any],
        *,
        profiles: Sequence[FeatureProfile] | None = None,
    ) -> "DriftDetector":
        """Go on where `state` was taken; `profiles` must be those it watched, if it was given any.

        Raises ProfileError if it was of another reference.
        """
        try:
            options = json.loads(str(state["options"]))
            if options["format"] != STATE_FORMAT:
                raise ProfileError(
                    f"monitor state: format {options['format']!r} is not {STATE_FORMAT}"
                )
            if options["reference"] != reference.digest:
                raise ProfileError(
                    f"monitor state: of reference {options['reference'][:8]}, not {reference.hash8}"
                )
            asked = {name: options[name] for name in _OPTIONS}
            monitor = cls(reference, profiles=profiles, **asked)
            monitor._take(options, state)
        except ProfileError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"monitor state: malformed ({error!r})") from None
        return monitor

    def _take(self, options: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.rows = int(options["rows"])
        for name in _ARRAYS:
            held: NDArray[Any] = getattr(self, f"_{name}")
            given = np.array(state[name], dtype=held.dtype)
            if given.shape != held.shape:
                raise ValueError(f"{name} of shape {given.shape}, expected {held.shape}")
            setattr(self, f"_{name}", given)
        self._evidence.restore(state)
        for ring in self._rings:
            prefix = f"ring{ring.rows_max}_"
            ring.restore({k: state[prefix + k] for k in ("counts", "rows", "head")})

    def _unit(self) -> float:
        """One tick's share of one feature's budget: what R is measured in, for people."""
        return self._false_alarms / self._ticks_per_month * self._evidence.share

    def _log_evidence(self) -> NDArray[np.float64]:
        value = np.maximum(self._value, self._peak)
        logs: NDArray[np.float64] = np.log10(np.maximum(value / self._unit(), 1e-300))
        return logs

    def _confirm(self, loud: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Raise warnings to drift where the effect, too, is big enough; say which were raised."""
        raised = np.zeros(len(self.names), dtype=bool)
        which = np.flatnonzero(loud & (self._state == _WARNING))
        if len(which):
            effects = self._since_effects(which)
            big = np.zeros(len(which), dtype=bool)
            for name, bound in self.effect.items():
                big |= effects[name] >= bound
            raised[which] = big & (self._since[which].sum(axis=1) >= EFFECT_ROWS_MIN)
            self._state[raised] = _DRIFT
        return raised

    def _since_effects(self, which: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
        counts = self._since[which]
        p, q, n, m = self._p[which], shares(counts), counts.sum(axis=1), self._reference_rows[which]
        distance = ks(p, q, self._ordered[which])
        return {"psi": psi_corrected(p, q, n, m), "ks": ks_corrected(distance, n, m)}

    def _recover(self, quiet: NDArray[np.bool_], rows: int, moment: Moment) -> list[Reading]:
        latched = self._state != _OK
        if not latched.any():
            return []
        counts = self._rings[0].counts()
        current = psi_corrected(self._p, shares(counts), counts.sum(axis=1), self._reference_rows)
        calm = latched & quiet & (current < RECOVERY_PSI)
        self._calm_rows = np.where(calm, self._calm_rows + rows, 0)
        back = latched & (self._calm_rows >= RECOVERY_ROWS)
        self._state[back] = _OK
        self._calm_rows[back], self._peak[back] = 0, 0
        self._evidence.reset(back)
        levels = self._log_evidence()
        return [
            self._narrator.recovery(
                self._profiles[j],
                moment,
                rows=int(counts[j].sum()),
                psi=float(current[j]),
                psi_max=RECOVERY_PSI,
                evidence=float(levels[j]),
            )
            for j in np.flatnonzero(back)
        ]

    def _drift_reading(self, j: int, moment: Moment) -> Reading:
        effects = {k: float(v[0]) for k, v in self._since_effects(np.array([j])).items()}
        name = max(self.effect, key=lambda key: effects[key] / self.effect[key])
        return self._narrator.drift(
            self._profiles[j],
            _STATES[self._state[j]],
            moment,
            counts=self._since[j],
            start=int(self._since_row[j]),
            level=(float(self._log_evidence()[j]), self.evidence_threshold),
            effect=Effect(name=name, value=effects[name]),
        )


def _watched(reference: Reference, kind: Kind) -> tuple[FeatureProfile, ...]:
    if kind is not Kind.PREDICTION_DRIFT:
        return reference.features
    if reference.prediction is None:
        raise ProfileError("reference: has no prediction column to watch")
    return (reference.prediction,)


_OPTIONS: Final = (
    "false_alarms_per_month",
    "ticks_per_month",
    "effect",
    "version",
    "kind",
    "scope",
)
_ARRAYS: Final = (
    "total",
    "since",
    "since_row",
    "value",
    "peak",
    "state",
    "calm_rows",
    "up",
    "down",
)
