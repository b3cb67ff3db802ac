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
from agent.learning import Learning
from agent.schema import SchemaSettings
from agent.schema_learning import SchemaLearner
from agent.version_watch import VersionWatch
from detectors import Reading, Reference
from detectors.settings import Settings

# One tick of the budget is a minute of the month; more rows per second do not buy more alarms.
BUDGET_TICK_S = 60.0
VERSIONS_MAX = 4
FINDINGS_MAX = 500
UNEXPECTED_MAX = 1_000  # names of unexpected columns that are counted one by one
OTHERS = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """How rows become ticks, and how a reference is come by when none was given."""

    tick_rows: int = 1_000
    tick_s: float = 60.0
    learn_rows: int = 10_000
    provisional_rows: int = 1_000
    watch: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One batch, what it brought of a minute of the budget, and what the detectors said to it."""

    batch: Batch
    readings: tuple[Reading, ...]
    share: float = 0.0


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
        self._texts: dict[Reference, str] = {}
        self._watches: dict[str, VersionWatch] = {}
        self._learning: Learning | None = None
        self._last_tick_at: dict[str, float] = {}
        self._last_labels_at: dict[str, float] = {}
        self.rows_total = 0
        self.represented = 0.0  # rows that those since the start stand for
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
        self._watch_of(self.stable)

    def make_stable(self, version: str) -> None:
        """From now on that version's readings drive the policy; what it knows it keeps."""
        old = self._references.get(self.stable)
        self.stable = version
        if version not in self._references and old is not None:
            self._references[version] = old
        self._learning = None
        self._bound_versions()

    def forget(self, version: str) -> None:
        """A candidate that is gone."""
        if version != self.stable:
            for known in (self._watches, self._references):
                known.pop(version, None)
            for times in (self._last_tick_at, self._last_labels_at):
                times.pop(version, None)

    def _bound_versions(self) -> None:
        for known in (self._references, self._watches, self._last_tick_at, self._last_labels_at):
            while len(known) > VERSIONS_MAX:
                self.forget(next(name for name in known if name != self.stable))

    def _watch_of(self, version: str) -> VersionWatch | None:
        """The version's detectors, made when there is a reference for it and not before."""
        watch = self._watches.get(version)
        reference = self.reference(version)
        if watch is None and reference is not None:
            watch = self._watches[version] = VersionWatch(version, reference, self.settings.watch)
            self._bound_versions()
        return watch

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
        rows = inference.row_count
        self.rows_total += rows
        self.represented += rows * inference.weight
        return self._run(self._builder.add(inference, now))

    def advance(self, now: float) -> list[Tick]:
        """The ticks whose time is over; a minute without a row is told to the stable version."""
        ticks = self._run(self._builder.due(now))
        watch = self._watches.get(self.stable)
        if watch is not None and not ticks and not self._builder.is_open(self.stable):
            self.findings.extend(watch.idle(now))
        return ticks

    def flush(self, now: float) -> list[Tick]:
        """All open ticks as they are: before a restart, at the end of a replay."""
        return self._run(self._builder.flush(now))

    def _run(self, batches: Sequence[Batch]) -> list[Tick]:
        return [self._tick(batch) for batch in batches]

    def _tick(self, batch: Batch) -> Tick:
        self.type_changes.update(batch.type_changes)
        for name, count in batch.unexpected.items():
            known = name in self.unexpected or len(self.unexpected) < UNEXPECTED_MAX
            self.unexpected[name if known else OTHERS] += count
        watch = self._watch_of(batch.version)
        if watch is None:
            self._learn(batch)
            return Tick(batch=batch, readings=())
        elapsed_s = batch.closed_at - self._last_tick_at.get(batch.version, batch.opened_at)
        self._last_tick_at[batch.version] = batch.closed_at
        share = _ticks(elapsed_s)
        readings = watch.take(batch, ticks=share)
        self.findings.extend(readings)
        return Tick(batch=batch, readings=tuple(readings), share=share)

    def _learn(self, batch: Batch) -> None:
        """Only the stable version teaches: a candidate's rows are no reference for itself."""
        if batch.version != self.stable:
            return
        learning = self._learning
        if learning is None:
            learning = self._learning = self._new_learning()
        learning.take(batch)
        if learning.rows >= self.settings.learn_rows:
            self._references[self.stable] = learning.finish()
            self._learning = None
            self._begin()
            self._hand_over(learning, self._watches[self.stable])
        elif learning.provisional is not None:
            learning.provisional.take(batch, ticks=0.0)
        elif learning.rows >= self.settings.provisional_rows:
            self._show(learning, learning.finish())

    def _new_learning(self) -> Learning:
        settings = self.settings
        return Learning(self._learner, learn_rows=settings.learn_rows, tick_rows=settings.tick_rows)

    def _show(self, learning: Learning, reference: Reference) -> None:
        """Effects against what has been learnt so far, to look at."""
        learning.provisional = VersionWatch(
            self.stable, reference, self.settings.watch, provisional=True
        )
        self._hand_over(learning, learning.provisional)

    def _hand_over(self, learning: Learning, watch: VersionWatch) -> None:
        """Labels do not wait for a reference: what they said so far goes on."""
        if learning.provisional is not None and learning.provisional is not watch:
            watch.take_over(learning.provisional)
        if learning.labelled:
            at = max(row.labelled_at for row in learning.labelled)
            self.findings.extend(watch.take_labelled(list(learning.labelled), ticks=1.0, at=at))
            learning.labelled.clear()

    # Labels.

    def take_labelled(self, joined: Sequence[Joined], now: float) -> list[Reading]:
        """Rows whose label came, in any mix of versions."""
        readings: list[Reading] = []
        for version in dict.fromkeys(row.version for row in joined):
            rows = [row for row in joined if row.version == version]
            watch = self._watch_of(version)
            if watch is None and version == self.stable and self._learning is not None:
                watch = self._learning.provisional
                if watch is None:
                    self._learning.labelled.extend(rows)
            if watch is None:
                continue
            elapsed_s = now - self._last_labels_at.get(version, now - BUDGET_TICK_S)
            self._last_labels_at[version] = now
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
            "references": self._reference_texts(),
            "watches": {version: watch.state() for version, watch in self._watches.items()},
            "learning": None if self._learning is None else self._learning.state(),
            "last_tick_at": dict(self._last_tick_at),
            "last_labels_at": dict(self._last_labels_at),
            "rows_total": self.rows_total,
            "findings": [reading.to_json() for reading in self.findings],
        }

    def _reference_texts(self) -> dict[str, str]:
        """Version to its reference as text, written once: it never changes, and is long."""
        known, self._texts = self._texts, {}
        for reference in self._references.values():
            self._texts[reference] = known.get(reference) or reference.to_bytes().decode()
        return {version: self._texts[r] for version, r in self._references.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot. What the ledger says of versions is applied afterwards.

        Raises `KeyError`, `TypeError` or `ValueError` for a snapshot that cannot be used, and has
        changed nothing then.
        """
        stable = str(state["stable"])
        references = {
            version: Reference.from_bytes(str(text).encode())
            for version, text in state["references"].items()
        }
        references = {**self._references, **references}
        watches: dict[str, VersionWatch] = {}
        for version, saved in state["watches"].items():
            reference = references.get(version) or references.get(stable)
            if reference is None or reference.digest != saved["reference"]:
                continue
            watches[version] = VersionWatch(version, reference, self.settings.watch)
            watches[version].restore(saved)
        learning = None
        if state["learning"] is not None and stable not in references:
            learning = self._new_learning()
            learning.restore(state["learning"])
        findings = [Reading.from_json(event) for event in state["findings"]]
        times = [
            {str(version): float(at) for version, at in state[name].items()}
            for name in ("last_tick_at", "last_labels_at")
        ]
        rows_total = int(state["rows_total"])
        self._learner.restore(state["schema"])
        self.rows_total = self._rows_before = rows_total
        self.findings.extend(findings)
        self.stable, self._references, self._watches = stable, references, watches
        self._last_tick_at, self._last_labels_at = times
        self._learning = learning
        if learning is not None:
            self._show(learning, learning.finish())
            assert learning.provisional is not None
            learning.provisional.restore_labels(state["learning"]["labels"])
        self._begin()


def _ticks(elapsed_s: float) -> float:
    """A stretch of time as its share of the budget's minute, at most one."""
    return min(max(elapsed_s, 0.0) / BUDGET_TICK_S, 1.0)
