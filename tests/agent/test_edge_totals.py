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


def test_edges_beside_each_other_add_up_and_are_followed_each() -> None:
    totals = EdgeTotals(workers=2)
    totals.take(counters("a", 5), worker=0)
    totals.take(counters("b", 7, drops=1), worker=1)
    assert (totals.requests, totals.kept, totals.drops["channel_full"]) == (12, 12, 1)
    totals.take(counters("c", 1), worker=0)  # in the place of a
    totals.take(counters("b", 9, drops=3), worker=1)
    assert (totals.requests, totals.drops["channel_full"]) == (15, 3)
    assert totals.cells()["1", "other"].in_flight == 2


def test_the_sum_of_some_edges_is_not_shown_before_all_were_heard() -> None:
    totals = EdgeTotals(workers=2)
    totals.take(counters("a", 5), worker=0)
    assert totals.cells() == {}
    assert (totals.requests, totals.kept, totals.drops, totals.bounds_s) == (0, 0, {}, ())
    assert totals.completeness is None
    totals.take(counters("b", 5), worker=1)
    assert totals.requests == 10
    assert totals.bounds_s == (0.1,)


def test_an_edge_that_never_speaks_is_not_waited_for_for_ever() -> None:
    totals = EdgeTotals(workers=2)
    totals.take(replace(counters("a", 5), at=100.0), worker=0)
    totals.take(replace(counters("a", 6), at=109.0), worker=0)
    assert totals.requests == 0
    totals.take(replace(counters("a", 7), at=110.5), worker=0)
    assert totals.requests == 7


def saved(*start_ids: str) -> EdgeTotals:
    """What is restored where the edges of these ids ran when it was saved."""
    before = EdgeTotals(workers=2)
    before.take(counters("z", 100), worker=0)  # gone since
    for worker, start_id in enumerate(start_ids):
        before.take(counters(start_id, 1), worker=worker)
    after = EdgeTotals(workers=2)
    after.restore(before.state())
    return after


def test_sums_go_on_when_all_edges_of_back_then_still_run() -> None:
    totals = saved("a", "b")
    totals.take(counters("b", 3), worker=1)
    totals.take(counters("a", 2), worker=0)
    assert (totals.requests, totals.kept) == (105, 105)


def test_sums_begin_anew_when_one_of_them_is_gone() -> None:
    totals = saved("a", "b")
    totals.take(counters("c", 3), worker=1)
    totals.take(counters("a", 2), worker=0)
    assert totals.requests == 5


def test_what_was_lost_lowers_completeness() -> None:
    totals = EdgeTotals()
    lossy = counters("a", 9, drops=1)
    totals.take(replace(lossy, drops={**lossy.drops, "outcomes_full": 50}))
    assert totals.completeness == 0.9
    assert totals.lost == {"channel_full": 1}
