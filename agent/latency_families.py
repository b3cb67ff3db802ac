"""Latency quantiles and objectives as metric families. Pure, and bounded by their tables."""

from agent.latency import SHARES
from agent.scrape import Row, ScrapeInput, family
from exporters.prometheus import Family


def latency_families(seen: ScrapeInput) -> list[Family]:
    """Quantiles of the last minutes, and how fast budgets burn."""
    quantiles: list[Row] = [
        ((seen.model, version, route, f"{share:g}"), duration_s)
        for (version, route), durations in seen.latencies.items()
        for share, duration_s in zip(SHARES, durations, strict=True)
    ]
    burns: list[Row] = []
    budgets: list[Row] = []
    objectives: list[Row] = []
    for standing in seen.standings:
        labels = (seen.model, standing.name)
        objectives.append((labels, standing.objective))
        budgets.append((labels, standing.remaining))
        burns += [
            ((*labels, window), rate) for window, rate in standing.burn.items() if rate is not None
        ]
    return [
        family(
            "request_duration_quantile_seconds",
            "gauge",
            "Of the requests kept in the last five minutes, within 1%; weighted by inverse "
            "probability when sampled.",
            "model version route quantile",
            quantiles,
        ),
        family(
            "slo_objective_ratio",
            "gauge",
            "Share of good requests wanted.",
            "model slo",
            objectives,
        ),
        family(
            "slo_burn_rate",
            "gauge",
            "How many times as fast as allowed the budget of bad requests is used up.",
            "model slo window",
            burns,
        ),
        family(
            "slo_budget_remaining_ratio",
            "gauge",
            "Share of the budget of bad requests that is left; below 0 when overdrawn.",
            "model slo",
            budgets,
        ),
    ]
