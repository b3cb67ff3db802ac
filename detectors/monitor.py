"""Everything that is watched of one model: rows in, labelled rows in, readings out.

A monitor is its parts (see `catalog`), each with its share of the false-alarm budget; it cuts
nothing, looks at no clock and holds no rows. The same batches give the same readings, in the agent,
in `remora replay` and in a notebook: this is the object that all three run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.batches import Batch, Rows, labels_of
from detectors.budget import TICKS_PER_MONTH, Budget
from detectors.catalog import DETECTORS, KEPT, LABELLED
from detectors.detector import Detector, Judge
from detectors.drift.detector import DriftDetector
from detectors.findings.consequences import Consequences
from detectors.findings.said_once import SaidOnce
from detectors.groups.outliers import Outliers
from detectors.groups.slices import Slice
from detectors.parts.data_quality import Columns
from detectors.parts.drift import Drift
from detectors.parts.estimation import Estimation, table_of
from detectors.parts.fairness import Groups
from detectors.parts.performance import Performance
from detectors.parts.segments import Oddities
from detectors.parts.slices import WorstSlices
from detectors.parts.trust import Trust
from detectors.parts.truth import LabelProfile, LabelShare
from detectors.performance.intervals import Estimate
from detectors.reading import Moment, Reading, State
from detectors.reference import ProfileError, Reference, Task
from detectors.references.roles import one_score
from detectors.references.seasonality import unix_seconds
from detectors.rows.bins import OUTSIDE
from detectors.rows.columns import Column, Table, as_table
from detectors.settings import Settings

STATE_FORMAT: Final = 1
#: Of more scores than this beyond the reference's range no cost is estimated.
STRANGE_SHARE_MAX: Final = 0.2


class Monitor:
    """Watches one model against one reference.

    `false_alarms_per_month` is the budget over everything that is inside it (see `budget`), a month
    being `ticks_per_month` ticks; `settings` says the same and more, and is used instead of them.
    Raises ProfileError if the reference has nothing to watch, ValueError for a senseless budget.

    >>> import numpy as np
    >>> from detectors import build_reference
    >>> rng = np.random.default_rng(7)
    >>> monitor = Monitor(build_reference({"age": rng.normal(40, 9, 20_000)}))
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
        ticks_per_month: float = TICKS_PER_MONTH,
        settings: Settings | None = None,
    ) -> None:
        if settings is None:
            settings = Settings(
                budget=Budget(
                    false_alarms_per_month=false_alarms_per_month, ticks_per_month=ticks_per_month
                )
            )
        if not reference.features:
            raise ProfileError("reference: has no features to watch")
        self.reference, self.settings = reference, settings
        self.parts: dict[str, Detector] = {}
        for name, make in DETECTORS.items():
            part = make(reference, settings)
            if part is not None:
                self.parts[name] = part
        features = self.drift("features")
        assert features is not None  # there is no monitor without features
        self._features = features
        self._once = SaidOnce(reference, features)
        self._consequences = Consequences(reference, table_of(reference))
        self.rows = 0
        self.labelled_rows = 0
        self._task: Task | None = reference.task

    def update(
        self,
        columns: Any,
        *,
        ticks: float = 1.0,
        at: float | None = None,
        times: NDArray[Any] | None = None,
        type_changes: Mapping[str, int] | None = None,
    ) -> list[Reading]:
        """Take one tick's rows and give the changes of state, none if nothing changed.

        `columns` are the features and, under the names they have in the reference, what the model
        said and its score. `ticks` is the tick's length in ticks (its share of the budget), at most
        1 whatever is said; `at` the time in Unix seconds that readings carry, `times` [rows] that
        of each row (dates too), for seasonal features. Nothing that stands in a column raises; zero
        rows change nothing. Raises TypeError if `columns` is no mapping or table.
        """
        table = as_table(columns)
        if not table.rows:
            return []
        self.rows += table.rows
        derived = {**self.reference.derive(table), **self._one_score(table)}
        seconds = _seconds(times, table.rows, at)
        self._consequences.note(at, self.rows)
        readings = self._run(
            Rows(
                table=table,
                derived=derived,
                counts=self._features.count({**table.columns, **derived}, table.rows, seconds),
                ticks=_clipped(ticks),
                times=seconds,
                moment=self._moment(self.rows, at),
                type_changes=type_changes or {},
            )
        )
        said = self._once.of_rows(readings, rows=table.rows)
        known = self.estimates_hold and not self._scores_are_strange()
        estimated = self.estimated() if known else {}
        return self._consequences.told(said, self._features, estimated)

    def idle(self, *, ticks: float = 1.0, at: float | None = None) -> list[Reading]:
        """Take a tick in which no row came: silence, when it lasts, is a finding of its own."""
        part = self.parts.get("data_quality")
        if not isinstance(part, Columns):
            return []
        return part.idle(_clipped(ticks), self._moment(self.rows, at))

    def update_labels(
        self,
        predicted: Sequence[Any] | NDArray[Any],
        truth: Sequence[Any] | NDArray[Any],
        *,
        score: Any = None,
        weight: Any = None,
        evidence: Any = None,
        was: Sequence[Any] | None = None,
        keys: Any = None,
        groups: Mapping[str, Any] | None = None,
        columns: Mapping[str, Column] | None = None,
        ticks: float = 1.0,
        at: float | None = None,
    ) -> list[Reading]:
        """Take rows whose label came, oldest first; all arguments have one entry per row.

        `score` is the probability of the positive class, [rows], or of each class, [rows, classes];
        `weight` undoes a sampling; `evidence` (default: all) says which rows may be bet on; `was`
        is the label before a correction (None: a first label); `keys` find a row when it is
        corrected; `groups` are attributes by name, for fairness, `columns` the features of the rows
        where they are known, for slices. Raises ValueError for lengths that differ.
        """
        if not len(predicted):
            return []
        labels = labels_of(
            predicted,
            truth,
            score=score,
            weight=weight,
            evidence=evidence,
            was=was,
            keys=keys,
            groups=groups or {},
            columns=columns or {},
            task=self._task,
            ticks=_clipped(ticks),
        )
        self._task = labels.task
        bets = int(labels.evidence.sum())
        self.labelled_rows += bets
        readings = self._run(replace(labels, moment=self._moment(self.labelled_rows, at)))
        return self._once.of_labels(readings, self.concept_states().values(), rows=bets)

    def _one_score(self, table: Table) -> dict[str, Column]:
        """Scores of all classes are held against the profile of one of them."""
        score = self.reference.score or self.reference.prediction
        if score is None or score.name not in table.vectors:
            return {}
        return {score.name: one_score(table.vectors[score.name])}

    def _run(self, batch: Batch) -> list[Reading]:
        return [reading for part in self.parts.values() for reading in part.update(batch)]

    def _moment(self, row: int, at: float | None) -> Moment:
        return Moment(
            row=row, at=at, reference=self.reference.digest, version=self.settings.version
        )

    # What is known, for those who show it.

    def drift(self, name: str) -> DriftDetector | None:
        """Give the drift detector of a part: `features`, `projections`, `prediction`, `label`."""
        part = self.parts.get(name)
        return part.detector if isinstance(part, Drift) else None

    def drifts(self) -> dict[str, DriftDetector]:
        """Give all drift detectors, by the name of their part."""
        return {n: part.detector for n, part in self.parts.items() if isinstance(part, Drift)}

    def effects(self, window_rows: int = 10_000) -> dict[str, dict[str, float | int | str]]:
        """Give each feature's distances over about the last `window_rows` rows, and its state."""
        return {
            name: figures
            for detector in self.drifts().values()
            for name, figures in detector.effects(window_rows).items()
        }

    def states(self) -> dict[str, State]:
        """Give each feature's state; `insufficient_data` before its first row."""
        return {n: s for detector in self.drifts().values() for n, s in detector.states().items()}

    def detectable_shift(self) -> dict[str, float]:
        """Give the smallest shift of each feature, in standard deviations, that can be seen."""
        return {
            name: shift
            for detector in self.drifts().values()
            for name, shift in detector.detectable_shift().items()
        }

    def realised(self) -> dict[str, Estimate]:
        """Give quality on labelled rows by metric; empty without labels."""
        part = self.parts["performance"]
        assert isinstance(part, Performance)
        return part.metrics()

    def realised_by_class(self) -> dict[str, dict[str, Estimate]]:
        """Give precision, recall and F1 of each class; empty without labels."""
        part = self.parts["performance"]
        assert isinstance(part, Performance)
        return part.metrics_by_class()

    def estimated(self) -> dict[str, Estimate]:
        """Give quality of the last rows without labels by metric; empty where it is not known."""
        part = self.parts.get("estimation")
        return part.metrics() if isinstance(part, Estimation) else {}

    def _scores_are_strange(self) -> bool:
        """Whether many scores lie where the reference had none: nothing is estimated from them."""
        detector = self.drift("prediction")
        if detector is None:
            return False
        counts = detector.counts_since
        return bool((counts[:, OUTSIDE] > STRANGE_SHARE_MAX * counts.sum(axis=1)).any())

    @property
    def estimates_hold(self) -> bool:
        """Whether nothing that labels say contradicts what was estimated without them."""
        part = self.parts.get("trust")
        return not isinstance(part, Trust) or part.detector.trusted

    def fairness(self) -> dict[str, dict[str, Estimate]]:
        """Give gaps between groups, by attribute and metric; empty where none was asked for."""
        part = self.parts.get("fairness")
        return part.metrics() if isinstance(part, Groups) else {}

    def outliers(self) -> Outliers | None:
        """Give the counts of odd rows, and the oddest."""
        part = self.parts.get("outliers")
        return part.detector if isinstance(part, Oddities) else None

    def slices(self) -> list[Slice]:
        """Give the parts of the stream where the model is surely worse than elsewhere."""
        part = self.parts.get("slices")
        return part.worst() if isinstance(part, WorstSlices) else []

    def concept_states(self) -> dict[str, State]:
        """Give the state of each detector of concept drift, by its name."""
        judges = [part for part in self.parts.values() if isinstance(part, Judge)]
        return {judge.concept: judge.status for judge in judges}

    def label_status(self) -> State | None:
        """Give the state of the label's distribution; None where the reference had no label."""
        part = self.parts.get("label")
        return part.status if isinstance(part, LabelShare | LabelProfile) else None

    # A restart, and a reference that was learnt meanwhile.

    def take_over_labels(self, other: "Monitor") -> None:
        """Go on with what another monitor knows from labels.

        What is judged against the reference begins anew where this one's reference says something
        of labels; quality is quality whatever the reference.
        """
        self.labelled_rows, self._task = other.labelled_rows, other._task
        self._once.take_over_labels(other._once)
        for name in LABELLED:
            if name in other.parts and (name in KEPT or self.reference.baseline is None):
                self.parts[name] = other.parts[name]

    def label_state(self) -> dict[str, Any]:
        """Give what is known from labels alone, as `state` does."""
        return {
            "labelled_rows": self.labelled_rows,
            "task": self._task,
            "said_once": self._once.label_state(),
            "parts": {n: self.parts[n].state() for n in LABELLED if n in self.parts},
        }

    def restore_labels(self, state: Mapping[str, Any]) -> None:
        """Take back what `label_state` gave. Raises ValueError, KeyError where it does not fit."""
        self.labelled_rows, self._task = int(state["labelled_rows"]), state["task"]
        self._once.restore_labels(state["said_once"])
        for name, saved in state["parts"].items():
            if name in self.parts:
                self.parts[name].restore(saved)

    def reset(self) -> None:
        """Forget evidence and latched states; counters and windows stay."""
        self._once.reset()
        for part in self.parts.values():
            part.reset()

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep: JSON values and numpy arrays, nested."""
        budget = self.settings.budget
        return {
            "format": STATE_FORMAT,
            "reference": self.reference.digest,
            "false_alarms_per_month": budget.false_alarms_per_month,
            "ticks_per_month": budget.ticks_per_month,
            "rows": self.rows,
            "labelled_rows": self.labelled_rows,
            "task": self._task,
            "said_once": self._once.state(),
            "traffic": self._consequences.state(),
            "parts": {name: part.state() for name, part in self.parts.items()},
        }

    @classmethod
    def restore(
        cls, reference: Reference, state: Mapping[str, Any], *, settings: Settings | None = None
    ) -> "Monitor":
        """Go on where `state` was taken, under its budget or under `settings`.

        Raises ProfileError if it was of another reference, or is malformed.
        """
        try:
            if state["format"] != STATE_FORMAT:
                raise ProfileError(
                    f"monitor state: format {state['format']!r} is not {STATE_FORMAT}"
                )
            if state["reference"] != reference.digest:
                raise ProfileError(
                    f"monitor state: of reference {state['reference'][:8]}, not {reference.hash8}"
                )
            monitor = cls(
                reference,
                false_alarms_per_month=state["false_alarms_per_month"],
                ticks_per_month=state["ticks_per_month"],
                settings=settings,
            )
            monitor.rows = int(state["rows"])
            monitor.labelled_rows = int(state["labelled_rows"])
            monitor._task = state["task"]
            monitor._once.restore(state["said_once"])
            monitor._consequences.restore(state["traffic"])
            for name, part in monitor.parts.items():
                if name in state["parts"]:  # a part that is new begins anew
                    part.restore(state["parts"][name])
        except ProfileError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProfileError(f"monitor state: malformed ({error!r})") from None
        return monitor


def _clipped(ticks: float) -> float:
    return min(max(ticks, 0.0), 1.0) if math.isfinite(ticks) else 0.0


def _seconds(times: NDArray[Any] | None, rows: int, at: float | None) -> NDArray[np.float64] | None:
    """The time of each row; that of the tick where rows have none of their own."""
    if times is not None and len(times) == rows:
        return unix_seconds(np.asarray(times))
    return None if at is None else np.full(rows, at)
