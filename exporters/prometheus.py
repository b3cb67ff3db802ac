"""Exposition for Prometheus: tables of values in, text out, nothing remembered in between.

Children of prometheus-client's own metric classes live for ever; ours are rebuilt from bounded
tables at each scrape, so a label that is gone from the tables is gone from the exposition.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

FamilyKind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts per bucket (not cumulative), one more than there are bounds; sum in base units."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: every row gives the label values in the order of `labels`, and a value."""

    name: str
    kind: FamilyKind
    help: str
    labels: tuple[str, ...] = ()
    rows: Sequence[tuple[tuple[str, ...], float | Histogram]] = field(default_factory=tuple)


class TableCollector(Collector):
    """Turns the agent's tables into metric families when a scrape asks."""

    def __init__(self, tables: Callable[[], Iterable[Family]]) -> None:
        self._tables = tables

    def collect(self) -> Iterable[Metric]:
        for family in self._tables():
            yield to_metric(family)


def to_metric(family: Family) -> Metric:
    """One family as prometheus-client knows it. Raises `ValueError` for a name it refuses."""
    if family.kind == "histogram":
        return _histogram(family)
    if family.kind == "info":
        info = InfoMetricFamily(
            family.name.removesuffix("_info"), family.help, labels=family.labels
        )
        for values, _ in family.rows:
            info.add_metric([], dict(zip(family.labels, values, strict=True)))
        return info
    made: CounterMetricFamily | GaugeMetricFamily
    if family.kind == "counter":
        made = CounterMetricFamily(
            family.name.removesuffix("_total"), family.help, labels=family.labels
        )
    else:
        made = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for values, value in family.rows:
        assert not isinstance(value, Histogram)
        made.add_metric(values, value)
    return made


def _histogram(family: Family) -> Metric:
    made = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for values, value in family.rows:
        assert isinstance(value, Histogram)
        running = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
            running += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(running)))
        made.add_metric(values, buckets=buckets, sum_value=value.sum)
    return made


def registry(tables: Callable[[], Iterable[Family]]) -> CollectorRegistry:
    """A registry of our tables alone: no process or platform metrics that we did not choose."""
    made = CollectorRegistry(auto_describe=False)
    made.register(TableCollector(tables))
    return made
