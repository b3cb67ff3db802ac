"""What is known of a model beside its features, for the status: how good it is, how groups fare,
what is wrong with its data.

Values in, JSON values out; every list has a limit. No value of a row is in it: names of columns,
and of categories and groups where those may be named, never of sensitive ones.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from agent.feature_view import SHOWN, parts_of
from agent.standing import (
    concept_states,
    data_quality_of,
    drifted_features,
    explained_by,
    fairness_of,
    standing_of,
)
from agent.version_watch import VersionWatch
from detectors import Reading
from detectors.drift.explain import shown
from detectors.findings.following import STANDING
from detectors.groups.fairness import Fairness
from detectors.parts.segments import Segments
from detectors.performance.intervals import Estimate
from detectors.reading import STATE_NUMBER, State
from detectors.references.feature_profile import NAMED_ROWS_MIN

Json = dict[str, Any]

NAMES_MAX: Final = 20  # of one list of columns
CATEGORIES_MAX: Final = 10
CLASSES_SHOWN_MAX: Final = 20
ODDEST_MAX: Final = 10
PROJECTIONS_MAX: Final = 10
_BY_NAME: Final = (
    "states",
    "concept_detectors",
    "quality",
    "quality_by_class",
    "estimated",
    "fairness",
)
_OR_NULL: Final = ("multivariate", "label_state", "outliers", "data_quality", "segments")
PARTS_MAX: Final = 5  # columns named for one projection, features for one segment


def detection_status(watch: VersionWatch | None, findings: Iterable[Reading]) -> Json:
    """The members of the status that the detectors of one version know; empty without a watch."""
    if watch is None:
        return {
            "standing": [],
            "estimates_hold": True,
            "concept": State.INSUFFICIENT_DATA.value,
            **{name: {} for name in _BY_NAME},
            **dict.fromkeys(_OR_NULL),
        }
    concept = concept_states(watch)
    label = watch.monitor.label_status()
    return {
        "states": dict(state_counts(watch)),
        "standing": standing_of(watch, findings),
        "multivariate": _multivariate(watch),
        "concept": worst(concept[name] for name in watch.monitor.concept_states()).value,
        "concept_detectors": {name: state.value for name, state in concept.items()},
        "label_state": None if label is None else label.value,
        "quality": _estimates(watch.metrics(), "realised"),
        "quality_by_class": _by_class(watch),
        "estimated": _estimates(watch.monitor.estimated(), "estimated"),
        "estimates_hold": watch.monitor.estimates_hold,
        "fairness": _fairness(watch),
        "outliers": _outliers(watch),
        "data_quality": _data_quality(watch),
        "segments": _segments(watch),
    }


def _by_class(watch: VersionWatch) -> Json:
    """Of more than two classes, and where they may be named: a few figures of each."""
    said = watch.reference.prediction
    found = watch.monitor.realised_by_class()
    if len(found) < 3 or (said is not None and said.sensitive):
        return {}
    return {
        shown(name): _estimates(metrics, "realised")
        for name, metrics in islice(found.items(), CLASSES_SHOWN_MAX)
        if max(estimate.rows for estimate in metrics.values()) >= NAMED_ROWS_MIN
    }


def worst(states: Iterable[State]) -> State:
    """The worst of some states; without any too little is known."""
    return max(states, key=STATE_NUMBER.__getitem__, default=State.INSUFFICIENT_DATA)


def state_counts(watch: VersionWatch) -> Counter[str]:
    """Subjects by state: features, outputs, how features go together, and what labels tell."""
    drifts = watch.monitor.drifts()
    states = [state for part in SHOWN if part in drifts for state in drifts[part].states().values()]
    if "projections" in drifts:
        states.append(worst(drifts["projections"].states().values()))
    if watch.labelled_rows:
        states.append(worst(concept_states(watch).values()))
        label = watch.monitor.label_status()
        states += [] if label is None else [label]
    return Counter(state.value for state in states)


def _multivariate(watch: VersionWatch) -> Json | None:
    """How columns go together: the drifted projections, and which columns they are made of."""
    detector = watch.monitor.drift("projections")
    if detector is None:
        return None
    states, evidence = detector.states(), detector.evidence()
    drifted = sorted(
        (name for name, state in states.items() if state in STANDING), key=lambda n: -evidence[n]
    )[:PROJECTIONS_MAX]
    parts = parts_of(watch.reference, drifted)
    explained = explained_by(watch, drifted, drifted_features(watch))
    return {
        "state": worst(states.values()).value,
        "evidence": max(evidence.values()),
        "evidence_threshold": detector.evidence_threshold,
        "watched": len(states),
        "drifted": [
            {
                "name": name,
                "state": states[name].value,
                "evidence": evidence[name],
                "columns": [
                    {"name": shown(column), "share": share}
                    for column, share in list(parts.get(name, {}).items())[:PARTS_MAX]
                ],
                "explained_by": [shown(column) for column in explained[name][:PARTS_MAX]],
            }
            for name in drifted
        ],
    }


def _estimates(found: Mapping[str, Estimate], basis: str) -> Json:
    return {name: {**_estimate(estimate), "basis": basis} for name, estimate in found.items()}


def _estimate(estimate: Estimate) -> Json:
    """Without an interval its ends are null."""
    bounded = estimate.kind != "none"
    return {
        "value": estimate.value,
        "lower": estimate.lower if bounded else None,
        "upper": estimate.upper if bounded else None,
        "rows": estimate.rows,
        "kind": estimate.kind,
    }


def _fairness(watch: VersionWatch) -> Json:
    sensitive = {profile.name for profile in watch.reference.features if profile.sensitive}
    metrics = watch.monitor.fairness()
    return {
        shown(attribute): {
            "metrics": {name: _estimate(found) for name, found in metrics[attribute].items()},
            "groups": _groups(rows, labelled, hidden=attribute in sensitive),
            "bounds": {**rows.bounds, **labelled.bounds},
            "beyond": [*rows.standing(), *labelled.standing()],
        }
        for attribute, (rows, labelled) in list(fairness_of(watch).items())[:NAMES_MAX]
    }


def _groups(rows: Fairness, labelled: Fairness, *, hidden: bool) -> Json:
    """Each group's rates: selection among all rows, errors among the labelled ones."""
    of_rows, of_labels = rows.rates(), labelled.rates()
    found: Json = {}
    for place, group in enumerate({**of_rows, **of_labels}):
        known = {**of_labels.get(group, {}), **of_rows.get(group, {})}
        found[f"group {place + 1}" if hidden else group] = {
            **{name: known.get(name) for name in ("selection", "true_positive", "false_positive")},
            "rows": of_rows.get(group, {}).get("rows", 0.0),
            "labelled_rows": of_labels.get(group, {}).get("rows", 0.0),
        }
    return found


