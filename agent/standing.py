"""What stands: every subject that is in a warning or a drift now, with what was said of it.

The detectors know their states; what was said is the newest finding of that subject, and is null
once so many others came that it is forgotten. What follows from another finding is one event: label
drift beside a change of the concept, and a projection of features that drift, do not stand here.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from agent.feature_view import parts_of
from agent.version_watch import VersionWatch
from detectors import Reading
from detectors.data_quality.watch import DataQuality
from detectors.drift.explain import shown
from detectors.findings.following import STANDING
from detectors.groups.fairness import Fairness
from detectors.groups.segments import SEGMENT_MARK
from detectors.parts.data_quality import Columns
from detectors.parts.fairness import Groups
from detectors.parts.segments import Segments
from detectors.reading import STATE_NUMBER, Kind, Scope, State

Json = dict[str, Any]

STANDING_MAX: Final = 100
#: In this order where states are equal: what is wrong with the model, then with its data.
KINDS: Final = (
    *(Kind.CONCEPT_DRIFT, Kind.QUALITY, Kind.LABEL_DRIFT, Kind.PREDICTION_DRIFT),
    *(Kind.DATA_DRIFT, Kind.DATA_QUALITY, Kind.LATENCY, Kind.RESOURCE),
)
#: Detectors whose state is asked for; of others the newest finding is what stands.
_ASKED: Final = frozenset(
    (
        *("schema", "types", "constant", "new_category", "duplicates", "silence"),
        *("fairness", "estimate_trust"),
    )
)
_BY_FINDINGS: Final = frozenset((Kind.QUALITY, Kind.DATA_QUALITY, Kind.LATENCY, Kind.RESOURCE))


def standing_of(watch: VersionWatch, findings: Iterable[Reading]) -> list[Json]:
    """At most 100 subjects, drifts first."""
    said = _Said(findings, watch.version)
    found = [
        *_concept(watch, said),
        *_drifts(watch, said),
        *_label(watch, said),
        *_data_quality(watch, said),
        *_estimates(watch, said),
        *_fairness(watch, said),
        *islice(_segments(watch, said), STANDING_MAX),
        *said.others(),
    ]
    order = {kind.value: place for place, kind in enumerate(KINDS)}
    found.sort(key=lambda entry: (-STATE_NUMBER[State(entry["state"])], order[entry["kind"]]))
    return found[:STANDING_MAX]


def concept_states(watch: VersionWatch) -> dict[str, State]:
    """The state of every detector of concept drift, the child's too."""
    found = {**watch.monitor.concept_states(), **watch.child_states}
    return dict.fromkeys(found, State.INSUFFICIENT_DATA) if watch.provisional else found


def drifted_features(watch: VersionWatch) -> frozenset[str]:
    """Features that stand by themselves."""
    return frozenset(name for name, state in watch.data.states().items() if state in STANDING)


def data_quality_of(watch: VersionWatch) -> DataQuality | None:
    """What watches the data itself; None against a provisional reference."""
    part = watch.monitor.parts.get("data_quality")
    return part.detector if isinstance(part, Columns) else None


def fairness_of(watch: VersionWatch) -> dict[str, tuple[Fairness, Fairness]]:
    """By attribute what watches all rows, and the labelled ones."""
    part = watch.monitor.parts.get("fairness")
    if not isinstance(part, Groups):
        return {}
    return {name: (rows, part.labelled[name]) for name, rows in part.selection.items()}


