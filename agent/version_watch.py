"""Everything that is watched of one model version, fed with the agent's batches and labels.

Values in, readings out: what is done with them is `detectors.monitor`, the very object that a
notebook runs; here is only how a batch becomes columns. `remora replay` runs this too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.batch import Batch
from agent.labels import Joined
from agent.schema import Column
from detectors import STATE_NUMBER, DriftDetector, Monitor, Reading, Reference
from detectors.parts.estimation import table_of
from detectors.performance.quality import Estimate, class_name
from detectors.reading import State
from detectors.settings import Settings

# What the prediction is called among the columns of a reference that is learnt from traffic.
PREDICTION = "prediction"
# A minute without rows is a tick of silence.
IDLE_TICK_S = 60.0


# A column of values, or of vectors.
Fed: TypeAlias = Column | NDArray[np.float32] | NDArray[np.float64]


class VersionWatch:
    """The detectors of one version against one reference.

    `provisional`: the reference is still being learnt. Effects are shown then, and every state is
    `insufficient_data`.
    """

    def __init__(
        self,
        version: str,
        reference: Reference,
        settings: Settings,
        *,
        provisional: bool = False,
    ) -> None:
        self.version = version
        self.reference = reference
        self.provisional = provisional
        self.settings = replace(settings, version=version, provisional=provisional)
        self.monitor = Monitor(reference, settings=self.settings)
        table = table_of(reference)
        self._all_scores = table is not None and table.basis == "multiclass"
        # What the child of river's detectors said last, by detector, where there is one.
        self.child_states: dict[str, State] = {}
        # What the counters stood at when a snapshot was restored: counters start from there.
        self._bins_before: dict[str, dict[str, int]] = {}
        self._scores_before: dict[str, dict[str, tuple[float, float]]] = {}
        self._odd_before = 0
        self._idle_since: float | None = None

    @property
    def data(self) -> DriftDetector:
        """Drift of the features."""
        found = self.monitor.drift("features")
        assert found is not None  # a reference without features has no monitor
        return found

    @property
    def prediction(self) -> DriftDetector | None:
        """Drift of what the model says."""
        return self.monitor.drift("prediction")

    @property
    def rows(self) -> int:
        """Rows that were evidence."""
        return self.monitor.rows

    @property
    def labelled_rows(self) -> int:
        """Labelled rows that were evidence."""
        return self.monitor.labelled_rows

    def take(self, batch: Batch, *, ticks: float) -> list[Reading]:
        """One tick of rows; `ticks` is its share of a minute of the budget, at most 1."""
        # The uniform stratum, unweighted. Its rate may change while a tick is open: what was kept
        # then was chosen by hash at a rate that only earlier load had decided, so under "nothing
        # has changed" these rows are still drawn from the reference, and evidence bets on nothing
        # else. Weights would let a few rows at a low rate outvote all others.
        self._idle_since = None
        rows = batch.uniform
        if not rows.any():
            return []
        columns = self._columns(batch)
        if not rows.all():
            columns = {name: column[rows] for name, column in columns.items()}
        return self.monitor.update(
            columns,
            ticks=ticks,
            at=batch.closed_at,
            times=batch.at[rows],
            type_changes=batch.type_changes,
        )

    def idle(self, now: float) -> list[Reading]:
        """No row waits: once a minute that is a tick of silence."""
        if self._idle_since is None or now < self._idle_since:
            self._idle_since = now
        if now - self._idle_since < IDLE_TICK_S:
            return []
        self._idle_since = now
        return self.monitor.idle(ticks=1.0, at=now)

    def _columns(self, batch: Batch) -> dict[str, Fed]:
        """Features, and what the model said under the names that the reference has for it."""
        return {
            **batch.columns,
            **batch.vectors,
            **named_outputs(self.reference, batch.prediction, batch.score),
            **self._of_all_classes(batch),
        }

    def _of_all_classes(self, batch: Batch) -> dict[str, Fed]:
        """Scores of more than two classes, where the reference was built from all of them."""
        if not self._all_scores or batch.scores is None or self.reference.score is None:
            return {}
        return {self.reference.score.name: batch.scores}

    def take_labelled(
        self, joined: Sequence[Joined], *, ticks: float, at: float | None
    ) -> list[Reading]:
        """Rows whose label came, in the order in which they were joined."""
        if not joined:
            return []
        return self.monitor.update_labels(
            [row.prediction for row in joined],
            [row.label for row in joined],
            score=np.array([np.nan if row.score is None else row.score for row in joined]),
            weight=[row.weight for row in joined],
            evidence=[is_evidence(row) for row in joined],
            was=[row.old_label for row in joined],
            keys=[_row_key(row) for row in joined],
            groups={
                group.attribute: [row.groups.get(group.attribute) for row in joined]
                for group in self.settings.fairness
            },
            ticks=ticks,
            at=at,
        )

    @property
    def concept_status(self) -> State:
        """The state of concept drift: the worst that errors, residuals or calibration say."""
        states = self.monitor.concept_states().values()
        return max(states, key=STATE_NUMBER.__getitem__, default=State.INSUFFICIENT_DATA)

    def take_over(self, other: "VersionWatch") -> None:
        """What another watch of this version knows from labels, whatever its reference was."""
        self.monitor.take_over_labels(other.monitor)

    def metrics(self) -> dict[str, Estimate]:
        """Realised quality; empty without labels."""
        return self.monitor.realised()

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

    def odd_rows(self) -> int:
        """Rows that were odd by themselves since this process started: a counter's value."""
        outliers = self.monitor.outliers()
        return 0 if outliers is None else outliers.outliers_total - self._odd_before

    def state(self) -> dict[str, Any]:
        """Everything that matters, for a snapshot; the reference is kept elsewhere."""
        return {"reference": self.reference.digest, "monitor": self.monitor.state()}

    def label_state(self) -> dict[str, Any]:
        """What is known from labels, which is so whatever the reference of the data."""
        return self.monitor.label_state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off. Raises `ValueError` for another reference's state."""
        if state["reference"] != self.reference.digest:
            raise ValueError("the snapshot belongs to another reference")
        self.monitor = Monitor.restore(self.reference, state["monitor"], settings=self.settings)
        self._bins_before = self.data.export_bins()
        self._scores_before = self.data.score_counters()
        self._odd_before += self.odd_rows()

    def restore_labels(self, state: Mapping[str, Any]) -> None:
        """Continue where `label_state()` left off."""
        self.monitor.restore_labels(state)


