"""Copies to a candidate: asked after the client was answered, and of no consequence to it."""

import asyncio
from typing import Any

import pytest

from agent.sources.proxy import EdgeCounters, Route, Upstream
from tests.edge.house import OK, Analysis, House, Peer, Server
from tests.edge.test_routing import KEYS, new_router
from tests.edge.test_routing import route as message

POST = (
    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nx-request-id: %s\r\n"
    b"Content-Length: 4\r\n\r\nbody"
)
MARKED = POST.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nx-remora-shadow: 1\r\n", 1)
SERVED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nelse"


async def shadowed(
    house: House, *, share: float = 1.0, **settings: Any
) -> tuple[Server, Server, Analysis]:
    """Stable and candidate behind an edge that copies `share` of what stable answers."""
    stable, candidate = house.upstream(), house.upstream()
    await house.start(stable, counters_s=0.02, **settings)
    analysis = house.analysis()
    route(house, analysis, stable, candidate, share=share)
    await told(house, analysis)
    return stable, candidate, analysis


def route(
    house: House,
    analysis: Analysis,
    stable: Server,
    candidate: Server,
    *,
    share: float,
    lease_s: float = 30.0,
) -> None:
    analysis.channel.send_route(
        Route(
            generation=house.edge.router.generation + 1,
            stable=Upstream(address=stable.address, version="1"),
            candidate=Upstream(address=candidate.address, version="2"),
            shadow=share,
            lease_s=lease_s,
        )
    )


async def told(house: House, analysis: Analysis) -> None:
    """Until the edge has the route."""
    while (await analysis.snapshot()).generation < 0:
        pass


async def asked(client: Peer, stable: Server, id: bytes = b"r-1") -> Peer:
    """One request that the stable model answers; its connection."""
    await client.send(POST % id)
    peer = stable.peers[0] if stable.peers else await stable.accept()
    await peer.until(b"body")
    await peer.send(OK)
    assert (await client.until(b"ok")).startswith(b"HTTP/1.1 200")
    return peer


async def counted(analysis: Analysis, **wanted: int) -> EdgeCounters:
    while dict((snapshot := await analysis.snapshot()).shadow_copies) != wanted:
        pass
    return snapshot


async def test_the_candidate_is_asked_once_the_client_has_its_answer(house: House) -> None:
    stable, candidate, analysis = await shadowed(house, sampling_rate=1.0)
    client = await house.client()
    await client.send(POST % b"r-1")
    peer = await stable.accept()
    await peer.until(b"body")
    await house.settle()
    assert candidate.nobody_came()
    await peer.send(OK)
    answer = await client.until(b"ok")
    assert b"x-remora-version: 1\r\n" in answer
    copy = await candidate.accept()
    assert await copy.until(b"body") == MARKED % b"r-1"
    await copy.send(SERVED)
    outcomes = [await analysis.outcome(), await analysis.outcome()]
    assert [(o.version, o.status, o.shadow) for o in outcomes] == [
        ("1", 200, False),
        ("2", 200, True),
    ]
    kept = [await analysis.exchange(), await analysis.exchange()]
    assert [(e.id, e.slot, e.version, e.response_body, e.shadow) for e in kept] == [
        ("r-1", "stable", "1", b"ok", False),
        ("r-1", "candidate", "2", b"else", True),
    ]
    snapshot = await counted(analysis, ok=1)
    assert [(cell.version, cell.codes["2xx"]) for cell in snapshot.routes] == [("1", 1)]


async def test_a_candidate_that_never_answers_delays_nobody_and_is_given_up(house: House) -> None:
    stable, candidate, analysis = await shadowed(
        house, shadow_timeout_s=0.1, shadow_in_flight_max=2
    )
    client = await house.client()
    for number in range(4):
        await asked(client, stable, b"r-%d" % number)
    snapshot = await counted(analysis, timeout=2, busy=2)
    assert snapshot.drops == {}
    await candidate.accept()


