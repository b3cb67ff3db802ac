"""Families about features, predictions and quality: what the detectors of each version say.

Every family about features has at most `max_series` series. Counters come for a fixed set of the
stable version's features, all of their bins from zero on, so that replicas add up in PromQL;
gauges come for the most drifted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.scrape import Row, ScrapeInput, family, label
from agent.version_watch import VersionWatch
from detectors import STATE_NUMBER, DriftDetector, State
from exporters.prometheus import Family

EXPORTED_BINS = 8
EXPORTED_SCORES = 8
STATISTICS = ("psi", "js", "wasserstein", "ks")
# Part of a monitor -> the label `scope` of its states and evidence.
SCOPES = {"features": "feature", "projections": "multivariate", "prediction": "prediction"}


@dataclass(slots=True)
class _Gauges:
    """Rows of the gauges, filled monitor by monitor."""

    drift: list[Row] = field(default_factory=list)
    states: list[Row] = field(default_factory=list)
    evidence: list[Row] = field(default_factory=list)
    concept: list[Row] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    shifts: list[Row] = field(default_factory=list)
    wander: list[Row] = field(default_factory=list)
    effects: list[Row] = field(default_factory=list)


def drift_families(seen: ScrapeInput) -> list[Family]:
    """Distances, states and evidence of every version, the most drifted features of each."""
    rows = _Gauges()
    watches = [(watch, False) for watch in seen.watches.values()]
    if seen.provisional is not None and seen.stable not in seen.watches:
        watches.append((seen.provisional, True))
    monitors = [(w, p, scope, m) for w, p in watches for scope, m in _monitors(w)]
    shown = sum(scope != "multivariate" for _, _, scope, _ in monitors)
    room = max(1, seen.max_series // len(STATISTICS) // max(1, shown))
    for watch, provisional, scope, monitor in monitors:
        _monitor_rows(rows, seen, watch, (scope, monitor), room=room, provisional=provisional)
    for watch, provisional in watches:
        _concept_rows(rows, seen, watch, provisional=provisional)
        _label_rows(rows, seen, watch)
    state_words = "0 ok, 1 warning, 2 drift, -1 insufficient data."
    return [
        family(
            "feature_drift",
            "gauge",
            "Distance between reference and the last 10,000 rows.",
            "model version feature statistic",
            rows.drift,
        ),
        family("drift_state", "gauge", state_words, "model version scope feature", rows.states),
        family(
            "drift_evidence",
            "gauge",
            "log10 of the strongest e-value.",
            "model version scope",
            rows.evidence,
        ),
        family("concept_drift_state", "gauge", state_words, "model version detector", rows.concept),
        family(
            "feature_missing_ratio",
            "gauge",
            "Share of missing values over the last 10,000 rows.",
            "model feature",
            rows.missing,
        ),
        family(
            "feature_detectable_shift",
            "gauge",
            "Smallest shift that can be seen, in standard deviations.",
            "model feature",
            rows.shifts,
        ),
        family(
            "feature_tolerance",
            "gauge",
            "Wander that counts as nothing, in standard deviations: what the reference shows.",
            "model feature",
            rows.wander,
        ),
        family(
            "feature_design_effect",
            "gauge",
            "Rows that are worth one independent row: autocorrelation of the reference.",
            "model feature",
            rows.effects,
        ),
    ]


def _monitor_rows(
    rows: _Gauges,
    seen: ScrapeInput,
    watch: VersionWatch,
    watched: tuple[str, DriftDetector],
    *,
    room: int,
    provisional: bool,
) -> None:
    scope, monitor = watched
    model, version = seen.model, watch.version
    effects = monitor.effects()
    if monitor.rows:
        strongest = max(monitor.evidence().values())
        rows.evidence.append(((model, version, scope), _short(strongest)))
    if scope != "feature":
        states = [State.INSUFFICIENT_DATA] if provisional else monitor.states().values()
        worst = max(STATE_NUMBER[state] for state in states)
        rows.states.append(((model, version, scope, ""), float(worst)))
    if scope == "multivariate":
        return  # a projection is nothing that a person knows by its name
    shifts = monitor.detectable_shift()
    profiles = {profile.name: profile for profile in watch.reference.features}
    for name in _most_drifted(effects, room):
        figures, feature = effects[name], label(name)
        if scope == "feature":
            state = State.INSUFFICIENT_DATA if provisional else State(str(figures["state"]))
            rows.states.append(((model, version, scope, feature), float(STATE_NUMBER[state])))
        elif name in watch.data.names:
            continue  # a feature of that name has the series already
        if figures["rows"]:
            rows.drift += [
                ((model, version, feature, statistic), _short(float(figures[statistic])))
                for statistic in STATISTICS
            ]
        if version == seen.stable and scope == "feature":
            rows.missing.append(((model, feature), _short(float(figures["missing_ratio"]))))
            rows.shifts.append(((model, feature), _short(shifts[name])))
            profile = profiles[name]
            rows.wander.append(((model, feature), _short(profile.tolerance)))
            rows.effects.append(((model, feature), _short(profile.phi)))


def _concept_rows(
    rows: _Gauges, seen: ScrapeInput, watch: VersionWatch, *, provisional: bool
) -> None:
    found = {**watch.monitor.concept_states(), **watch.child_states}
    for detector, state in found.items():
        shown = State.INSUFFICIENT_DATA if provisional else state
        labels = (seen.model, watch.version, detector)
        rows.concept.append((labels, float(STATE_NUMBER[shown])))


def _label_rows(rows: _Gauges, seen: ScrapeInput, watch: VersionWatch) -> None:
    """Whether labels are spread as on the reference, where that had some."""
    state = watch.monitor.label_status()
    if state is not None:
        labels = (seen.model, watch.version, "label", "")
        rows.states.append((labels, float(STATE_NUMBER[state])))


def _monitors(watch: VersionWatch) -> Iterator[tuple[str, DriftDetector]]:
    for part, detector in watch.monitor.drifts().items():
        if part in SCOPES:
            yield SCOPES[part], detector


def _most_drifted(effects: Mapping[str, Mapping[str, float | int | str]], room: int) -> list[str]:
    """At most `room` names, in the order of the schema: states first, then how far they moved."""
    if len(effects) <= room:
        return list(effects)

    def concern(name: str) -> tuple[int, float]:
        figures = effects[name]
        return STATE_NUMBER[State(str(figures["state"]))], float(figures["psi"])

    kept = set(sorted(effects, key=concern, reverse=True)[:room])
    return [name for name in effects if name in kept]


def fleet_families(seen: ScrapeInput) -> list[Family]:
    """Counters that add over replicas: bins and log-evidence, of a fixed set of features."""
    bins: list[Row] = []
    shares: list[Row] = []
    up: list[Row] = []
    down: list[Row] = []
    stable = seen.watches.get(seen.stable)
    if stable is None:
        return []
    reference = stable.reference.hash8
    counts, expected, scores = stable.bins(), stable.data.export_reference(), stable.scores()
    known = seen.features or stable.data.names
    room = seen.max_series // max(EXPORTED_BINS, EXPORTED_SCORES)
    for name in [name for name in known if name in counts][:room]:
        feature = label(name)
        labels = (seen.model, stable.version, reference, feature)
        bins += [((*labels, bin), float(n)) for bin, n in counts[name].items()]
        shares += [((*labels, bin), _short(share)) for bin, share in expected[name].items()]
        for score, (rising, falling) in scores[name].items():
            up.append(((seen.model, reference, feature, score), _short(rising)))
            down.append(((seen.model, reference, feature, score), _short(falling)))
    by_bin = "model version reference feature bin"
    by_score = "model reference feature score"
    return [
        family("feature_bin_total", "counter", "Rows by bin of a feature.", by_bin, bins),
        family("reference_bin_ratio", "gauge", "The reference's share of a bin.", by_bin, shares),
        family("evidence_up_total", "counter", "Log-evidence for drift, up.", by_score, up),
        family("evidence_down_total", "counter", "Log-evidence for drift, down.", by_score, down),
    ]


def quality_families(seen: ScrapeInput) -> list[Family]:
    """Quality on labelled rows, and as it is estimated without labels, each with its interval."""
    rows: dict[str, list[Row]] = {"": [], "_lower": [], "_upper": []}
    for version, watch in seen.watches.items():
        found = (("realised", watch.metrics()), ("estimated", watch.monitor.estimated()))
        for basis, metrics in found:
            for metric, estimate in metrics.items():
                labels = (seen.model, version, metric, basis)
                rows[""].append((labels, _short(estimate.value)))
                if estimate.lower == estimate.lower:
                    rows["_lower"].append((labels, _short(estimate.lower)))
                    rows["_upper"].append((labels, _short(estimate.upper)))
    helps = {
        "": "Quality: realised over the most recent labelled rows, estimated over the last rows.",
        "_lower": "Lower limit of its 95 % interval.",
        "_upper": "Upper limit of its 95 % interval.",
    }
    return [
        *[
            family(f"model_quality{end}", "gauge", helps[end], "model version metric basis", found)
            for end, found in rows.items()
        ],
        *_group_families(seen),
    ]


def _group_families(seen: ScrapeInput) -> list[Family]:
    """Of the stable version: gaps between groups of people, and rows that are odd by themselves."""
    gaps: list[Row] = []
    odd: list[Row] = []
    stable = seen.watches.get(seen.stable)
    if stable is not None:
        for attribute, metrics in stable.monitor.fairness().items():
            gaps += [
                ((seen.model, label(attribute), metric), _short(estimate.value))
                for metric, estimate in metrics.items()
            ]
        outliers = stable.monitor.outliers()
        if outliers is not None:
            odd.append(((seen.model,), float(stable.odd_rows())))
    return [
        family(
            "fairness",
            "gauge",
            "Gaps between groups of an attribute; of disparate_impact the smallest ratio.",
            "model attribute metric",
            gaps,
        ),
        family(
            "outlier_rows_total",
            "counter",
            "Rows as odd as at most one reference row in 1,000; no part of the budget.",
            "model",
            odd,
        ),
    ]


def _short(value: float) -> float:
    """Nine digits that count: the others differ between processors, and cost bytes at a scrape."""
    return float(f"{value:.9g}")
