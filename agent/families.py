"""The agent's tables as metric families: names, types and labels of the public contract.

Pure: values in, families out. Labels are bounded by the tables they come from; whatever has no
value is absent, never zero, but counters of known features start at zero so that `increase()` sees
their first rows.
"""

from collections import Counter
from collections.abc import Sequence

from agent.drift_families import drift_families, fleet_families, quality_families
from agent.edge.counters import CODES
from agent.generation_families import generation_families
from agent.intake import DELAY_BOUNDS_S
from agent.latency_families import latency_families
from agent.scrape import RolloutFigures, Row, ScrapeInput, family, label
from agent.server_families import server_families
from exporters.prometheus import Family, Histogram

__all__ = ["RolloutFigures", "ScrapeInput", "families"]


def families(seen: ScrapeInput) -> list[Family]:
    """Every family that has something to say."""
    made = [
        *_traffic(seen),
        *latency_families(seen),
        *_intake(seen),
        *generation_families(seen),
        *drift_families(seen),
        *fleet_families(seen),
        *quality_families(seen),
        *server_families(seen),
        *_agent(seen),
        *_release(seen),
    ]
    return [one for one in made if one.rows]


def _traffic(seen: ScrapeInput) -> list[Family]:
    cells = seen.totals.cells()
    bounds = seen.totals.bounds_s
    codes: list[Row] = []
    durations: list[Row] = []
    first_bytes: list[Row] = []
    in_flight: Counter[str] = Counter()
    for (version, route), cell in sorted(cells.items()):
        labels = (seen.model, version, route)
        # Every code from zero on: the first error is an increase like any other.
        codes += [((*labels, code), float(cell.codes[code])) for code in CODES]
        durations.append((labels, _histogram(bounds, cell.duration_counts, cell.duration_sum_s)))
        first_bytes.append(
            (labels, _histogram(bounds, cell.first_byte_counts, cell.first_byte_sum_s))
        )
        in_flight[version] += cell.in_flight
    flying: list[Row] = [((seen.model, v), float(n)) for v, n in sorted(in_flight.items())]
    request = "model version route"
    return [
        family("requests_total", "counter", "Requests answered.", f"{request} code", codes),
        family(
            "requests_refused_total",
            "counter",
            "Requests that the edge answered itself, before a byte of them reached an upstream.",
            "reason",
            [((reason,), float(n)) for reason, n in sorted(seen.totals.refused.items())],
        ),
        family(
            "request_duration_seconds",
            "histogram",
            "From a request's head to the last byte of its answer.",
            request,
            durations,
        ),
        family(
            "time_to_first_byte_seconds",
            "histogram",
            "From a request's head to the first byte of its answer.",
            request,
            first_bytes,
        ),
        family("requests_in_flight", "gauge", "Requests being answered.", "model version", flying),
        family(
            "grpc_calls_total",
            "counter",
            "Calls of gRPC that ended, by the status they ended with.",
            "model version method grpc_status",
            [
                ((seen.model, version, label(method), status), float(n))
                for (version, method, status), n in sorted(seen.totals.calls.grpc.items())
            ],
        ),
    ]


def _histogram(bounds: tuple[float, ...], counts: Sequence[int], total: float) -> Histogram:
    filled = tuple(counts) if counts else (0,) * (len(bounds) + 1)
    return Histogram(bounds=bounds, counts=filled, sum=total)


#: Gauges about labels as a whole.
LABEL_GAUGES = {
    "join_ratio": "Share of mature predictions that have a label; absent before it is known.",
    "maturity_seconds": "Age at which a cohort's labels are believed.",
    "waiting": "Rows whose label came, and whose cohort is not mature yet.",
}


def _known(model: tuple[str, ...], seen: ScrapeInput, name: str) -> list[Row]:
    return [(model, seen.label_figures[name])] if name in seen.label_figures else []


