"""What the probes say for every mix of sources."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from agent.probes import Probes


def child(*, up: bool = True, ready: bool = True, refused: str | None = None) -> Any:
    return SimpleNamespace(answers=up, ready=ready, refused=refused)


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def probes(
    edges: list[Any], *, analysis: Any, tap: Any = None, upstream: str | None = None
) -> Probes:
    return Probes(edges=edges, tap=tap, analysis=analysis, upstream=lambda: upstream)


async def test_one_edge_of_two_is_enough_and_analysis_is_not_needed(upstream: str) -> None:
    away = child(up=False, refused="the ledger is damaged")
    asked = probes([child(), child(up=False)], analysis=away, upstream=upstream)
    ok, body = await asked.healthz()
    assert ok
    assert body == {
        "edge": "up",
        "edges": "1 of 2",
        "analysis": "down",
        "analysis_error": "the ledger is damaged",
    }
    ok, body = await asked.readyz()
    assert (ok, body["edge"], body["upstream"]) == (True, "listening", "reachable")


async def test_no_edge_of_two_is_not(upstream: str) -> None:
    asked = probes([child(up=False), child(up=False)], analysis=child(), upstream=upstream)
    assert (await asked.healthz())[0] is False
    assert (await asked.readyz())[0] is False


async def test_without_a_proxy_analysis_is_what_serves() -> None:
    ok, body = await probes([], analysis=child()).readyz()
    assert (ok, body) == (True, {"analysis": "up"})
    asked = probes([], analysis=child(ready=False))
    assert (await asked.healthz())[0] is True  # to restart us would mend nothing
    assert (await asked.readyz())[0] is False


async def test_a_tap_that_refuses_matters_where_it_is_all_there_is(upstream: str) -> None:
    refusing = child(ready=False, refused="needs CAP_NET_RAW")
    ok, body = await probes([], analysis=child(), tap=refusing).readyz()
    assert (ok, body["tap"], body["tap_error"]) == (False, "down", "needs CAP_NET_RAW")
    beside = probes([child()], analysis=child(), tap=refusing, upstream=upstream)
    assert (await beside.readyz())[0] is True
