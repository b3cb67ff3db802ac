"""From tables to text: what left a table is gone from the next scrape, and what a scrape costs."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from agent.edge_totals import OVERFLOW, EdgeTotals, quantile
from agent.families import families
from agent.version_watch import VersionWatch
from detectors import build_reference
from detectors.settings import Settings
from exporters.prometheus import Family, Histogram
from tests.exporters.full_scrape import counters, scrape_input, spread, text


def test_buckets_are_cumulative_and_end_in_infinity() -> None:
    rows = [((), Histogram(bounds=(0.5, 1.0), counts=(2, 0, 3), sum=9.0))]
    [family] = parse(
        text([Family(name="remora_x_seconds", kind="histogram", help="X.", rows=rows)])
    )
    assert [(s.name[16:], s.labels, s.value) for s in family.samples] == [
        ("_bucket", {"le": "0.5"}, 2.0),
        ("_bucket", {"le": "1.0"}, 2.0),
        ("_bucket", {"le": "+Inf"}, 5.0),
        ("_count", {}, 5.0),
        ("_sum", {}, 9.0),
    ]


def test_a_histogram_with_too_few_counts_is_refused() -> None:
    rows = [((), Histogram(bounds=(0.5, 1.0), counts=(2, 0), sum=9.0))]
    with pytest.raises(ValueError, match="shorter"):
        text([Family(name="remora_x_seconds", kind="histogram", help="X.", rows=rows)])


def test_an_edge_that_is_new_adds_to_what_the_one_before_counted() -> None:
    totals = EdgeTotals()
    totals.take(counters())
    totals.take(counters(start_id="second", drops={"channel_full": 1}))
    cell = totals.cells()["v1", "other"]
    assert (cell.codes["2xx"], cell.codes["5xx"], cell.in_flight) == (196, 4, 1)
    assert cell.codes["4xx"] == 0
    assert "4xx" in cell.codes
    assert totals.drops["channel_full"] == 4
    assert sum(cell.duration_counts) == 200


def test_sums_over_edges_survive_a_restart_of_analysis_while_the_edge_lives() -> None:
    totals = EdgeTotals()
    totals.take(counters())
    totals.take(counters(start_id="second"))
    again = EdgeTotals()
    again.restore(totals.state())
    again.take(counters(start_id="second"))
    assert again.requests == totals.requests == 200


def test_an_edge_that_ended_meanwhile_is_not_half_remembered() -> None:
    totals = EdgeTotals()
    totals.take(counters())
    totals.take(counters(start_id="second"))
    again = EdgeTotals()
    again.restore(totals.state())
    again.take(counters(start_id="third"))
    assert again.requests == 100


def test_too_many_versions_and_routes_share_one_cell() -> None:
    totals = EdgeTotals()
    [route] = counters().routes
    many = tuple(
        type(route)(**{n: getattr(route, n) for n in route.__slots__} | {"version": f"v{i}"})
        for i in range(300)
    )
    totals.take(counters(routes=many))
    assert totals.requests == 300 * 100
    assert totals.cells()[OVERFLOW].in_flight == 100


def test_quantiles_are_those_of_prometheus() -> None:
    assert quantile((1.0, 2.0), [50, 50, 0], 0.5) == pytest.approx(1.0)
    assert quantile((1.0, 2.0), [0, 100, 0], 0.25) == pytest.approx(1.25)
    assert quantile((1.0, 2.0), [0, 0, 5], 0.5) == 2.0
    assert quantile((1.0, 2.0), [0, 0, 0], 0.5) is None


def test_a_scrape_of_a_hundred_features_takes_little_time() -> None:
    names = [f"feature_{i}" for i in range(100)]
    columns = {name: spread(2_000) for name in names}
    watch = VersionWatch("v1", build_reference(columns), Settings())
    watch.data.update(columns)
    seen = scrape_input(watches={"v1": watch})
    rounds = []
    for _ in range(5):
        start = time.process_time()
        made = families(seen)
        middle = time.process_time()
        shown = text(made)
        rounds.append((middle - start, time.process_time() - middle))
    tables_s, text_s = min(one for one, _ in rounds), min(other for _, other in rounds)
    series = sum(line[0] != "#" for line in shown.splitlines())
    print(f"\n{series} series: tables {1e3 * tables_s:.1f} ms, text {1e3 * text_s:.1f} ms")
    assert series > 3_500
    # About 45 ms on one slow core; ten times that would mean that somebody made it quadratic.
    assert tables_s + text_s < 0.5
