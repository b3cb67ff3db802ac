"""A monitor's counters are there at zero before its first row, and never fall at a restart."""

import numpy as np

from agent.inference import Inference
from agent.monitor import ModelMonitor, MonitorSettings
from agent.schema import SchemaSettings
from detectors import Reference, build_reference
from tests.exporters.full_scrape import named, scraped, spread

NAMES = ("age", "hours")


def a_reference() -> Reference:
    return build_reference({name: spread(2_000) for name in NAMES})


def a_monitor(learn_rows: int = 10_000) -> ModelMonitor:
    settings = MonitorSettings(tick_rows=100, learn_rows=learn_rows, provisional_rows=500)
    return ModelMonitor(settings, SchemaSettings(features=NAMES), stable="v1")


def feed(monitor: ModelMonitor, rows: int, at: float) -> None:
    monitor.take(
        Inference(
            id=f"r{at}",
            aliases=(),
            at=at,
            version="v1",
            slot="stable",
            weight=1.0,
            uniform=True,
            latency_s=0.0,
            names=NAMES,
            rows=np.column_stack([spread(rows), spread(rows, 6_007)]),
            outputs={},
        ),
        at,
    )


def bins(monitor: ModelMonitor) -> list[float]:
    rows = named(scraped(watches=monitor.watches()), "feature_bin_total").rows
    return [float(value) for _, value in rows]  # type: ignore[arg-type]


def test_with_a_reference_given_all_bins_are_zero_before_the_first_row() -> None:
    monitor = a_monitor()
    monitor.install("v1", a_reference())
    assert bins(monitor) == [0.0] * 16
    feed(monitor, 300, 1.0)
    assert sum(bins(monitor)) == 600.0


def test_with_a_reference_learnt_all_bins_are_zero_once_it_is() -> None:
    monitor = a_monitor(learn_rows=1_000)
    feed(monitor, 1_000, 1.0)
    assert bins(monitor) == [0.0] * 16


def test_a_restart_from_a_snapshot_counts_from_zero() -> None:
    monitor = a_monitor()
    monitor.install("v1", a_reference())
    feed(monitor, 300, 1.0)
    again = a_monitor()
    again.install("v1", a_reference())
    again.restore(monitor.state())
    assert bins(again) == [0.0] * 16
    assert (again.rows_total, again.rows_since_start) == (300, 0)
    feed(again, 200, 2.0)
    assert sum(bins(again)) == 400.0
    assert (again.rows_total, again.rows_since_start) == (500, 200)
