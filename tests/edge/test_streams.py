"""Answers that come bit by bit: forwarded at once, timed, ended as soon as either side leaves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.edge.house import OK, House, Peer

POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b"9\r\ndata: a\n\n\r\n"
DISCONNECT, TIMEOUT = 5, 7


async def streaming(house: House, **settings: Any) -> tuple[Peer, Peer]:
    """A client and its server, the head of a stream between them already."""
    upstream = house.upstream()
    await house.start(upstream, **settings)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(STREAM)
    await client.head()
    return client, server


@pytest.mark.parametrize("kept", [0.0, 1.0])
async def test_each_chunk_is_with_the_client_before_the_loop_turns_twice(
    house: House, kept: float
) -> None:
    """No clock: what the upstream connection is given in one turn of the loop can be read from the
    client's socket in the next, in which nothing of the edge has run yet."""
    client, _ = await streaming(house, sampling_rate=kept)
    connection = house.connection()
    upstream = connection._upstream
    assert upstream is not None
    for number in range(50):
        chunk = b"9\r\ndata: %d\n\n\r\n" % (number % 10)
        upstream.data_received(chunk)
        await asyncio.sleep(0)
        assert client.sock.recv(65_536) == chunk  # raises BlockingIOError when it is not there


async def test_each_chunk_of_an_upload_is_with_the_server_before_the_loop_turns_twice(
    house: House,
) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    connection = house.connection()
    for _ in range(50):
        connection.data_received(TOKEN)
        await asyncio.sleep(0)
        assert server.sock.recv(65_536) == TOKEN


async def test_the_first_token_is_timed_apart_from_the_head(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + STREAM)
    await client.head()
    await client.head()
    await server.send(TOKEN)
    await client.exactly(len(TOKEN))
    await server.send(b"0\r\n\r\n")
    exchange = await analysis.exchange()
    assert exchange.first_byte_s is not None
    assert exchange.first_body_s is not None
    assert exchange.first_byte_s < exchange.first_body_s < exchange.duration_s


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_in_one_piece_has_its_body_when_it_has_its_head(
    house: House, times: int
) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    for _ in range(times):
        await client.send(POST)
        server = upstream.peers[0] if upstream.peers else await upstream.accept()
        await server.until(b"hello")
        await server.send(OK)
        await client.until(b"\r\n\r\nok")
        exchange = await analysis.exchange()
        assert exchange.first_body_s == exchange.first_byte_s


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_without_a_body_has_no_time_of_one(house: House, times: int) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    for _ in range(times):
        await client.send(POST)
        server = upstream.peers[0] if upstream.peers else await upstream.accept()
        await server.until(b"hello")
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await client.head()
        exchange = await analysis.exchange()
        assert exchange.first_byte_s is not None
        assert exchange.first_body_s is None


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset, Peer.eof])
async def test_a_client_that_leaves_ends_the_stream_at_its_server(
    house: House, leave: Callable[[Peer], None]
) -> None:
    client, server = await streaming(house)
    await server.send(TOKEN)
    await client.exactly(len(TOKEN))
    leave(client)
    assert await server.rest() == b""
    cell = house.edge.counters.cells("1")[0]
    await house.until(lambda: cell.codes[DISCONNECT] == 1)
    assert house.edge.counters.in_flight == 0


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset, Peer.eof])
async def test_a_client_that_leaves_a_server_that_still_thinks_is_told_of(
    house: House, leave: Callable[[Peer], None]
) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    leave(client)
    assert await server.rest() == b""
    await house.until(lambda: edge.counters.cells("1")[0].codes[DISCONNECT] == 1)


async def test_a_client_that_leaves_while_it_reads_slowly_ends_the_stream_too(
    house: House,
) -> None:
    client, server = await streaming(house)
    piece = b"100000\r\n" + b"x" * 1_048_576 + b"\r\n"
    sending = asyncio.get_running_loop().create_task(server.send(piece * 16))
    connection = house.connection()
    await house.until(lambda: connection._write_paused)
    client.reset()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await sending
    assert house.edge.counters.cells("1")[0].codes[DISCONNECT] == 1


# Silence.


async def test_a_server_that_says_nothing_for_too_long_is_504(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, stall_timeout_s=0.05)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    assert (await client.head()).startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert await server.rest() == b""
    assert edge.counters.cells("1")[0].codes[TIMEOUT] == 1


async def test_a_stream_that_falls_silent_is_cut_and_does_not_look_whole(house: House) -> None:
    client, server = await streaming(house, stall_timeout_s=0.05)
    await server.send(TOKEN)
    assert await client.rest() == TOKEN
    assert await server.rest() == b""
    assert house.edge.counters.cells("1")[0].codes[TIMEOUT] == 1


async def test_a_stream_that_talks_may_last_longer_than_a_silence(house: House) -> None:
    client, _ = await streaming(house, stall_timeout_s=30.0)
    connection = house.connection()
    started = connection._started
    for second in range(0, 100, 10):
        connection.write(TOKEN)
        connection.sweep(started + second)  # the clock is ours: bytes passed before each look
    assert await client.exactly(len(TOKEN)) == TOKEN
    connection.sweep(started + 90 + 29)
    assert connection.head is not None
    connection.sweep(started + 90 + 31)
    assert connection.head is None


async def test_a_client_that_stops_sending_its_body_is_408(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, stall_timeout_s=0.05)
    client = await house.client()
    await client.send(POST[:-2])
    server = await upstream.accept()
    await server.until(b"hel")
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert await server.rest() == b""
    assert edge.counters.cells("1")[0].codes[TIMEOUT] == 1


async def test_a_silent_tunnel_is_closed_on_both_sides(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, stall_timeout_s=0.05)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    await server.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    )
    await client.head()
    assert await client.rest() == b""
    assert await server.rest() == b""


async def test_a_slow_reader_is_not_silent_while_it_reads(house: House) -> None:
    """What the edge holds for it grows less: that is movement, though nothing new has come."""
    client, _ = await streaming(house, stall_timeout_s=30.0)
    connection = house.connection()
    started = connection._started
    for _ in range(16):
        connection.write(b"x" * 1_048_576)
    connection.sweep(started + 10)
    before = connection.unsent_bytes()
    assert before
    connection.sweep(started + 20)
    while connection.unsent_bytes() == before:
        await client.some()
    connection.sweep(started + 39)
    connection.sweep(started + 60)
    assert connection.head is not None
    connection.sweep(started + 70)
    assert connection.head is None
