"""The pure middle: inferences in, readings out, for every version of the model at once.

No sockets, files or clocks here: time is an argument, and `remora replay` must be able to
reproduce any alarm with these same objects. Data, prediction and concept evidence are kept per
version; who acts on them asks for the stable version's alone.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.batch import Batch, BatchBuilder
from agent.inference import Inference
from agent.labels import Joined
from agent.schema import SchemaSettings
from agent.schema_learning import SchemaLearner
from agent.version_watch import PREDICTION, VersionWatch, WatchSettings, as_columns
from detectors import Reading, Reference, ReferenceBuilder

# One tick of the budget is a minute of the month; more rows per second do not buy more alarms.
BUDGET_TICK_S = 60.0
VERSIONS_MAX = 4
FINDINGS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """How rows become ticks, and how a reference is come by when none was given."""

    tick_rows: int = 1_000
    tick_s: float = 60.0
    learn_rows: int = 10_000
    provisional_rows: int = 1_000
    watch: WatchSettings = field(default_factory=WatchSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One batch and what the detectors said to it."""

    batch: Batch
    readings: tuple[Reading, ...]


class Learning:
    """A reference being learnt from a version's first rows."""

    def __init__(self, tick_rows: int) -> None:
        self.builder = ReferenceBuilder(tick_rows=tick_rows, prediction=PREDICTION, learnt=True)
        self.rows = 0
        self.provisional: VersionWatch | None = None

    def take(self, batch: Batch) -> None:
        self.builder.update(as_columns(batch))
        self.rows += batch.rows