def named_outputs(
    reference: Reference, prediction: Column | None, score: Column | None
) -> dict[str, Column]:
    """What a model said, by the names that the reference has for it."""
    columns: dict[str, Column] = {}
    said = reference.prediction
    if said is not None:
        # A reference that was built from scores holds scores against it.
        numeric = said.kind == "numeric" and score is not None
        column = score if numeric and _classes(prediction) else prediction
        if column is not None:
            columns[said.name] = column
    if reference.score is not None and score is not None:
        columns[reference.score.name] = score
    return columns


def _classes(prediction: Column | None) -> bool:
    return prediction is None or prediction.dtype.kind == "O"


def _row_key(row: Joined) -> int:
    """What a correction finds the row of its first label by."""
    text = f"{row.id}:{row.row}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def is_evidence(row: Joined) -> bool:
    """A correction is no new evidence, and a model that said nothing made no error."""
    return row.old_label is None and row.uniform and row.prediction is not None


def is_error(row: Joined) -> bool:
    """Whether the model's class is another than the label's."""
    return row.prediction is None or class_name(row.prediction) != class_name(row.label)


def as_columns(batch: Batch, prediction: str = PREDICTION) -> dict[str, Fed]:
    """The evidence rows of a batch, features and prediction as one table, to learn from."""
    columns: dict[str, Fed] = {**batch.columns, **batch.vectors}
    if batch.prediction is not None:
        columns[prediction] = batch.prediction
    if batch.uniform.all():
        return columns
    return {name: column[batch.uniform] for name, column in columns.items()}