def _outliers(watch: VersionWatch) -> Json | None:
    found = watch.monitor.outliers()
    if found is None:
        return None
    return {
        "rows": found.rows_total,
        "outliers": found.outliers_total,
        "ratio": found.ratio(),
        "oddest": [
            {
                "row": row.row,
                "at": row.at,
                "score": row.score,
                "features": [{"name": name, "what": what} for name, what in row.features],
            }
            for row in found.oddest()[:ODDEST_MAX]
        ],
    }


def _data_quality(watch: VersionWatch) -> Json | None:
    """What stands, by detector; of new categories what they are called, where that may be said."""
    found = data_quality_of(watch)
    if found is None:
        return None
    standing = found.standing()
    named = found.new_categories()
    return {
        "state": (State.WARNING if standing else State.OK).value,
        "columns_absent_total": found.schema.absent_total,
        "columns_unexpected_total": found.schema.unexpected_total,
        **{
            detector: [shown(subject) for subject in standing.get(detector, ())[:NAMES_MAX]]
            for detector in ("schema", "types", "constant", "duplicates", "silence")
        },
        "new_category": [
            {
                "feature": shown(name),
                "categories": [
                    {"name": category, "rows": rows, "share": share}
                    for category, rows, share in named.get(name, ())[:CATEGORIES_MAX]
                ],
            }
            for name in standing.get("new_category", ())[:NAMES_MAX]
        ],
    }


def _segments(watch: VersionWatch) -> Json | None:
    """Parts of the stream: how many features are in which state in each."""
    part = watch.monitor.parts.get("segments")
    if not isinstance(part, Segments):
        return None
    parts = []
    for name, detector in part.detector.detectors().items():
        states, evidence = detector.states(), detector.evidence()
        drifted = [feature for feature, state in states.items() if state in STANDING]
        parts.append(
            {
                "name": shown(name),
                "rows": detector.rows,
                "states": dict(Counter(state.value for state in states.values())),
                "drifted": [
                    shown(feature)
                    for feature in sorted(drifted, key=lambda f: -evidence[f])[:PARTS_MAX]
                ],
            }
        )
    return {
        "column": shown(part.detector.column),
        "segments": parts,
        "left_out": len(part.detector.left_out),
    }
