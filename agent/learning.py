"""A reference learnt from traffic: which rows teach it, and what of it survives a restart."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from agent.batch import Batch
from agent.labels import Joined
from agent.schema import TargetKind
from agent.schema_learning import SchemaLearner
from agent.version_watch import PREDICTION, VersionWatch, as_columns
from detectors import ProfileError, Reference, ReferenceBuilder, merge
from detectors.reference import Task

HELD_LABELS_MAX: Final = 5_000
SAVED_COLUMNS_MAX: Final = 500
SCORE: Final = "score"
TASKS: Final[Mapping[TargetKind, Task]] = {"class": "classification", "number": "regression"}


class Learning:
    """A reference being learnt from the stable version's first rows.

    Rows are held until the schema is settled: only then are kinds known. Labels that come meanwhile
    are held for the first watch there is.
    """

    def __init__(self, learner: SchemaLearner, *, learn_rows: int, tick_rows: int) -> None:
        self._learner = learner
        self._learn_rows = learn_rows
        self._tick_rows = tick_rows
        self._held: list[Batch] = []
        self._builder: ReferenceBuilder | None = None
        self._prediction, self._score = PREDICTION, SCORE
        self._before: Reference | None = None  # learnt before a restart
        self._saved: Reference | None = None
        self.rows = 0
        self.labelled: deque[Joined] = deque(maxlen=HELD_LABELS_MAX)
        self.provisional: VersionWatch | None = None

    def take(self, batch: Batch) -> None:
        """A tick's rows; only evidence teaches."""
        self.rows += int(batch.uniform.sum())
        if self._builder is None and not self._learner.settled:
            self._held.append(batch)
            return
        self._teach(self._open(), batch)

    def _open(self) -> ReferenceBuilder:
        """The builder, once the schema says what the columns are."""
        if self._builder is not None:
            return self._builder
        schema = self._learner.schema
        if PREDICTION in schema.names:
            self._prediction = f"{PREDICTION} (output)"
        if SCORE in schema.names:
            self._score = f"{SCORE} (output)"
        kinds: dict[str, str] = {**schema.kinds}
        before = self._before
        if schema.target is not None:
            kinds[self._prediction] = "categorical" if schema.target == "class" else "numeric"
        self._builder = ReferenceBuilder(
            kinds=kinds,
            tick_rows=self._tick_rows,
            prediction=self._prediction,
            score=self._score,
            sensitive=[feature.name for feature in schema.features if feature.sensitive],
            task=None if schema.target is None else TASKS[schema.target],
            learnt=True,
            # What was learnt before a restart goes on in the same bins, so that both add exactly.
            like=before if before is not None and {*before.columns} == {*schema.names} else None,
        )
        for batch in self._held:
            self._teach(self._builder, batch)
        self._held.clear()
        return self._builder

    def _teach(self, builder: ReferenceBuilder, batch: Batch) -> None:
        columns = as_columns(batch, self._prediction)
        if batch.score is not None and batch.prediction is not None:
            columns[self._score] = batch.score[batch.uniform]
        builder.update(columns)

    def finish(self) -> Reference:
        """The reference of all rows so far; more may follow."""
        if self._before is not None and self._builder is None and not self._held:
            return self._before
        learnt = self._open().finish()
        if self._before is None:
            return learnt
        try:
            return merge(self._before, learnt)
        except ProfileError:
            return learnt  # the columns are others now: what was learnt of the old ones is void

    def state(self) -> dict[str, Any] | None:
        """What a restart should not have to learn again; None while that is little.

        Finishing is work, so it is done again only for a tenth more rows, and not at all for
        thousands of columns.
        """
        if self.provisional is None or len(self._learner.schema.names) > SAVED_COLUMNS_MAX:
            return None
        if self._saved is None or self.rows - self._saved.rows >= self._learn_rows / 10:
            self._saved = self.finish()
        return {
            "reference": self._saved.to_bytes().decode(),
            "labels": self.provisional.label_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what was learnt before."""
        self._before = self._saved = Reference.from_bytes(state["reference"].encode())
        self.rows = self._before.rows
