"""Latency of kept exchanges: weighted, by version and route, bounded."""

from dataclasses import replace

import pytest

from agent.exchange import Exchange
from agent.latency import KEYS_MAX, OVERFLOW, SHARES, Latencies

EXCHANGE = Exchange(
    id="r",
    minted=False,
    id_from="x-request-id",
    source="proxy",
    version="1",
    slot="stable",
    method="POST",
    path="/predict",
    query="",
    request_headers={},
    request_body=b"",
    request_truncated=False,
    status=200,
    response_headers={},
    response_body=b"",
    response_truncated=False,
    started_at=0.0,
    first_byte_s=0.01,
    duration_s=0.01,
    outcome="ok",
    weight=1.0,
)


def at(latencies: Latencies, share: float, key: tuple[str, str] = ("1", "predict")) -> float:
    return latencies.quantiles(0.0)[key][SHARES.index(share)]


def test_errors_kept_at_a_higher_rate_do_not_bend_the_quantiles() -> None:
    latencies = Latencies(lambda path: path[1:])
    for _ in range(90):
        latencies.take(replace(EXCHANGE, duration_s=0.01, weight=10.0), 0.0)
    for _ in range(90):  # slow failures, each kept
        latencies.take(replace(EXCHANGE, duration_s=5.0, status=500, uniform=False), 0.0)
    assert at(latencies, 0.9) == pytest.approx(0.01, rel=0.02)
    assert at(latencies, 0.95) == pytest.approx(5.0, rel=0.02)


def test_copies_and_what_was_never_answered_are_nobodys_wait() -> None:
    latencies = Latencies(lambda path: path[1:])
    latencies.take(replace(EXCHANGE, shadow=True), 0.0)
    latencies.take(replace(EXCHANGE, status=0, outcome="timeout"), 0.0)
    latencies.take(replace(EXCHANGE, duration_s=float("nan")), 0.0)
    assert latencies.quantiles(0.0) == {}


def test_so_many_versions_and_routes_and_the_rest_together() -> None:
    latencies = Latencies(lambda path: path[1:])
    for number in range(KEYS_MAX + 10):
        latencies.take(replace(EXCHANGE, version=f"v{number}"), 0.0)
    found = latencies.quantiles(0.0)
    assert len(found) == KEYS_MAX + 1
    assert OVERFLOW in found
    # Once nobody asks the first ones any more, there is room again.
    latencies.take(replace(EXCHANGE, version="new"), 10_000.0)
    assert ("new", "predict") in latencies.quantiles(10_000.0)


def test_an_event_that_names_no_version_was_answered_by_the_stable_one() -> None:
    latencies = Latencies(lambda path: path[1:])
    latencies.take(replace(EXCHANGE, version=""), 0.0, stable="7")
    assert set(latencies.quantiles(0.0)) == {("7", "predict")}
