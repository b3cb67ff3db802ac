"""What the model server uses and costs, as metric families and in status. Pure.

What cannot be read has no series: its reason is in status under `absent`.
"""

from collections.abc import Sequence
from typing import Any, Final

from agent.resources import Resources
from agent.resources.cost import Costs
from agent.scrape import Row, ScrapeInput, family
from exporters.prometheus import Family, FamilyKind

# Key of `Resources.values`, type, name without the prefix, help.
_TABLE: Final[Sequence[tuple[str, FamilyKind, str, str]]] = (
    ("cpu_s", "counter", "server_cpu_seconds_total", "CPU time of the model server."),
    ("memory_bytes", "gauge", "server_memory_bytes", "Resident memory of the model server."),
    ("threads", "gauge", "server_threads", "Threads of the model server."),
    ("fds", "gauge", "server_open_fds", "File descriptors the model server has open."),
    (
        "cgroup_memory_bytes",
        "gauge",
        "server_cgroup_memory_bytes",
        "Memory of the model server's control group, caches included.",
    ),
    (
        "memory_limit_bytes",
        "gauge",
        "server_memory_limit_bytes",
        "Memory beyond which the model server is killed.",
    ),
    (
        "cpu_limit_cores",
        "gauge",
        "server_cpu_limit_cores",
        "Cores beyond which the model server is throttled.",
    ),
    (
        "throttled_s",
        "counter",
        "server_cpu_throttled_seconds_total",
        "Time for which the model server was kept from running by its CPU limit.",
    ),
    (
        "oom_kills",
        "counter",
        "server_oom_kills_total",
        "Processes of the model server killed for memory.",
    ),
    (
        "energy_j",
        "counter",
        "server_energy_joules_total",
        "Energy of the processor for the model server's share of its time.",
    ),
)


def server_families(seen: ScrapeInput) -> list[Family]:
    """Families with a row for each figure that is known."""
    values = seen.server.values
    made = [
        family(name, kind, help, "model", [((seen.model,), values[key])])
        for key, kind, name, help in _TABLE
        if key in values
    ]
    network: list[Row] = [
        ((seen.model, direction), values[key])
        for key, direction in (("received_bytes", "receive"), ("sent_bytes", "transmit"))
        if key in values
    ]
    gpus = [((seen.model, str(gpu.index)), gpu) for gpu in seen.server.gpus]
    return [
        *made,
        family(
            "server_network_bytes_total",
            "counter",
            "Bytes over the interfaces of the model server's network namespace but loopback.",
            "model direction",
            network,
        ),
        family(
            "server_gpu_utilization_ratio",
            "gauge",
            "Share of time that a GPU on which the model server runs was busy, with whatever.",
            "model gpu",
            [(labels, gpu.utilization) for labels, gpu in gpus],
        ),
        family(
            "server_gpu_memory_bytes",
            "gauge",
            "GPU memory of the model server's processes.",
            "model gpu",
            [(labels, gpu.memory_bytes) for labels, gpu in gpus],
        ),
        family(
            "server_gpu_energy_joules_total",
            "counter",
            "Energy of a GPU on which the model server runs, whoever uses it.",
            "model gpu",
            [(labels, gpu.energy_j) for labels, gpu in gpus if gpu.energy_j is not None],
        ),
        family(
            "cost_per_thousand_predictions",
            "gauge",
            "Of the last hour, from configured prices.",
            "model currency",
            _cost(seen),
        ),
    ]


def _cost(seen: ScrapeInput) -> list[Row]:
    cost = seen.cost
    if cost is None or cost["per_thousand_predictions"] is None:
        return []
    return [((seen.model, cost["currency"]), float(cost["per_thousand_predictions"]))]


def server_status(server: Resources, costs: Costs | None) -> dict[str, Any]:
    """What the status shows of the server."""
    return {
        "server": dict(server.values),
        "gpus": [
            {
                "gpu": gpu.index,
                "utilization_ratio": gpu.utilization,
                "memory_bytes": gpu.memory_bytes,
            }
            for gpu in server.gpus
        ],
        "energy_source": server.energy_source or None,
        "cost": None if costs is None else costs.as_json(),
        "absent": dict(server.absent),
    }