class _Said:
    """The newest readings of one version, by what they are about."""

    def __init__(self, findings: Iterable[Reading], version: str) -> None:
        self._newest: dict[tuple[Kind, str], dict[str, Reading]] = {}
        self._subjects: dict[tuple[Kind, str], str] = {}
        for reading in findings:
            if reading.version in ("", version):
                by = self._newest.setdefault((reading.kind, reading.subject), {})
                by.pop(_source(reading), None)  # the newest stand last
                by[_source(reading)] = reading
                self._subjects[reading.kind, reading.detector] = reading.subject

    def entry(
        self,
        kind: Kind,
        subject: str,
        state: State,
        *,
        detector: str | None = None,
        scope: Scope = Scope.MODEL,
        segment: str | None = None,
    ) -> Json:
        """A subject that stands, and what was said of it."""
        found = self._find(kind, subject, detector, segment)
        return {
            "kind": kind.value,
            "scope": scope.value,
            "subject": subject,
            "detector": detector if found is None else found.detector,
            "state": state.value,
            "at": None if found is None else found.at,
            "explain": None if found is None else found.explain,
        }

    def _find(
        self, kind: Kind, subject: str, detector: str | None, segment: str | None
    ) -> Reading | None:
        for reading in reversed(self._newest.get((kind, subject), {}).values()):
            if reading.state not in STANDING or _segment(reading) != segment:
                continue
            if detector is None or reading.detector == detector:
                return reading
        return None

    def subject_of(self, kind: Kind, detector: str) -> str:
        """What a detector speaks about; most speak about what they are called."""
        return self._subjects.get((kind, detector), detector)

    def others(self) -> Iterator[Json]:
        """What stands by its newest finding alone: labels that do not come, and the like."""
        for (kind, subject), readings in self._newest.items():
            for reading in readings.values() if kind in _BY_FINDINGS else ():
                by, state = reading.detector, reading.state
                if by not in _ASKED and state in STANDING:
                    yield self.entry(kind, subject, state, detector=by, scope=reading.scope)


def _source(reading: Reading) -> str:
    """Who says it: of segments each speaks for itself."""
    return f"{reading.detector} {_segment(reading) or ''}"


def _segment(reading: Reading) -> str | None:
    """The segment that a reading is of; None where it is of all rows."""
    _, mark, name = reading.detector.partition(SEGMENT_MARK)
    return name if mark else None


def _concept(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    for detector, state in concept_states(watch).items():
        if state in STANDING:
            subject = said.subject_of(Kind.CONCEPT_DRIFT, detector)
            yield said.entry(Kind.CONCEPT_DRIFT, subject, state)


def _drifts(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    features = drifted_features(watch)
    for part, detector in watch.monitor.drifts().items():
        states = {name: s for name, s in detector.states().items() if s in STANDING}
        if part == "projections":
            explained = explained_by(watch, list(states), features)
            states = {name: s for name, s in states.items() if not explained[name]}
        evidence = detector.evidence()
        for name in sorted(states, key=lambda name: -evidence[name])[:STANDING_MAX]:
            yield said.entry(detector.kind, name, states[name], scope=detector.scope)


def explained_by(
    watch: VersionWatch, projections: list[str], features: frozenset[str]
) -> Mapping[str, list[str]]:
    """Of each projection the features that stand and are a good part of it."""
    parts = parts_of(watch.reference, projections)
    return {name: [p for p in parts.get(name, ()) if p in features] for name in projections}


def _label(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    state = watch.monitor.label_status()
    label = watch.reference.label
    concept = any(one in STANDING for one in concept_states(watch).values())
    if label is not None and state is not None and state in STANDING and not concept:
        yield said.entry(Kind.LABEL_DRIFT, label.name, state)


def _data_quality(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    quality = data_quality_of(watch)
    if quality is None:
        return
    for detector, subjects in quality.standing().items():
        for subject in subjects[:STANDING_MAX]:
            scope = Scope.MODEL if subject.startswith("(") else Scope.FEATURE
            yield said.entry(
                Kind.DATA_QUALITY, subject, State.WARNING, detector=detector, scope=scope
            )


def _estimates(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    if not watch.monitor.estimates_hold:
        yield said.entry(Kind.QUALITY, "estimation", State.WARNING)


def _fairness(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    for attribute, parts in fairness_of(watch).items():
        for metric in (name for part in parts for name in part.standing()):
            subject = f"{shown(attribute)}:{metric}"
            yield said.entry(Kind.QUALITY, subject, State.WARNING, detector="fairness")


def _segments(watch: VersionWatch, said: _Said) -> Iterator[Json]:
    """What drifts in a part of the stream and not in the whole."""
    part = watch.monitor.parts.get("segments")
    if not isinstance(part, Segments):
        return
    everywhere = drifted_features(watch)
    for segment, detector in part.detector.detectors().items():
        for name, state in detector.states().items():
            if state in STANDING and name not in everywhere:
                entry = said.entry(
                    Kind.DATA_DRIFT, name, state, scope=Scope.FEATURE, segment=shown(segment)
                )
                yield {**entry, "segment": shown(segment)}