async def test_a_candidate_that_is_not_there_costs_copies_and_nothing_else(house: House) -> None:
    stable, candidate, analysis = await shadowed(house)
    candidate.close()
    client = await house.client()
    await asked(client, stable)
    await counted(analysis, upstream_unreachable=1)
    await asked(client, stable, b"r-2")


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"\x00" * 64]
)
async def test_whatever_the_candidate_says_the_client_has_its_answer(
    house: House, garbage: bytes
) -> None:
    stable, candidate, analysis = await shadowed(house)
    client = await house.client()
    await asked(client, stable)
    copy = await candidate.accept()
    await copy.until(b"body")
    await copy.send(garbage)
    await counted(analysis, upstream_unreachable=1)
    await asked(client, stable, b"r-2")


async def test_a_request_in_pieces_is_copied_whole_and_one_that_is_too_long_is_not(
    house: House,
) -> None:
    stable, candidate, analysis = await shadowed(house, shadow_request_bytes_max=120)
    client = await house.client()
    whole = POST % b"r-1"
    await client.send(whole[:-3])
    peer = await stable.accept()
    await peer.until(b"b")
    await client.send(whole[-3:])
    await peer.until(b"ody")
    await peer.send(OK)
    await client.until(b"ok")
    copy = await candidate.accept()
    assert await copy.until(b"body") == MARKED % b"r-1"
    await copy.send(SERVED)
    await counted(analysis, ok=1)
    await asked(client, stable, b"r" * 100)
    await counted(analysis, ok=1, too_large=1)


async def test_only_what_asks_for_a_prediction_is_copied(house: House) -> None:
    stable, candidate, analysis = await shadowed(house)
    client = await house.client()
    await client.send(b"GET /v1/models/m HTTP/1.1\r\nHost: m\r\n\r\n")
    peer = await stable.accept()
    await peer.head()
    await peer.send(OK)
    await client.until(b"ok")
    assert (await analysis.outcome()).version == "1"
    await house.settle()
    assert candidate.nobody_came()
    assert not house.edge.shadows.counts


async def test_a_client_that_left_is_not_asked_after(house: House) -> None:
    stable, candidate, analysis = await shadowed(house)
    client = await house.client()
    await client.send(POST % b"r-1")
    peer = await stable.accept()
    await peer.until(b"body")
    client.close()
    assert (await analysis.outcome()).outcome == "client_disconnect"
    await house.settle()
    assert candidate.nobody_came()


async def test_no_copies_without_a_lease(house: House) -> None:
    stable, candidate, analysis = await shadowed(house)
    route(house, analysis, stable, candidate, share=1.0, lease_s=0.0)
    while house.edge.router.generation < 1:
        await analysis.snapshot()
    client = await house.client()
    await asked(client, stable)
    await house.settle()
    assert candidate.nobody_came()


async def test_a_connection_that_closed_while_idle_is_not_the_candidates_failure(
    house: House,
) -> None:
    stable, candidate, analysis = await shadowed(house)
    client = await house.client()
    await asked(client, stable)
    copy = await candidate.accept()
    await copy.until(b"body")
    await copy.send(SERVED)
    await counted(analysis, ok=1)
    await asked(client, stable, b"r-2")
    await copy.until(b"body")
    copy.close()
    again = await candidate.accept()
    assert await again.until(b"body") == MARKED % b"r-2"
    await again.send(SERVED)
    await counted(analysis, ok=2)


async def test_a_drain_does_not_wait_for_copies(house: House) -> None:
    stable, candidate, _ = await shadowed(house)
    client = await house.client()
    await asked(client, stable)
    copy = await candidate.accept()
    await copy.until(b"body")
    client.close()
    async with asyncio.timeout(5):
        await house.edge.drain(30.0)
    assert house.edge.shadows.counts == {"ended": 1}


def test_the_share_of_copies_is_as_asked_and_has_nothing_to_do_with_the_slot() -> None:
    router = new_router()
    router.route({**message(1, 0.5), "shadow": 0.25}, 0.0)
    copied = [key for key in KEYS if router.copies(key)]
    assert abs(len(copied) - 2_500) < 4 * (len(KEYS) * 0.25 * 0.75) ** 0.5
    moved = sum(router.pick(key, 0.0) is router.candidate for key in copied)
    assert abs(moved - len(copied) / 2) < 4 * (len(copied) / 4) ** 0.5
