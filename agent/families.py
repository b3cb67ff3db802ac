"""The agent's tables as metric families: names, types and labels of the public contract.

Pure: values in, families out. Labels are bounded by the tables they come from; whatever has no
value is absent, never zero, but counters of known features start at zero so that `increase()` sees
their first rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.edge_totals import EdgeTotals
from agent.intake import DELAY_BOUNDS_S, Delays
from agent.resources import Resources
from agent.version_watch import VersionWatch
from detectors import STATE_NUMBER, Monitor, State
from exporters.prometheus import Family, FamilyKind, Histogram

NAME_CHARACTERS_MAX = 64
EXPORTED_BINS = 8
Row = tuple[tuple[str, ...], float | Histogram]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFigures:
    """The rollout that is, or was last."""

    candidate: str
    state: int
    weight: float
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeInput:
    """Everything a scrape shows, taken at one moment."""

    model: str
    version: str
    digest: str
    totals: EdgeTotals
    watches: Mapping[str, VersionWatch]
    stable: str
    features: tuple[str, ...]  # fixed at start: configured, else in the order of the schema
    max_series: int
    rows_total: int
    sampling_rate: float
    drops: Mapping[str, int]
    labels: Mapping[str, int]
    delays: Delays
    server: Resources
    processes: Mapping[str, Mapping[str, float]]
    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deliveries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    outbox: Mapping[str, int] = field(default_factory=dict)
    rollout: RolloutFigures | None = None
    rollbacks: Mapping[str, int] = field(default_factory=dict)


def families(seen: ScrapeInput) -> list[Family]:
    """Every family that has something to say."""
    made = [
        *_traffic(seen),
        *_intake(seen),
        *_drift(seen),
        *_fleet(seen),
        *_quality(seen),
        *_server(seen),
        *_agent(seen),
        *_release(seen),
    ]
    return [family for family in made if family.rows]


def _family(name: str, kind: FamilyKind, help: str, labels: str, rows: Sequence[Row]) -> Family:
    return Family(
        name=f"remora_{name}", kind=kind, help=help, labels=tuple(labels.split()), rows=rows
    )


def _traffic(seen: ScrapeInput) -> list[Family]:
    cells = seen.totals.cells()
    bounds = seen.totals.latest.bounds_s if seen.totals.latest else ()
    codes: list[Row] = []
    durations: list[Row] = []
    first_bytes: list[Row] = []
    in_flight: Counter[str] = Counter()
    for (version, route), cell in sorted(cells.items()):
        labels = (seen.model, version, route)
        codes += [((*labels, code), float(n)) for code, n in sorted(cell.codes.items())]
        durations.append((labels, _histogram(bounds, cell.duration_counts, cell.duration_sum_s)))
        first_bytes.append(
            (labels, _histogram(bounds, cell.first_byte_counts, cell.first_byte_sum_s))
        )
        in_flight[version] += cell.in_flight
    flying: list[Row] = [((seen.model, v), float(n)) for v, n in sorted(in_flight.items())]
    request = "model version route"
    return [
        _family("requests_total", "counter", "Requests answered.", f"{request} code", codes),
        _family(
            "request_duration_seconds",
            "histogram",
            "From a request's head to the last byte of its answer.",
            request,
            durations,
        ),
        _family(
            "time_to_first_byte_seconds",
            "histogram",
            "From a request's head to the first byte of its answer.",
            request,
            first_bytes,
        ),
        _family("requests_in_flight", "gauge", "Requests being answered.", "model version", flying),
    ]


def _histogram(bounds: tuple[float, ...], counts: Sequence[int], total: float) -> Histogram:
    filled = tuple(counts) if counts else (0,) * (len(bounds) + 1)
    return Histogram(bounds=bounds, counts=filled, sum=total)


def _intake(seen: ScrapeInput) -> list[Family]:
    model = (seen.model,)
    delays = _histogram(DELAY_BOUNDS_S, seen.delays.counts, seen.delays.sum_s)
    return [
        _family("rows_total", "counter", "Rows decoded.", "model", [(model, seen.rows_total)]),
        _family(
            "sampling_rate",
            "gauge",
            "Share of exchanges that are copied for analysis.",
            "model",
            [(model, seen.sampling_rate)],
        ),
        _family(
            "dropped_total",
            "counter",
            "What was lost or could not be read, by reason; traffic is never among it.",
            "model reason",
            [((seen.model, reason), float(n)) for reason, n in sorted(seen.drops.items())],
        ),
        _family(
            "labels_total",
            "counter",
            "Labels by what became of them.",
            "model outcome",
            [((seen.model, outcome), float(n)) for outcome, n in sorted(seen.labels.items())],
        ),
        _family(
            "label_delay_seconds",
            "histogram",
            "From a prediction to its label.",
            "model",
            [(model, delays)],
        ),
    ]


def _drift(seen: ScrapeInput) -> list[Family]:
    drift: list[Row] = []
    states: list[Row] = []
    evidence: list[Row] = []
    concept: list[Row] = []
    missing: list[Row] = []
    shifts: list[Row] = []
    for version, watch in seen.watches.items():
        for scope, monitor in _monitors(watch):
            effects = monitor.effects()
            evidence.append(
                ((seen.model, version, scope), max(monitor.evidence().values(), default=0.0))
            )
            for name in _most_drifted(effects, monitor, seen.max_series):
                figures, label = effects[name], _cut(name)
                subject = label if scope == "feature" else ""
                states.append(
                    (
                        (seen.model, version, scope, subject),
                        float(STATE_NUMBER[State(str(figures["state"]))]),
                    )
                )
                drift += [
                    ((seen.model, version, label, statistic), float(figures[statistic]))
                    for statistic in ("psi", "js", "wasserstein", "ks")
                ]
                if version == seen.stable and scope == "feature":
                    missing.append(((seen.model, label), float(figures["missing_ratio"])))
        concept.append(
            (
                (seen.model, version, "bernoulli"),
                float(STATE_NUMBER[State(watch.concept.status)]),
            )
        )
        if version == seen.stable:
            shifts = [
                ((seen.model, _cut(name)), shift)
                for name, shift in watch.data.detectable_shift().items()
            ]
    return [
        _family(
            "feature_drift",
            "gauge",
            "Distance between reference and the last 10,000 rows.",
            "model version feature statistic",
            drift,
        ),
        _family(
            "drift_state",
            "gauge",
            "0 ok, 1 warning, 2 drift, -1 insufficient data.",
            "model version scope feature",
            states,
        ),
        _family(
            "drift_evidence",
            "gauge",
            "log10 of the strongest e-value.",
            "model version scope",
            evidence,
        ),
        _family(
            "concept_drift_state",
            "gauge",
            "0 ok, 1 warning, 2 drift, -1 insufficient data.",
            "model version detector",
            concept,
        ),
        _family(
            "feature_missing_ratio",
            "gauge",
            "Share of missing values over the last 10,000 rows.",
            "model feature",
            missing,
        ),
        _family(
            "feature_detectable_shift",
            "gauge",
            "Smallest shift that can be seen, in standard deviations.",
            "model feature",
            shifts,
        ),
    ]


def _monitors(watch: VersionWatch) -> list[tuple[str, Monitor]]:
    found = [("feature", watch.data)]
    if watch.prediction is not None:
        found.append(("prediction", watch.prediction))
    return found


def _most_drifted(
    effects: Mapping[str, Mapping[str, float | int | str]], monitor: Monitor, series_max: int
) -> list[str]:
    """Five series a feature; beyond the limit the least drifted are left out, in schema order."""
    room = max(1, series_max // 5)
    if len(effects) <= room:
        return list(effects)
    ranked = sorted(effects, key=lambda name: -float(effects[name]["psi"]))[:room]
    kept = set(ranked)
    return [name for name in monitor.names if name in kept]


def _fleet(seen: ScrapeInput) -> list[Family]:
    """Counters that add over replicas: bins and log-evidence, of a fixed set of features."""
    bins: list[Row] = []
    shares: list[Row] = []
    up: list[Row] = []
    down: list[Row] = []
    stable = seen.watches.get(seen.stable)
    if stable is None:
        return []
    reference = stable.reference.hash8
    counts = stable.data.export_bins()
    known = seen.features or stable.data.names
    chosen = [name for name in known if name in counts][: seen.max_series // EXPORTED_BINS]
    expected = stable.data.export_reference()
    scores = stable.data.score_counters()
    for name in chosen:
        label = _cut(name)
        labels = (seen.model, stable.version, reference, label)
        bins += [((*labels, bin), float(n)) for bin, n in counts[name].items()]
        shares += [((*labels, bin), share) for bin, share in expected[name].items()]
        for score, (rising, falling) in scores[name].items():
            up.append(((seen.model, reference, label, score), rising))
            down.append(((seen.model, reference, label, score), falling))
    feature = "model version reference feature bin"
    return [
        _family("feature_bin_total", "counter", "Rows by bin of a feature.", feature, bins),
        _family("reference_bin_ratio", "gauge", "The reference's share of a bin.", feature, shares),
        _family(
            "evidence_up_total",
            "counter",
            "Log-evidence for drift, what rose.",
            "model reference feature score",
            up,
        ),
        _family(
            "evidence_down_total",
            "counter",
            "Log-evidence for drift, what fell.",
            "model reference feature score",
            down,
        ),
    ]


def _quality(seen: ScrapeInput) -> list[Family]:
    rows: dict[str, list[Row]] = {"": [], "_lower": [], "_upper": []}
    for version, watch in seen.watches.items():
        for metric, estimate in watch.metrics().items():
            labels = (seen.model, version, metric, "realised")
            rows[""].append((labels, estimate.value))
            if estimate.lower == estimate.lower:
                rows["_lower"].append((labels, estimate.lower))
                rows["_upper"].append((labels, estimate.upper))
    helps = {
        "": "Quality over the most recent labelled rows.",
        "_lower": "Lower limit of its 95 % interval.",
        "_upper": "Upper limit of its 95 % interval.",
    }
    return [
        _family(f"model_quality{end}", "gauge", helps[end], "model version metric basis", found)
        for end, found in rows.items()
    ]


def _server(seen: ScrapeInput) -> list[Family]:
    tables: tuple[tuple[str, FamilyKind, str, str], ...] = (
        ("cpu_s", "counter", "server_cpu_seconds_total", "CPU time of the model server."),
        ("memory_bytes", "gauge", "server_memory_bytes", "Resident memory of the model server."),
        ("threads", "gauge", "server_threads", "Threads of the model server."),
        ("fds", "gauge", "server_open_fds", "File descriptors the model server has open."),
    )
    return [
        _family(name, kind, help, "model", [((seen.model,), seen.server.values[key])])
        for key, kind, name, help in tables
        if key in seen.server.values
    ]


def _agent(seen: ScrapeInput) -> list[Family]:
    def column(key: str) -> list[Row]:
        return [((name,), v[key]) for name, v in sorted(seen.processes.items()) if key in v]

    return [
        _family(
            "agent_cpu_seconds_total", "counter", "CPU time of Remora.", "process", column("cpu_s")
        ),
        _family(
            "agent_memory_bytes",
            "gauge",
            "Resident memory of Remora.",
            "process",
            column("memory_bytes"),
        ),
        _family(
            "agent_restarts_total",
            "counter",
            "How often a process of Remora was started again.",
            "process",
            column("restarts"),
        ),
        # Whoever answers this scrape is analysis: the series is absent when it is not.
        _family("analysis_up", "gauge", "1 while analysis answers.", "", [((), 1.0)]),
    ]


def _release(seen: ScrapeInput) -> list[Family]:
    state: list[Row] = []
    weight: list[Row] = []
    if seen.rollout is not None:
        rollout = seen.rollout
        state.append(((seen.model, rollout.candidate), float(rollout.state)))
        weight.append(((seen.model, rollout.version), rollout.weight))
    return [
        _family(
            "retrain_runs_total",
            "counter",
            "Runs that ended, by what asked for them and how they ended.",
            "trigger outcome",
            [(key, float(n)) for key, n in sorted(seen.runs.items())],
        ),
        _family(
            "webhook_deliveries_total",
            "counter",
            "Attempts to deliver a webhook.",
            "target outcome",
            [(key, float(n)) for key, n in sorted(seen.deliveries.items())],
        ),
        _family(
            "webhook_outbox",
            "gauge",
            "Webhooks by state.",
            "state",
            [((name,), float(n)) for name, n in sorted(seen.outbox.items())],
        ),
        _family(
            "rollout_state",
            "gauge",
            "0 staging, 1 canary, 2 promoting, 3 baking, 4 live, 5 held, 6 rolling back, "
            "7 rolled back, 8 aborted, 9 failed.",
            "model candidate",
            state,
        ),
        _family(
            "rollout_weight_ratio",
            "gauge",
            "The candidate's share of the traffic.",
            "model version",
            weight,
        ),
        _family(
            "rollbacks_total",
            "counter",
            "Rollbacks by reason.",
            "model reason",
            [((seen.model, reason), float(n)) for reason, n in sorted(seen.rollbacks.items())],
        ),
        _family(
            "active_version_info",
            "info",
            "The stable version.",
            "model version digest",
            [((seen.model, seen.version, seen.digest), 1.0)],
        ),
    ]


def _cut(name: str) -> str:
    """Names of features come from requests."""
    return name[:NAME_CHARACTERS_MAX]
