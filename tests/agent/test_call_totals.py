from dataclasses import replace

import pytest

from agent import call_totals
from agent.call_totals import CallTotals
from agent.edge_totals import EdgeTotals
from agent.sources.grpc_calls import CallEnded
from tests.agent.test_edge_totals import counters

CALL = CallEnded(
    version="1", path="/s.S/M", grpc_status="OK", status=200, outcome="ok", duration_s=0.02,
    first_byte_s=0.01,
)  # fmt: skip


def ended(totals: CallTotals, *calls: CallEnded) -> CallTotals:
    for call in calls:
        totals.begun(call.version, call.path, is_grpc=call.grpc_status is not None)
        totals.ended(call)
    return totals


def codes(totals: CallTotals) -> dict[str, dict[str, int]]:
    """Route to the codes that are not zero."""
    return {
        cell.route: {code: n for code, n in cell.codes.items() if n} for cell in totals.routes()
    }


def test_calls_are_counted_by_what_they_would_be_in_http() -> None:
    totals = ended(
        CallTotals(),
        CALL,
        replace(CALL, grpc_status="NOT_FOUND", status=404),
        replace(CALL, grpc_status="UNAVAILABLE", status=503),
        replace(CALL, grpc_status="DEADLINE_EXCEEDED", status=504, outcome="timeout"),
        replace(CALL, grpc_status="CANCELLED", status=499, outcome="client_disconnect"),
    )
    assert codes(totals) == {
        "grpc": {"2xx": 1, "4xx": 1, "5xx": 1, "timeout": 1, "client_disconnect": 1}
    }
    assert totals.grpc["1", "s.S/M", "NOT_FOUND"] == 1
    (cell,) = totals.routes()
    assert (cell.in_flight, sum(cell.duration_counts), sum(cell.first_byte_counts)) == (0, 5, 5)


def test_configured_patterns_name_routes_and_plain_http2_is_other() -> None:
    totals = ended(
        CallTotals((("predict", "/s.S/Predict"),)),
        replace(CALL, path="/s.S/Predict"),
        CALL,
        replace(CALL, grpc_status=None, path="/v1/models/m:predict"),
    )
    assert codes(totals) == {"predict": {"2xx": 1}, "grpc": {"2xx": 1}, "other": {"2xx": 1}}
    assert sum(totals.grpc.values()) == 2


def test_a_call_that_is_lost_is_in_flight_no_more_and_counted_nowhere() -> None:
    totals = CallTotals()
    totals.begun("1", "/s.S/M", is_grpc=True)
    assert [cell.in_flight for cell in totals.routes()] == [1]
    totals.lost("1", "/s.S/M", is_grpc=True)
    assert [cell.in_flight for cell in totals.routes()] == [0]
    assert codes(totals) == {"grpc": {}}


def test_methods_that_no_server_knows_get_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_totals, "METHODS_MAX", 2)
    unknown = replace(CALL, path="/made/up", grpc_status="UNIMPLEMENTED", status=501)
    totals = ended(
        CallTotals(), unknown, CALL, replace(CALL, path="/b/B"), replace(CALL, path="/c/C")
    )
    assert {method for _, method, _ in totals.grpc} == {"other", "s.S/M", "b/B"}
    ended(totals, replace(CALL, grpc_status="UNIMPLEMENTED", status=501))
    assert totals.grpc["1", "s.S/M", "UNIMPLEMENTED"] == 1


def test_versions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_totals, "VERSIONS_MAX", 2)
    totals = ended(CallTotals(), *(replace(CALL, version=str(n)) for n in range(5)))
    assert {cell.version for cell in totals.routes()} == {"0", "1", "other"}


def test_what_analysis_counts_joins_what_the_edges_count() -> None:
    totals = EdgeTotals()
    ended(totals.calls, CALL)
    assert totals.cells() == {}  # before any edge was heard
    totals.take(counters("a", 3))
    assert totals.cells()["1", "grpc"].codes["2xx"] == 1
    assert totals.requests == 1 + 3