class ModelMonitor:
    """All versions of one model.

    `references` says which reference a version is compared with; a version without one is
    compared with the stable's, and without that its first rows become it.
    """

    def __init__(self, settings: MonitorSettings, schema: SchemaSettings, *, stable: str) -> None:
        self.settings = settings
        self.stable = stable
        self._learner = SchemaLearner(schema)
        self._builder = BatchBuilder(
            self._learner, tick_rows=settings.tick_rows, tick_s=settings.tick_s
        )
        self._references: dict[str, Reference] = {}
        self._watches: dict[str, VersionWatch] = {}
        self._learning: Learning | None = None
        self._last_tick_at: dict[str, float] = {}
        self._last_labels_at: dict[str, float] = {}
        self.rows_total = 0
        self._rows_before = 0  # of the snapshot that was restored
        self.type_changes: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.findings: deque[Reading] = deque(maxlen=FINDINGS_MAX)

    # References and versions.

    @property
    def schema_learner(self) -> SchemaLearner:
        return self._learner

    def reference(self, version: str) -> Reference | None:
        """What the version is compared with, or None while that is being learnt."""
        return self._references.get(version) or self._references.get(self.stable)

    def install(self, version: str, reference: Reference | None) -> None:
        """A version's own reference; nothing stays latched from before."""
        if reference is not None:
            self._references[version] = reference
            if version == self.stable:
                self._learning = None
        self._watches.pop(version, None)
        self._bound_versions()
        if version == self.stable:
            self._begin()

    def _begin(self) -> None:
        """Watch the stable version before its first row comes.

        Its counters are there at zero then; a counter that begins at its first thousand rows has
        lost them for `increase()`.
        """
        reference = self.reference(self.stable)
        if reference is not None and self.stable not in self._watches:
            self._watches[self.stable] = VersionWatch(self.stable, reference, self.settings.watch)

    def make_stable(self, version: str) -> None:
        """From now on that version's readings drive the policy; what it knows it keeps."""
        old = self._references.get(self.stable)
        self.stable = version
        if version not in self._references and old is not None:
            self._references[version] = old
        self._learning = None

    def forget(self, version: str) -> None:
        """A candidate that is gone."""
        if version != self.stable:
            self._watches.pop(version, None)
            self._references.pop(version, None)

    def _bound_versions(self) -> None:
        while len(self._references) > VERSIONS_MAX:
            oldest = next(name for name in self._references if name != self.stable)
            self.forget(oldest)

    def watch(self, version: str) -> VersionWatch | None:
        """The detectors of a version; None before it has a reference and was seen."""
        return self._watches.get(version)

    def watches(self) -> dict[str, VersionWatch]:
        """Version to its detectors, of every version that was seen."""
        return dict(self._watches)

    @property
    def provisional(self) -> VersionWatch | None:
        """Effects against a reference that is still being learnt: to look at, not to act on."""
        return self._learning.provisional if self._learning is not None else None

    @property
    def rows_since_start(self) -> int:
        """Rows that this process has decoded: a counter's value, see `agent.scrape`."""
        return self.rows_total - self._rows_before

    @property
    def learnt_rows(self) -> int:
        return self._learning.rows if self._learning is not None else 0

    # Rows.

    def take(self, inference: Inference, now: float) -> list[Tick]:
        """One inference; gives the ticks it completed."""
        self.rows_total += inference.row_count
        return self._run(self._builder.add(inference, now))

    def advance(self, now: float) -> list[Tick]:
        """The ticks whose time is over."""
        return self._run(self._builder.due(now))

    def flush(self, now: float) -> list[Tick]:
        """All open ticks as they are: before a restart, at the end of a replay."""
        return self._run(self._builder.flush(now))

    def _run(self, batches: Sequence[Batch]) -> list[Tick]:
        return [Tick(batch=batch, readings=self._tick(batch)) for batch in batches]

    def _tick(self, batch: Batch) -> tuple[Reading, ...]:
        self.type_changes.update(batch.type_changes)
        self.unexpected.update(batch.unexpected)
        reference = self.reference(batch.version)
        if reference is None:
            self._learn(batch)
            return ()
        watch = self._watches.get(batch.version)
        if watch is None:
            watch = VersionWatch(batch.version, reference, self.settings.watch)
            self._watches[batch.version] = watch
        elapsed_s = batch.closed_at - self._last_tick_at.get(batch.version, batch.opened_at)
        self._last_tick_at[batch.version] = batch.closed_at
        readings = watch.take(batch, ticks=_ticks(elapsed_s))
        self.findings.extend(readings)
        return tuple(readings)

    def _learn(self, batch: Batch) -> None:
        """Only the stable version teaches: a candidate's rows are no reference for itself."""
        if batch.version != self.stable:
            return
        learning = self._learning
        if learning is None:
            learning = self._learning = Learning(self.settings.tick_rows)
        learning.take(batch)
        if learning.rows >= self.settings.learn_rows:
            self._references[self.stable] = learning.builder.finish()
            self._learning = None
            self._begin()
        elif learning.provisional is not None:
            learning.provisional.take(batch, ticks=0.0)
        elif learning.rows >= self.settings.provisional_rows:
            reference = learning.builder.finish()
            learning.provisional = VersionWatch(self.stable, reference, self.settings.watch)

    # Labels.

    def take_labelled(self, joined: Sequence[Joined], now: float) -> list[Reading]:
        """Rows whose label came, in any mix of versions."""
        readings: list[Reading] = []
        for version in dict.fromkeys(row.version for row in joined):
            watch = self._watches.get(version)
            if watch is None:
                reference = self.reference(version)
                if reference is None:
                    continue
                watch = self._watches[version] = VersionWatch(
                    version, reference, self.settings.watch
                )
            elapsed_s = now - self._last_labels_at.get(version, now - BUDGET_TICK_S)
            self._last_labels_at[version] = now
            rows = [row for row in joined if row.version == version]
            readings += watch.take_labelled(rows, ticks=_ticks(elapsed_s), at=now)
        self.findings.extend(readings)
        return readings

    def accept_reference(self) -> Reference | None:
        """A person confirms what was learnt; None when there is nothing to confirm."""
        reference = self._references.get(self.stable)
        if reference is None or not reference.learnt or reference.accepted:
            return None
        accepted = replace(reference, accepted=True)
        self._references[self.stable] = accepted
        watch = self._watches.get(self.stable)
        if watch is not None:
            watch.reference = accepted
        return accepted

    # Snapshots.

    def state(self) -> dict[str, Any]:
        """Everything that matters, as JSON-able values; open ticks are not in it."""
        return {
            "stable": self.stable,
            "schema": self._learner.state(),
            "references": {
                version: reference.to_bytes().decode()
                for version, reference in self._references.items()
            },
            "watches": {version: watch.state() for version, watch in self._watches.items()},
            "rows_total": self.rows_total,
            "findings": [reading.to_json() for reading in self.findings],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot. What the ledger says of versions is applied afterwards."""
        self._learner.restore(state["schema"])
        self.rows_total = self._rows_before = int(state["rows_total"])
        self.findings.extend(Reading.from_json(event) for event in state["findings"])
        self.stable = state["stable"]
        for version, text in state["references"].items():
            self._references[version] = Reference.from_bytes(text.encode())
        self._watches.clear()
        for version, saved in state["watches"].items():
            reference = self.reference(version)
            if reference is None or reference.digest != saved["reference"]:
                continue
            watch = VersionWatch(version, reference, self.settings.watch)
            watch.restore(saved)
            self._watches[version] = watch
        self._begin()


def _ticks(elapsed_s: float) -> float:
    """A stretch of time as its share of the budget's minute, at most one."""
    return min(max(elapsed_s, 0.0) / BUDGET_TICK_S, 1.0)
