"""Drift of one set of profiles: batches of columns in, readings out.

One call of `update` is one tick. Each feature is `ok` until one of two paths alarms: the evidence
(see `evidence`) with two thirds of the budget, or a window of the ladder (see `ladder`) with the
rest. It is then latched as `warning`, or as `drift` if the effect over the rows since the evidence
left its floor is big enough too. It is `ok` again when the reverse evidence (see `recovery`) has
refuted the drift, the evidence is back at its floor and PSI over the last 1,000 rows is below .05.
The same batches give the same state and the same readings; a restart with `restore` changes
nothing.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift import export
from detectors.drift.evidence import EXPORTED_SCORES
from detectors.drift.explain import Narrator
from detectors.drift.feature_states import PATHS, RECOVERY_PSI, FeatureStates
from detectors.reading import Effect, Kind, Moment, Reading, Scope, State
from detectors.reference import Reference
from detectors.references.calibration import detectable_shift
from detectors.references.feature_profile import FeatureProfile, ProfileError
from detectors.rows.binning import Binner
from detectors.rows.columns import Column, Table, as_table
from detectors.rows.windows import WINDOW_ROWS
from detectors.settings import EFFECT_DEFAULT

STATE_FORMAT: Final = 2

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
        profiles = _profiles_of(reference, self.kind) if profiles is None else tuple(profiles)
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
        self._binner = Binner([(profile.name, profile.bins) for profile in profiles])
        self._watched = FeatureStates(
            profiles,
            false_alarms_per_month=false_alarms_per_month,
            ticks_per_month=ticks_per_month,
            effect=self.effect,
        )
        self._narrator = Narrator(
            kind=self.kind, scope=self.scope, reference=reference.digest, version=version
        )

    @property
    def rows(self) -> int:
        """Rows seen so far."""
        return self._watched.rows

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
        counts = self.count(table.columns, table.rows, times)
        return self.observe(counts, rows=table.rows, ticks=ticks, at=at)

    def count(
        self, columns: Mapping[str, Column], rows: int, times: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Count columns of `rows` rows into the bins, [features, 18], for `observe`."""
        return self._binner.count(columns, rows, times)

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
        changes = self._watched.observe(counts, rows=rows, ticks=ticks)
        moment = Moment(row=self.rows, at=at)
        readings = [self._raised(j, moment) for j in changes.raised]
        return readings + [
            self._narrator.recovery(
                self._profiles[j],
                moment,
                detector=PATHS[self._watched.path[j]],
                rows=n,
                psi=psi,
                psi_max=RECOVERY_PSI,
                evidence=float(self._log_evidence()[j]),
            )
            for j, n, psi in changes.recovered
        ]

    def effects(self, window_rows: int = 10_000) -> dict[str, dict[str, float | int | str]]:
        """Give each feature's distances over about the last `window_rows` rows, and its state.

        Windows are 1,000, 10,000 and 100,000 rows. `wasserstein` is in the feature's own unit; each
        distance also comes as `psi_corrected` and so on, less what chance alone gives for that many
        rows.
        """
        return self._described(self._watched.rings[WINDOW_ROWS.index(window_rows)].counts())

    def effects_since(self) -> dict[str, dict[str, float | int | str]]:
        """Give what `effects` gives over the rows since each feature's evidence left its floor."""
        return self._described(self._watched.since)

    @property
    def counts_since(self) -> NDArray[np.int64]:
        """Counts [features, 18] of the rows since each feature's evidence left its floor."""
        return self._watched.since

    def _described(self, counts: NDArray[np.int64]) -> dict[str, dict[str, float | int | str]]:
        figures = self._watched.effects.figures(counts)
        keys = (*figures, "rows", "state")
        columns = zip(
            *(values.tolist() for values in figures.values()),
            counts.sum(axis=1).tolist(),
            [state.value for state in self.states().values()],
            strict=True,
        )
        return {
            name: dict(zip(keys, values, strict=True))
            for name, values in zip(self.names, columns, strict=True)
        }

    def states(self) -> dict[str, State]:
        """Give each feature's state; `insufficient_data` before its first row."""
        seen = (self._watched.total.sum(axis=1) > 0).tolist()
        told = zip(self.names, self._watched.state_of.tolist(), seen, strict=True)
        return {
            name: _STATES[code] if any_rows else State.INSUFFICIENT_DATA
            for name, code, any_rows in told
        }

    def evidence(self) -> dict[str, float]:
        """Give log10 of each feature's e-value, in ticks: 0 is one tick's worth of budget."""
        return dict(zip(self.names, self._log_evidence().tolist(), strict=True))

    @property
    def evidence_threshold(self) -> float:
        """Give the level that evidence must cross: log10(features x ticks per false alarm)."""
        return -math.log10(self._watched.unit)

    def bin_counts(self) -> dict[str, NDArray[np.int64]]:
        """Give each feature's rows per bin since the start, 18 counts that only ever rise."""
        return {name: self._watched.total[j].copy() for j, name in enumerate(self.names)}

    def export_bins(self) -> dict[str, dict[str, int]]:
        """Give each feature's rows since the start in the 8 exported bins, by label."""
        return export.grouped_counts(self._profiles, self._watched.total)

    def export_reference(self) -> dict[str, dict[str, float]]:
        """Give each feature's reference shares in the 8 exported bins."""
        return export.grouped_shares(self._profiles)

    def distributions(self, window_rows: int = 10_000) -> dict[str, dict[str, Any]]:
        """Give what a page shows: labels, reference and current shares of each feature's bins."""
        counts = self._watched.rings[WINDOW_ROWS.index(window_rows)].counts()
        return export.distributions(self._profiles, counts)

    def detectable_shift(self) -> dict[str, float]:
        """Give the smallest shift of each feature, in standard deviations, that can be seen.

        It is what the evidence finds in the end, or the ladder's longest window every other time:
        evidence for the smallest tilt grows from half that tilt beyond the null hypothesis on.
        """
        by_ladder = self._watched.ladder.smallest_shift().tolist()
        rows = self._watched.effects.rows.tolist()
        return {
            p.name: min(detectable_shift(p.tolerance, 1.0, rows[j]), by_ladder[j])
            for j, p in enumerate(self._profiles)
        }

    def score_counters(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Give each feature's log-evidence since the start, (up, down) for each exported score."""
        scores = list(EXPORTED_SCORES.items())
        return {
            name: {
                label: (float(self._watched.up[j, s]), float(self._watched.down[j, s]))
                for s, (label, k) in enumerate(scores)
                if self._watched.evidence.weights[j, k] > 0
            }
            for j, name in enumerate(self.names)
        }

    def reset(self) -> None:
        """Forget evidence and latched states; counters and windows stay."""
        self._watched.reset()

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
        }
        return {"options": np.array(json.dumps(options))} | self._watched.state()

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
            monitor._watched.restore(state)
        except ProfileError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"monitor state: malformed ({error!r})") from None
        return monitor

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, under the budget and the bounds that hold now.

        Raises ProfileError if it was of another reference, ValueError or KeyError if it does not
        fit.
        """
        options = json.loads(str(state["options"]))
        if options["reference"] != self.reference.digest:
            raise ProfileError(
                f"monitor state: of reference {options['reference'][:8]}, "
                f"not {self.reference.hash8}"
            )
        self._watched.restore(state)

    def _log_evidence(self) -> NDArray[np.float64]:
        value = np.maximum(self._watched.value, self._watched.peak)
        logs: NDArray[np.float64] = np.log10(np.maximum(value / self._watched.unit, 1e-300))
        return logs

    def _raised(self, j: int, moment: Moment) -> Reading:
        watched = self._watched
        effects = {k: float(v[0]) for k, v in watched.gates(np.array([j])).items()}
        name = max(self.effect, key=lambda key: effects[key] / self.effect[key])
        evidence = float(self._log_evidence()[j])
        level = (evidence, self.evidence_threshold)
        if watched.path[j]:  # minus the logarithm of a chance, to base ten as evidence is
            level = (watched.compared[j] / math.log(10)).tolist()
        return self._narrator.drift(
            self._profiles[j],
            _STATES[watched.state_of[j]],
            moment,
            detector=PATHS[watched.path[j]],
            counts=watched.since[j],
            start=int(watched.since_row[j]),
            level=level,
            evidence=evidence,
            effect=Effect(name=name, value=effects[name]),
        )


def _profiles_of(reference: Reference, kind: Kind) -> tuple[FeatureProfile, ...]:
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