def _intake(seen: ScrapeInput) -> list[Family]:
    model = (seen.model,)
    delays = _histogram(DELAY_BOUNDS_S, seen.delays.counts, seen.delays.sum_s)
    return [
        family("rows_total", "counter", "Rows decoded.", "model", [(model, seen.rows_total)]),
        family(
            "sampling_rate",
            "gauge",
            "Share of exchanges that are copied for analysis.",
            "model",
            [(model, seen.sampling_rate)],
        ),
        family(
            "sampling_cpu_seconds_total",
            "counter",
            "CPU that looking at traffic has cost, which sampling.cpu_budget is about.",
            "model part",
            [((*model, part), s) for part, s in sorted(seen.sampling_cpu_s.items())],
        ),
        family(
            "sampling_budget_held",
            "gauge",
            "1 while the budget is held, 0 while it is not though the rate is at its lowest.",
            "model budget",
            [((*model, name), float(held)) for name, held in sorted(seen.budgets_held.items())],
        ),
        family(
            "capture_completeness_ratio",
            "gauge",
            "Share of what a source was to copy that it has whole.",
            "source",
            [((source,), ratio) for source, ratio in sorted(seen.completeness.items())],
        ),
        family(
            "dropped_total",
            "counter",
            "What was lost or could not be read, by reason; traffic is never among it.",
            "reason",
            [((reason,), float(n)) for reason, n in sorted(seen.drops.items())],
        ),
        family(
            "labels_total",
            "counter",
            "Labels by what became of them.",
            "outcome",
            [((outcome,), float(n)) for outcome, n in sorted(seen.labels.items())],
        ),
        *[
            family(f"labels_{name}", "gauge", help, "model", _known(model, seen, name))
            for name, help in LABEL_GAUGES.items()
        ],
        family(
            "label_delay_seconds",
            "histogram",
            "From a prediction to its label.",
            "outcome",
            [(("joined",), delays)],
        ),
    ]


def _agent(seen: ScrapeInput) -> list[Family]:
    def column(key: str) -> list[Row]:
        return [((name,), v[key]) for name, v in sorted(seen.processes.items()) if key in v]

    return [
        family(
            "agent_cpu_seconds_total", "counter", "CPU time of Remora.", "process", column("cpu_s")
        ),
        family(
            "agent_memory_bytes",
            "gauge",
            "Resident memory of Remora.",
            "process",
            column("memory_bytes"),
        ),
        family(
            "agent_restarts_total",
            "counter",
            "How often a process of Remora was started again.",
            "process",
            column("restarts"),
        ),
        # Whoever answers this scrape is analysis; while it is away the front desk says 0.
        family("analysis_up", "gauge", "1 while analysis answers.", "", [((), 1.0)]),
    ]


def _release(seen: ScrapeInput) -> list[Family]:
    state: list[Row] = []
    weight: list[Row] = []
    pairs: list[Row] = []
    if seen.rollout is not None:
        rollout = seen.rollout
        state.append(((seen.model, rollout.candidate), float(rollout.state)))
        weight.append(((seen.model, rollout.version), rollout.weight))
        for answers, count in rollout.pairs.items():
            pairs.append(((seen.model, rollout.candidate, answers), float(count)))
    return [
        family(
            "retrain_runs_total",
            "counter",
            "Runs that ended, by what asked for them and how they ended.",
            "trigger outcome",
            [(key, float(n)) for key, n in sorted(seen.runs.items())],
        ),
        family(
            "webhook_deliveries_total",
            "counter",
            "Attempts to deliver a webhook.",
            "target outcome",
            [(key, float(n)) for key, n in sorted(seen.deliveries.items())],
        ),
        family(
            "webhook_outbox",
            "gauge",
            "Webhooks by state.",
            "state",
            [((name,), float(n)) for name, n in sorted(seen.outbox.items())],
        ),
        family(
            "rollout_state",
            "gauge",
            "0 staging, 1 canary, 2 promoting, 3 baking, 4 live, 5 held, 6 rolling back, "
            "7 rolled back, 8 aborted, 9 failed, 10 shadow.",
            "model candidate",
            state,
        ),
        family(
            "rollout_weight_ratio",
            "gauge",
            "The candidate's share of the traffic.",
            "model version",
            weight,
        ),
        family(
            "shadow_copies_total",
            "counter",
            "Copies of requests to a candidate, by how they ended or why there was none.",
            "outcome",
            [((name,), float(n)) for name, n in sorted(seen.totals.shadow_copies.items())],
        ),
        family(
            "shadow_pairs",
            "gauge",
            "Answers of both models to one request, of this rollout.",
            "model candidate answers",
            pairs,
        ),
        family(
            "rollbacks_total",
            "counter",
            "Rollbacks by reason.",
            "reason",
            [((reason,), float(n)) for reason, n in sorted(seen.rollbacks.items())],
        ),
        family(
            "active_version_info",
            "info",
            "The stable version.",
            "version digest",
            [((seen.version, seen.digest), 1.0)],
        ),
    ]
