"""Counters rise over restarts of the edge, and never count anything twice."""

from dataclasses import replace

from agent.edge_totals import EdgeTotals, quantile
from agent.sources.proxy import EdgeCounters, RouteCounters


def counters(start_id: str, ok: int, *, drops: int = 0) -> EdgeCounters:
    cell = RouteCounters(
        version="1",
        route="other",
        codes={"2xx": ok},
        in_flight=1,
        duration_counts=(ok, 0),
        duration_sum_s=ok / 10,
        first_byte_counts=(ok, 0),
        first_byte_sum_s=ok / 20,
    )
    return EdgeCounters(
        start_id=start_id,
        started_at=0.0,
        at=1.0,
        bounds_s=(0.1,),
        routes=(cell,),
        drops={"channel_full": drops},
        refused={},
        kept=ok,
        retries=0,
        client_connections=0,
        upstream_connections=0,
        upstream_connects=0,
        generation=1,
        weight=0.0,
    )


def test_a_later_snapshot_replaces_and_a_new_edge_adds() -> None:
    totals = EdgeTotals()
    for snapshot in (counters("a", 5), counters("a", 8, drops=2), counters("b", 3, drops=1)):
        totals.take(snapshot)
    assert (totals.requests, totals.kept, totals.drops["channel_full"]) == (11, 11, 3)
    cell = totals.cells()["1", "other"]
    assert cell.duration_counts == [11, 0]
    assert cell.in_flight == 1  # of the edge that lives; the dead one answers nobody


def test_a_table_of_versions_is_bounded() -> None:
    totals = EdgeTotals()
    for number in range(300):
        snapshot = counters("a", 1)
        route = replace(snapshot.routes[0], version=str(number))
        totals.take(replace(snapshot, start_id=str(number), routes=(route,)))
    assert len(totals.cells()) <= 201  # and one for whatever came after them


def test_a_quantile_of_nothing_is_none() -> None:
    assert quantile((0.1,), [0, 0], 0.5) is None
    assert quantile((0.1,), [10, 0], 0.5) == 0.05
