"""HTTP/2 through a real edge on loopback: bytes pass as they are, and analysis hears of calls."""

import socket
from pathlib import Path
from typing import Any

import pytest

from agent.edge.edge import Edge
from agent.edge.settings import EdgeSettings
from tests.edge.house import OK, House
from tests.edge.splice_house import BROKEN, PATH, Heard, spliced
from tests.wire.h2 import PREFACE, Client


async def test_bytes_pass_as_they_are_and_calls_are_told(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    heard = Heard(house)
    pair = await spliced(house, upstream)
    for stream in (1, 3):
        await pair.call(stream)
    await house.until(lambda: len(heard.exchanges) == 2)
    assert heard.statuses == {"OK": 2}
    assert [one.request_body for one in heard.exchanges] == [b"question"] * 2
    assert {one.version for one in heard.exchanges} == {"1"}
    assert heard.exchanges[0].draw != heard.exchanges[1].draw or heard.exchanges[0].weight == 1.0
    assert not house.edge.counters.drops
    await heard.close()


async def test_a_preface_may_come_a_byte_at_a_time(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    peer = await house.client()
    for byte in PREFACE:
        await peer.send(bytes((byte,)))
    accepted = await upstream.accept()
    assert await accepted.exactly(len(PREFACE)) == PREFACE


async def test_a_preface_that_goes_wrong_reaches_no_upstream(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    peer = await house.client()
    await peer.send(b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert await peer.rest() == b""
    assert upstream.nobody_came()
    assert edge.counters.refused == {"not_http2": 1}


async def test_http1_goes_on_as_ever_and_cannot_turn_into_http2(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    peer = await house.client()
    await peer.send(b"GET / HTTP/1.1\r\nHost: m\r\n\r\n")
    accepted = await upstream.accept()
    await accepted.head()
    await accepted.send(OK)
    assert (await peer.until(b"ok")).startswith(b"HTTP/1.1 200")
    await peer.send(PREFACE)
    assert (await peer.rest()).startswith(b"HTTP/1.1 400")


async def test_the_door_of_its_own_leads_to_an_upstream_of_its_own(house: House) -> None:
    upstream, other = house.upstream(), house.upstream()
    edge = Edge(EdgeSettings.of({"sampling_rate": 0.0}), address=upstream.address, version="1")
    edge.grpc_address = other.address
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    await edge.serve(doors[:1], grpc=doors[1:])
    house.port = doors[1].getsockname()[1]
    peer = await house.client()
    await peer.send(PREFACE)
    assert await (await other.accept()).exactly(len(PREFACE)) == PREFACE
    stranger = await house.client()
    await stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    assert await stranger.rest() == b""
    assert edge.counters.refused == {"not_http2": 1}
    await edge.drain(0.0)
    await edge.close()


async def test_a_server_behind_a_unix_socket(house: House, tmp_path: Path) -> None:
    upstream = house.upstream(path=str(tmp_path / "model.sock"))
    await house.start(upstream)
    await (await spliced(house, upstream)).call(1)


async def test_an_upstream_that_is_not_there_ends_the_connection(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    upstream.close()
    peer = await house.client()
    await peer.send(Client().opening())
    assert await peer.rest() == b""
    await house.until(lambda: not edge.clients)
    assert edge.counters.refused == {"http2_upstream_unreachable": 1}


async def test_a_client_that_waits_with_the_preface_is_closed(house: House) -> None:
    edge = await house.start(house.upstream(), head_timeout_s=0.05)
    peer = await house.client()
    await peer.send(PREFACE[:-3])
    assert await peer.rest() == b""
    await house.until(lambda: not edge.clients)


async def test_connections_are_bounded(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, connections_max=1)
    await (await spliced(house, upstream)).call(1)
    peer = await house.client()
    await peer.send(PREFACE)
    assert b"503" in await peer.rest()
    assert edge.counters.refused == {"connections_max": 1}


# Looking, and what it may not do.


async def test_bytes_that_make_no_sense_are_forwarded_and_not_looked_at(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    heard = Heard(house)
    pair = await spliced(house, upstream)
    await pair.call(1)
    await pair.up(BROKEN)
    await pair.call(3)
    await pair.down(b"anything at all")
    await house.until(lambda: heard.statuses == {"OK": 1})
    assert edge.counters.drops == {"http2_broken": 1}
    await heard.close()


async def test_an_upstream_that_speaks_http1_is_passed_on_as_well(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    Heard(house, reading=False)
    peer = await house.client()
    await peer.send(Client().opening())
    accepted = await upstream.accept()
    await accepted.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    accepted.close()
    assert await peer.rest() == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert edge.counters.drops == {"http2_broken": 1}


async def test_a_fault_of_ours_costs_the_sight_of_one_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    Heard(house, reading=False)

    def fails(*_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(edge.capture, "drawn", fails)
    await (await spliced(house, upstream)).call(1)
    assert edge.counters.drops == {"http2_failed": 1}


async def test_a_full_channel_makes_a_connection_untold_and_fails_no_call(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, outbox_bytes_max=6_000, sampling_rate=0.0)
    heard = Heard(house, buffer_bytes=4_096, reading=False)
    pair = await spliced(house, upstream)
    stream = 1
    while not edge.counters.drops:
        await pair.call(stream)
        stream += 2
        assert stream < 20_000
    assert edge.counters.drops == {"http2_headers_lost": 1}
    heard.read()
    await pair.call(stream)
    await house.until(lambda: heard.channel.malformed or heard.statuses)
    fresh = await spliced(house, upstream)
    seen = heard.statuses.get("OK", 0)
    await fresh.call(1)
    await house.until(lambda: heard.statuses.get("OK", 0) > seen)
    assert set(heard.channel.malformed) <= {"http2_call_lost"}
    cells = list(heard.totals.routes())
    assert sum(cell.in_flight for cell in cells) == 0
    await heard.close()


async def test_bodies_give_way_before_headers_do(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, outbox_bytes_max=200_000, sampling_rate=1.0)
    heard = Heard(house, buffer_bytes=4_096, reading=False)
    pair = await spliced(house, upstream)
    for stream in range(1, 81, 2):
        await pair.up(pair.client.asks(stream, PATH, b"q" * 8_000))
        await pair.down(pair.server.answers(stream, b"a" * 8_000))
    assert not edge.counters.drops
    heard.read()
    await house.until(lambda: heard.statuses == {"OK": 40})
    whole = [one for one in heard.exchanges if not one.request_truncated]
    assert 0 < len(whole) < 40
    assert len(heard.exchanges) == 40
    await heard.close()


async def test_a_new_analysis_knows_only_the_connections_that_come_after_it(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    first = Heard(house)
    pair = await spliced(house, upstream)
    await pair.call(1)
    await house.until(lambda: first.statuses == {"OK": 1})
    second = Heard(house)
    await pair.call(3)
    fresh = await spliced(house, upstream)
    await fresh.call(1)
    await house.until(lambda: second.statuses == {"OK": 1})
    assert edge.counters.drops == {"http2_channel_replaced": 1}
    await first.close()
    await second.close()
