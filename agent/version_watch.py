"""Everything that is watched of one model version: data, prediction, concept, quality.

Values in, readings out. Time is an argument, and the same ticks in the same order give the same
readings: `remora replay` runs these very objects.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from agent.batch import Batch
from agent.labels import Joined
from agent.schema import Column
from detectors import DriftDetector, Reading, Reference, build_reference
from detectors.columns import as_table
from detectors.concept import ConceptChange, ErrorRateDetector
from detectors.quality import Estimate, Quality, class_name
from detectors.reading import Change, Effect, Kind, Moment, Scope, State, Window
from detectors.schema_watch import SchemaChange, SchemaWatch

# What the prediction is called among the columns of a reference that is learnt from traffic.
PREDICTION = "prediction"
RESIDUAL = "residual"
# Residuals of a regression have no baseline until so many labelled rows came.
RESIDUAL_ROWS = 1_000
# Labelled rows that the concept detector is given at a time: more would dilute a change that
# begins among them.
CONCEPT_ROWS = 10
# A month at one tick a minute: the unit in which the false-alarm budget is spent.
TICKS_PER_MONTH = 43_200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """The budget of one false alarm per month, split, and what makes evidence a drift."""

    false_alarms_per_month: float = 1.0
    data_share: float = 0.6  # of the budget; the ladder and projections of later versions take .1
    prediction_share: float = 0.1
    concept_share: float = 0.2
    effect: Mapping[str, float] | None = None
    replicas: int = 1

    def budget(self, share: float) -> float:
        return self.false_alarms_per_month * share / self.replicas


class _Provisional(DriftDetector):
    """Effects to look at: no state is claimed against a reference that is still being learnt."""

    def states(self) -> dict[str, State]:
        return dict.fromkeys(self.names, State.INSUFFICIENT_DATA)


class VersionWatch:
    """The detectors of one version against one reference.

    `provisional`: the reference is still being learnt. Effects are shown then, and every state is
    `insufficient_data`.
    """

    def __init__(
        self,
        version: str,
        reference: Reference,
        settings: WatchSettings,
        *,
        provisional: bool = False,
    ) -> None:
        self.version = version
        self.reference = reference
        self.provisional = provisional
        self._settings = settings
        effect = dict(settings.effect or {"psi": 0.1, "ks": 0.1})
        self._effect = effect
        self.data = self._monitor(reference, settings.data_share, "data_drift")
        known = {*reference.feature_names}
        known |= {reference.prediction.name} if reference.prediction is not None else set()
        self._schema = SchemaWatch(expected=reference.feature_names, known=frozenset(known))
        self.prediction: DriftDetector | None = None
        if reference.prediction is not None:
            self.prediction = self._monitor(
                reference, settings.prediction_share, "prediction_drift"
            )
        baseline = reference.baseline
        self.concept = ErrorRateDetector(
            errors=baseline.errors if baseline else 0,
            rows=baseline.rows if baseline else 0,
            false_alarms_per_month=settings.budget(settings.concept_share),
            ticks_per_month=TICKS_PER_MONTH,
        )
        self.residual: DriftDetector | None = None
        self._residuals: list[float] = []
        self.adwin_state: State | None = None  # what the child said last, where there is one
        self.quality: Quality | None = None
        self.rows = 0
        self.labelled_rows = 0
        # What the counters stood at when a snapshot was restored: counters start from there.
        self._bins_before: dict[str, dict[str, int]] = {}
        self._scores_before: dict[str, dict[str, tuple[float, float]]] = {}

    def _monitor(self, reference: Reference, share: float, kind: str) -> DriftDetector:
        return (_Provisional if self.provisional else DriftDetector)(
            reference,
            false_alarms_per_month=self._settings.budget(share),
            ticks_per_month=TICKS_PER_MONTH,
            effect=self._effect,
            version=self.version,
            kind=kind,
        )

    def take(self, batch: Batch, *, ticks: float) -> list[Reading]:
        """One tick of rows; `ticks` is its share of a minute of the budget, at most 1."""
        # The uniform stratum, unweighted. Its rate may change while a tick is open: what was kept
        # then was chosen by hash at a rate that only earlier load had decided, so under "nothing
        # has changed" these rows are still drawn from the reference, and evidence bets on nothing
        # else. Weights would let a few rows at a low rate outvote all others.
        rows = batch.uniform
        if not rows.any():
            return []
        whole = bool(rows.all())
        columns = {
            name: column if whole else column[rows] for name, column in features(batch).items()
        }
        start = self.data.rows
        self.rows += int(rows.sum())
        table = as_table(columns)
        changes = self._schema.update(table)
        readings = self.data.update(table, ticks=ticks, at=batch.closed_at)
        moment = Moment(
            row=start + table.rows,
            at=batch.closed_at,
            reference=self.reference.digest,
            version=self.version,
        )
        readings = [moment.reading(_schema_change(c, table.rows)) for c in changes] + readings
        if self.prediction is not None and batch.prediction is not None:
            said = batch.prediction if whole else batch.prediction[rows]
            named = {self.prediction.names[0]: said}
            readings += self.prediction.update(named, ticks=ticks, at=batch.closed_at)
        return readings

    def take_labelled(
        self, joined: Sequence[Joined], *, ticks: float, at: float | None
    ) -> list[Reading]:
        """Rows whose label came, in the order in which they were joined."""
        for row in joined:
            if row.prediction is not None:
                self._score(row)
        evidence = [row for row in joined if is_evidence(row)]
        if self.quality is None or not evidence:
            return []
        if self.quality.task == "regression":
            self.labelled_rows += len(evidence)
            return self._take_residuals(evidence, ticks, at)
        readings: list[Reading] = []
        for start in range(0, len(evidence), CONCEPT_ROWS):
            rows = evidence[start : start + CONCEPT_ROWS]
            self.labelled_rows += len(rows)
            errors = sum(map(is_error, rows))
            share = ticks * len(rows) / len(evidence)
            changes = self.concept.update(rows=len(rows), errors=errors, ticks=share)
            readings += [self._concept_reading(change, at) for change in changes]
        return readings

    def _score(self, row: Joined) -> None:
        if self.quality is None:
            number = isinstance(row.prediction, float | int)
            regression = self.reference.task == "regression" or (
                self.reference.task is None and number
            )
            self.quality = Quality(task="regression" if regression else "classification")
        assert row.prediction is not None
        key = _row_key(row)
        if row.old_label is None:
            self.quality.update([(row.prediction, row.label)], weight=row.weight, keys=[key])
        else:
            self.quality.correct(
                row.prediction, row.old_label, row.label, weight=row.weight, key=key
            )

    @property
    def concept_status(self) -> State:
        """The state of concept drift, by errors or, for a regression, by residuals."""
        if self.residual is not None:
            return self.residual.states()[RESIDUAL]
        return State(self.concept.status)

    def take_over(self, other: "VersionWatch") -> None:
        """What another watch of this version knows from labels, whatever its reference was."""
        self.quality, self.labelled_rows = other.quality, other.labelled_rows
        self.residual, self._residuals = other.residual, other._residuals
        if self.reference.baseline is None:
            self.concept = other.concept

    def _take_residuals(
        self, rows: Sequence[Joined], ticks: float, at: float | None
    ) -> list[Reading]:
        """Regression: the residual is one more feature, whose reference is learnt first."""
        residuals = [residual for row in rows if (residual := _residual(row)) is not None]
        if self.residual is None:
            self._residuals += residuals
            if len(self._residuals) >= RESIDUAL_ROWS:
                learnt = build_reference({RESIDUAL: np.array(self._residuals)})
                self.residual = self._residual_monitor(learnt)
                self._residuals = []
            return []
        readings = self.residual.update({RESIDUAL: np.array(residuals)}, ticks=ticks, at=at)
        # It speaks of the model, and of the reference that the model is compared with.
        return [
            replace(reading, scope=Scope.MODEL, reference=self.reference.digest)
            for reading in readings
        ]

    def _residual_monitor(self, learnt: Reference) -> DriftDetector:
        """Its reference is whole, also where that of the data is provisional."""
        settings = self._settings
        return DriftDetector(
            learnt,
            false_alarms_per_month=settings.budget(settings.concept_share),
            ticks_per_month=TICKS_PER_MONTH,
            effect=self._effect,
            version=self.version,
            kind="concept_drift",
        )

    def _concept_reading(self, change: ConceptChange, at: float | None) -> Reading:
        return Reading(
            at=at,
            row=self.labelled_rows,
            kind=Kind.CONCEPT_DRIFT,
            scope=Scope.MODEL,
            subject="error_rate",
            detector="bernoulli",
            state=State(change.state),
            statistic=change.log10_evidence,
            threshold=0.0,
            evidence=change.log10_evidence,
            effect=Effect(name="error_rate_change", value=change.rate - change.baseline_rate),
            window=Window(
                rows=change.rows, start=self.labelled_rows - change.rows, end=self.labelled_rows
            ),
            reference=self.reference.digest,
            version=self.version,
            explain=change.explain,
        )

    def metrics(self) -> dict[str, Estimate]:
        """Realised quality; empty without labels."""
        return self.quality.metrics() if self.quality is not None else {}

    def bins(self) -> dict[str, dict[str, int]]:
        """Rows by feature and exported bin since this process started: a counter's values."""
        counts = self.data.export_bins()
        for name, before in self._bins_before.items():
            counts[name] = {bin: n - before[bin] for bin, n in counts[name].items()}
        return counts

    def scores(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Log-evidence (up, down) by feature and score since this process started."""
        scores = self.data.score_counters()
        for name, before in self._scores_before.items():
            scores[name] = {
                score: (up - before[score][0], down - before[score][1])
                for score, (up, down) in scores[name].items()
            }
        return scores

    def state(self) -> dict[str, Any]:
        """Everything that matters, for a snapshot; the reference is kept elsewhere."""
        return {
            "reference": self.reference.digest,
            "data": self.data.state(),
            "prediction": None if self.prediction is None else self.prediction.state(),
            "rows": self.rows,
            "schema": self._schema.state(),
            "labels": self.label_state(),
        }

    def label_state(self) -> dict[str, Any]:
        """What is known from labels, which is so whatever the reference of the data."""
        residual = self.residual
        return {
            "concept": self.concept.state(),
            "quality": None if self.quality is None else self.quality.state(),
            "residual": None
            if residual is None
            else {"reference": residual.reference.to_bytes().decode(), "state": residual.state()},
            "residuals": list(self._residuals),
            "labelled_rows": self.labelled_rows,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off. Raises `ValueError` for another reference's state."""
        if state["reference"] != self.reference.digest:
            raise ValueError("the snapshot belongs to another reference")
        self.data = _restored(self.data, state["data"])
        self._bins_before = self.data.export_bins()
        self._scores_before = self.data.score_counters()
        if state["prediction"] is not None and self.prediction is not None:
            self.prediction = _restored(self.prediction, state["prediction"])
        self.rows = int(state["rows"])
        self._schema.restore(state["schema"])
        self.restore_labels(state["labels"])

    def restore_labels(self, state: Mapping[str, Any]) -> None:
        """Continue where `label_state()` left off."""
        self.concept.restore(state["concept"])
        if state["quality"] is not None:
            self.quality = Quality(task=state["quality"]["task"])
            self.quality.restore(state["quality"])
        if state["residual"] is not None:
            learnt = Reference.from_bytes(state["residual"]["reference"].encode())
            monitor = self._residual_monitor(learnt)
            self.residual = _restored(monitor, state["residual"]["state"])
        self._residuals = [float(value) for value in state["residuals"]]
        self.labelled_rows = int(state["labelled_rows"])


def _schema_change(change: SchemaChange, rows: int) -> Change:
    return Change(
        kind=Kind.DATA_QUALITY,
        scope=Scope.FEATURE,
        subject=change.subject,
        detector="schema",
        state=change.state,
        statistic=0.0 if change.state is State.OK else 1.0,
        threshold=1.0,
        rows=rows,
        explain=change.explain,
    )


def _restored(made: DriftDetector, state: Mapping[str, Any]) -> DriftDetector:
    """A monitor as it was saved, under the budget and the bounds that hold now."""
    now, then = (json.loads(str(given["options"])) for given in (made.state(), state))
    settings = ("false_alarms_per_month", "ticks_per_month", "effect", "version", "kind")
    options = then | {name: now[name] for name in settings}
    return type(made).restore(made.reference, {**state, "options": json.dumps(options)})


def _row_key(row: Joined) -> int:
    """What a correction finds the row of its first label by."""
    text = f"{row.id}:{row.row}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def _residual(row: Joined) -> float | None:
    """Truth less prediction; None where one of them is no number that a double can hold."""
    if not isinstance(row.label, float | int) or not isinstance(row.prediction, float | int):
        return None
    try:
        return float(row.label) - float(row.prediction)
    except OverflowError:
        return None


def is_evidence(row: Joined) -> bool:
    """A correction is no new evidence, and a model that said nothing made no error."""
    return row.old_label is None and row.uniform and row.prediction is not None


def is_error(row: Joined) -> bool:
    """Whether the model's class is another than the label's."""
    return row.prediction is None or class_name(row.prediction) != class_name(row.label)


def features(batch: Batch) -> dict[str, Column]:
    """The columns that have a profile: free text has none (yet), its words are no categories."""
    kinds = batch.schema.kinds
    return {name: column for name, column in batch.columns.items() if kinds.get(name) != "text"}


def as_columns(batch: Batch, prediction: str = PREDICTION) -> dict[str, Column]:
    """The evidence rows of a batch, features and prediction as one table, to learn from."""
    columns = features(batch)
    if batch.prediction is not None:
        columns[prediction] = batch.prediction
    if batch.uniform.all():
        return columns
    return {name: column[batch.uniform] for name, column in columns.items()}
