"""What is shown of each feature, and of what the model says: figures, distribution, history.

Projections are no features and nobody knows them by their names: they are left out here, and a
feature says of which drifted ones it is a good part.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from agent.version_watch import VersionWatch
from detectors import DriftDetector, Reference
from detectors.findings.following import STANDING
from detectors.findings.said_once import PART_MIN
from detectors.reading import Kind
from detectors.reference import FeatureProfile
from detectors.rows.windows import WINDOW_ROWS

Json = dict[str, Any]

HISTORY_POINTS_MAX: Final = 500
FEATURE_HISTORIES_MAX: Final = 500
#: Parts of a monitor whose subjects people know by name.
SHOWN: Final = ("features", "prediction")
#: Distances and the state of one feature.
Figures = Mapping[str, float | int | str]
_PERIODS: Final = {24: "day", 96: "day", 168: "week", 672: "week"}


class FeatureView:
    """Features as the API shows them, with their history since the agent started."""

    def __init__(self) -> None:
        self._histories: dict[str, deque[Json]] = {}
        self._seen: dict[str, _Seen] = {}

    def entries(self, watch: VersionWatch | None) -> list[Json]:
        """One entry for each feature and output of the model."""
        if watch is None:
            return []
        loaded = loadings(watch)
        return [
            {**entry, "projections": loaded.get(name, [])}
            for seen in self._shown(watch)
            for name, entry in seen.entries().items()
        ]

    def one(self, watch: VersionWatch | None, name: str) -> Json | None:
        """One feature with all that is known of it; None when there is none of that name."""
        if watch is None:
            return None
        seen = next((one for one in self._shown(watch) if name in one.detector.names), None)
        if seen is None:
            return None
        windows = {str(rows): seen.figures(rows)[name] for rows in WINDOW_ROWS}
        windows["since"] = seen.figures(None)[name]
        return {
            **seen.entries()[name],
            "projections": loadings(watch).get(name, []),
            **_of_reference(_profile(watch.reference, name, seen.detector is watch.data)),
            "effects": {over: _distances(figures) for over, figures in windows.items()},
            "bins": _bins(seen.distributions()[name]),
            "history": list(self._histories.get(name, ())),
        }

    def note(self, watch: VersionWatch, at: float) -> Json:
        """One point of every feature's history; gives the most drifted, for that of the model."""
        entries = self.entries(watch)
        for entry in entries:
            name = entry["name"]
            if name in self._histories or len(self._histories) < FEATURE_HISTORIES_MAX:
                history = self._histories.setdefault(name, deque(maxlen=HISTORY_POINTS_MAX))
                history.append({"at": at, "psi": entry["psi"], "evidence": entry["evidence"]})
        if not entries:
            return {}
        worst = max(entries, key=lambda entry: float(entry["psi"]))
        return {
            "psi_max": worst["psi"],
            "feature": worst["name"],
            "evidence_max": max(float(entry["evidence"]) for entry in entries),
        }

    def _shown(self, watch: VersionWatch) -> "list[_Seen]":
        drifts = watch.monitor.drifts()
        for part in SHOWN:
            seen, detector = self._seen.get(part), drifts.get(part)
            if detector is None:
                self._seen.pop(part, None)
            elif seen is None or seen.detector is not detector or seen.rows != detector.rows:
                self._seen[part] = _Seen(detector)
        return [self._seen[part] for part in SHOWN if part in self._seen]


class _Seen:
    """What a detector said after one tick, worked out once however often it is asked for."""

    def __init__(self, detector: DriftDetector) -> None:
        self.detector, self.rows = detector, detector.rows
        self._figures: dict[int | None, Mapping[str, Figures]] = {}
        self._entries: dict[str, Json] = {}
        self._distributions: dict[str, Json] = {}

    def distributions(self) -> dict[str, Json]:
        """Labels, reference and current shares of each feature's bins."""
        if not self._distributions:
            self._distributions = self.detector.distributions()
        return self._distributions

    def figures(self, window_rows: int | None) -> Mapping[str, Figures]:
        """Distances over a window; None: since each feature's evidence left its floor."""
        if window_rows not in self._figures:
            detector = self.detector
            self._figures[window_rows] = (
                detector.effects_since() if window_rows is None else detector.effects(window_rows)
            )
        return self._figures[window_rows]

    def entries(self) -> dict[str, Json]:
        """What a list of features says of each, by name."""
        if not self._entries:
            detector = self.detector
            evidence, shift = detector.evidence(), detector.detectable_shift()
            feature = detector.kind is Kind.DATA_DRIFT
            kinds = {profile.name: profile.kind for profile in detector.reference.features}
            self._entries = {
                name: {
                    "name": name,
                    "kind": kinds[name] if feature else "prediction",
                    "evidence": evidence[name],
                    "evidence_threshold": detector.evidence_threshold,
                    "detectable_shift": shift[name],
                    **figures,
                }
                for name, figures in self.figures(10_000).items()
            }
        return self._entries


def loadings(watch: VersionWatch) -> dict[str, list[str]]:
    """Of each feature the drifted projections that it is a good part of."""
    projections = watch.monitor.drift("projections")
    if projections is None:
        return {}
    drifted = [name for name, state in projections.states().items() if state in STANDING]
    found: dict[str, list[str]] = {}
    for projection, parts in parts_of(watch.reference, drifted).items():
        for name in parts:
            found.setdefault(name, []).append(projection)
    return found


def parts_of(reference: Reference, projections: list[str]) -> dict[str, dict[str, float]]:
    """Of each projection the columns that make up a good part of it, with their shares."""
    derivation = reference.derivation
    if derivation is None or not projections:
        return {}
    shares = derivation.shares()
    of_vectors = {
        output: column
        for column, (_, found) in derivation.vectors.items()
        for output in found.projections
    }
    return {
        name: {of_vectors[name]: 1.0}
        if name in of_vectors
        else {part: share for part, share in shares.get(name, {}).items() if share >= PART_MIN}
        for name in projections
    }


def _profile(reference: Reference, name: str, feature: bool) -> FeatureProfile | None:
    outputs = tuple(p for p in (reference.prediction, reference.score) if p is not None)
    profiles = reference.features if feature else outputs
    return next((profile for profile in profiles if profile.name == name), None)


def _of_reference(profile: FeatureProfile | None) -> Json:
    """How far a feature wanders by itself, and whether it follows the hours."""
    if profile is None:
        return {}
    parts = len(profile.phases)
    return {
        "type": profile.type,
        "sensitive": profile.sensitive,
        "reference_rows": profile.rows,
        "phi": profile.phi,
        "tolerance": profile.tolerance,
        "seasonal": {"parts": parts, "of": _PERIODS.get(parts, "week")} if parts else None,
    }


def _distances(figures: Mapping[str, Any]) -> Json:
    return {name: value for name, value in figures.items() if name != "state"}


def _bins(shown: Mapping[str, Any]) -> list[Json]:
    columns = (shown[name] for name in ("labels", "reference", "current"))
    return [
        {"label": label, "reference": p, "current": q} for label, p, q in zip(*columns, strict=True)
    ]
