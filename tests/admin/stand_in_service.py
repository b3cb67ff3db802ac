"""What a running agent tells of its service: sources, budgets, objectives, server, tokens.

A stand-in shows none of it unless a test lays it in `StandIn.service`.
"""

from agent.admin.view import Json

GIB = float(1 << 30)


def _latency(version: str, *durations_s: float) -> Json:
    names = ("p50_s", "p90_s", "p95_s", "p99_s")
    return {
        "version": version,
        "route": "predict",
        **dict(zip(names, durations_s, strict=True)),
    }


SERVICE: Json = {
    "upstream": "answers",
    "sampling": {"rate": 0.25, "asked": 1.0, "errors": 1.0, "kept": 0.25, "failed_ratio": 0.01},
    "governor": {
        "scale": 0.25,
        "why": "cpu",
        "explain": "lowered to hold sampling.cpu_budget",
        "since": 1_760_000_000.0,
        "changes": 3,
        "cpu": {"budget_cores": 0.1, "used_cores": 0.093},
        "memory": {"budget_bytes": GIB / 4, "used_bytes": GIB / 8},
        "rows": {"budget_per_s": 500.0, "used_per_s": 220.0},
        "held": {"cpu": True, "memory": False, "rows": True},
    },
    "sources": [
        {
            "kind": "proxy",
            "of": "0.0.0.0:9000 to http://127.0.0.1:8000",
            "state": "runs",
            "reason": None,
            "completeness": 0.998,
            "dropped": {"channel_full": 12, "body_truncated": 3},
        },
        {
            "kind": "tap",
            "of": "eth0 port 8000",
            "state": "refused",
            "reason": "needs CAP_NET_RAW",
            "completeness": None,
            "dropped": {},
        },
    ],
    "latency": [
        _latency("v8", 0.003, 0.004, 0.005, 0.017),
        _latency("v7", 0.0042, 0.0091, 0.011, 1.25),
    ],
    "slo": [
        {
            "name": "answers",
            "objective": 0.999,
            "burn": {"5m": 21.0, "30m": 18.0, "1h": 15.0, "6h": 4.0, "3d": 0.8},
            "remaining": 0.41,
        },
        {
            "name": "fast",
            "objective": 0.99,
            "burn": {"5m": None, "30m": 0.2, "1h": 0.2, "6h": 0.3, "3d": 0.6},
            "remaining": -0.2,
        },
    ],
    "generations": [
        {
            "version": "v7",
            "answers": 1_000.0,
            "input_tokens": 73_500.0,
            "output_tokens": 2_340_000.0,
            "first_token": {"p50_s": 0.038, "p99_s": 0.41},
            "per_token": {"p50_s": 0.017, "p99_s": 0.025},
            "finish_reasons": {"stop": 900.0, "tool_calls": 100.0},
            "bases": {"usage": 950.0, "cut": 50.0},
        }
    ],
    "server": {
        "cpu_s": 4_000.0,
        "memory_bytes": 3.1 * GIB,
        "threads": 18.0,
        "fds": 104.0,
        "cgroup_memory_bytes": 3.5 * GIB,
        "memory_limit_bytes": 4.0 * GIB,
        "cpu_limit_cores": 2.0,
        "throttled_s": 75.0,
        "oom_kills": 2.0,
        "received_bytes": 12.0 * GIB,
        "sent_bytes": 3.0 * GIB,
        "energy_j": 7.2e6,
    },
    "gpus": [{"gpu": 0, "utilization_ratio": 0.87, "memory_bytes": 12.0 * GIB}],
    "energy_source": "rapl",
    "cost": {"currency": "EUR", "per_thousand_predictions": 0.000217, "per_month": 371.4},
}

# A candidate that is sent copies; laid over the newest rollout.
SHADOW: Json = {
    "state": "shadow",
    "weight": 0.0,
    "step": -1,
    "reason": "route 3 confirmed",
    "because": "slot B is ready",
    "shadow_share": 0.5,
    "copies_min": 500,
    "copies_answered": 123,
    "pairs": {"compared": 120, "disagreeing": 3, "disagreement": 0.025, "unpaired": {"expired": 2}},
}
