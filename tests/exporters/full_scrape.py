"""A scrape in which every family has something to say, made of numbers that never change."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from agent.edge.counters import BOUNDS_S, CODES
from agent.edge_totals import EdgeTotals
from agent.families import RolloutFigures, ScrapeInput, families
from agent.generation import Generation
from agent.generation_totals import GenerationTotals, VersionTokens
from agent.intake import DELAY_BOUNDS_S, Delays
from agent.labels import Joined
from agent.objectives import Standing
from agent.resources import Resources
from agent.resources.gpu import Gpu
from agent.sources.proxy import EdgeCounters, RouteCounters
from agent.version_watch import VersionWatch
from detectors import Reference, build_reference
from detectors.settings import FairnessSettings, Settings
from exporters.prometheus import Family, registry


def spread(rows: int, step: int = 7_919) -> NDArray[np.float64]:
    """Numbers from 0 to 1, evenly spread, in an order that looks random and is none."""
    places: NDArray[np.float64] = (np.arange(rows) * step % rows + 0.5) / rows
    return places


def words(rows: int, names: Sequence[str], step: int = 7_919) -> NDArray[np.object_]:
    """The names, the first twice as often as the second, and so on."""
    places = np.minimum(-np.log2(spread(rows, step)).astype(int), len(names) - 1)
    chosen: NDArray[np.object_] = np.array(list(names), dtype=object)[places]
    return chosen


def reference(rows: int = 4_000) -> Reference:
    """Two features, one of them sensitive, and a prediction."""
    return build_reference(
        {
            "age": 20 + 50 * spread(rows),
            "faith": words(rows, ["first-faith", "second-faith", "third-faith"]),
            "prediction": words(rows, ["no", "yes"], 6_007),
        },
        prediction="prediction",
        sensitive=["faith"],
        task="classification",
    )


def watch(version: str = "v1", *, shift: float = 0.0, rows: int = 2_000) -> VersionWatch:
    """A version that saw `rows` rows, its ages higher by `shift`."""
    fair = FairnessSettings(attribute="faith", positive="yes")
    made = VersionWatch(version, reference(), Settings(fairness=(fair,)))
    for start in range(0, rows, 1_000):
        count = min(1_000, rows - start)
        made.monitor.update(
            {
                "age": 20 + shift + 50 * spread(count),
                "faith": words(count, ["first-faith", "second-faith", "third-faith"]),
                "prediction": words(count, ["no", "yes"], 6_007),
            }
        )
    return made


def joined(rows: int = 200) -> list[Joined]:
    """Labelled rows, every tenth prediction wrong."""
    return [
        Joined(
            id=f"r{i}",
            row=0,
            prediction="yes" if i % 3 else "no",
            score=None,
            label=("yes" if i % 3 else "no") if i % 10 else "no",
            version="v1",
            slot="stable",
            weight=1.0,
            uniform=True,
            predicted_at=1_000.0,
            labelled_at=1_060.0,
        )
        for i in range(rows)
    ]


def counters(**changes: Any) -> EdgeCounters:
    """One edge that answered 100 requests."""
    buckets = [0] * (len(BOUNDS_S) + 1)
    buckets[3], buckets[5] = 95, 5
    route = RouteCounters(
        version="v1",
        route="other",
        codes={**dict.fromkeys(CODES, 0), "2xx": 98, "5xx": 2},
        in_flight=1,
        duration_counts=tuple(buckets),
        duration_sum_s=0.5,
        first_byte_counts=tuple(buckets),
        first_byte_sum_s=0.25,
    )
    made = EdgeCounters(
        start_id="first",
        started_at=900.0,
        at=1_000.0,
        bounds_s=BOUNDS_S,
        routes=(route,),
        drops={"channel_full": 3},
        refused={"bad_request": 2},
        kept=97,
        retries=0,
        client_connections=1,
        upstream_connections=1,
        upstream_connects=1,
        generation=1,
        weight=0.0,
        shadow_copies={"ok": 40, "busy": 2},
    )
    return replace(made, **changes)


def generations() -> dict[str, VersionTokens]:
    """Four answers seen, which stand for ten."""
    totals = GenerationTotals()
    for place in range(4):
        totals.take(
            Generation(
                version="v1",
                weight=2.5,
                streamed=True,
                whole=True,
                duration_s=2.0 + place,
                first_token_s=0.2,
                input_tokens=100,
                output_tokens=50,
                basis="usage" if place else "counted",
                finish_reasons=("stop",) if place else ("length",),
            )
        )
    return totals.versions


def scrape_input(**changes: Any) -> ScrapeInput:
    """Everything at once."""
    totals = EdgeTotals()
    totals.take(counters())
    totals.calls.grpc["v1", "inference.GRPCInferenceService/ModelInfer", "OK"] = 12
    stable = watch("v1", shift=6.0)
    stable.take_labelled(joined(), ticks=1.0, at=None)
    delays = Delays(counts=[0] * (len(DELAY_BOUNDS_S) + 1))
    delays.add(60.0)
    made = ScrapeInput(
        model="income",
        version="v1",
        digest="sha256:ab12",
        totals=totals,
        watches={"v1": stable, "v2": watch("v2", rows=1_000)},
        stable="v1",
        features=(),
        max_series=2_000,
        rows_total=2_000,
        sampling_rate=1.0,
        sampling_cpu_s={"analysis": 12.5, "capture": 0.25},
        budgets_held={"cpu": True, "memory": False},
        drops={"channel_full": 3},
        labels={"joined": 200, "late": 0},
        delays=delays,
        label_figures={"join_ratio": 0.9, "maturity_seconds": 3_600.0, "waiting": 12.0},
        server=Resources(
            values={
                **{"cpu_s": 12.5, "memory_bytes": 1e8, "threads": 8.0, "fds": 20.0},
                **{"cgroup_memory_bytes": 1.5e8, "memory_limit_bytes": 4e8},
                **{"cpu_limit_cores": 2.0, "throttled_s": 0.5, "oom_kills": 1.0},
                **{"received_bytes": 5e6, "sent_bytes": 7e6, "energy_j": 321.0},
            },
            gpus=[Gpu(index=0, utilization=0.4, memory_bytes=2e9, energy_j=55.0)],
            pid=7,
        ),
        cost={"currency": "EUR", "per_thousand_predictions": 0.02},
        processes={"edge": {"cpu_s": 1.5, "memory_bytes": 2.6e7, "restarts": 0.0, "pid": 8.0}},
        runs={("drift", "succeeded"): 1},
        deliveries={("ci", "delivered"): 2},
        outbox={"pending": 0, "dead": 0},
        rollout=RolloutFigures(
            candidate="sha256:cd34",
            state=1,
            weight=0.25,
            version="v2",
            pairs={"agree": 38, "differ": 2},
        ),
        rollbacks={"errors": 1},
        latencies={("v1", "other"): [0.004, 0.009, 0.02, 0.05]},
        standings=[
            Standing(
                name="answered",
                objective=0.999,
                burn={"5m": 2.0, "30m": 1.5, "1h": 1.25, "6h": 0.5, "3d": None},
                remaining=0.75,
            )
        ],
        generations=generations(),
    )
    return replace(made, **changes)


def text(made: Sequence[Family]) -> str:
    """The text format of Prometheus."""
    shown: bytes = generate_latest(registry(lambda: made))
    return shown.decode()


def open_text(made: Sequence[Family]) -> str:
    """OpenMetrics."""
    shown: bytes = openmetrics(registry(lambda: made))  # type: ignore[no-untyped-call]
    return shown.decode()


def named(made: Sequence[Family], name: str) -> Family:
    """The family of a name."""
    [found] = [family for family in made if family.name == f"remora_{name}"]
    return found


def scraped(**changes: Any) -> list[Family]:
    """The families of a scrape."""
    return families(scrape_input(**changes))
