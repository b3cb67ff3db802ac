"""Upstreams that fail, clients that leave, and everything that has a limit in time or size."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from tests.edge.house import OK, House, Peer, Server

POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CODES = {"client_disconnect": 5, "upstream_unreachable": 6, "timeout": 7}


async def pooled(house: House, upstream: Server) -> tuple[Peer, Peer]:
    """A client, and the upstream's end of a connection that has served it once."""
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    return client, server


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_an_upstream_that_is_down_is_502_and_the_client_may_try_again(house: House) -> None:
    edge = await house.start(f"127.0.0.1:{free_port()}", version="3")
    client = await house.client()
    for _ in range(2):
        await client.send(b"GET / HTTP/1.1\r\nx-request-id: mine\r\n\r\n")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"\r\nx-remora-request-id: mine\r\n" in head
        assert b"\r\nx-remora-version: 3\r\n" in head
        body = json.loads(await client.until(b"\n"))
        assert body == {"error": "upstream_unreachable", "request_id": "mine"}
    assert edge.counters.cells("3")[0].codes[CODES["upstream_unreachable"]] == 2
    assert edge.counters.in_flight == 0


async def test_a_head_request_gets_a_502_without_a_body(house: House) -> None:
    await house.start(f"127.0.0.1:{free_port()}")
    client = await house.client()
    await client.send(b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert (await client.rest()).endswith(b"\r\n\r\n")


async def test_an_address_that_is_no_number_is_502(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    with pytest.raises(ValueError, match="upstream"):
        edge.router.set_stable(address="nonsense", version="2")
    assert edge.router.stable.version == "1"


async def test_a_request_that_crosses_with_an_idle_close_is_sent_again(house: House) -> None:
    """The edge learns of the close only after it has written: the server has not one byte."""
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    client.sock.send(POST)  # both before the edge's loop looks at either
    server.close()
    fresh = await upstream.accept()
    assert await fresh.until(b"hello") == POST
    await fresh.send(OK)
    assert (await client.until(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
    assert edge.counters.retries == 1
    assert edge.counters.cells("1")[0].codes[1] == 2


async def test_over_a_unix_socket_such_a_request_is_sent_again_too(
    house: House, tmp_path: Path
) -> None:
    upstream = house.upstream(path=str(tmp_path / "model.sock"))
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    client.sock.send(POST)
    server.close()
    fresh = await upstream.accept()
    assert await fresh.until(b"hello") == POST
    await fresh.send(OK)
    await client.until(b"\r\n\r\nok")
    assert edge.counters.retries == 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_prediction_that_was_read_is_never_asked_for_again(
    house: House, tmp_path: Path, kind: str
) -> None:
    """It may be what has killed the server."""
    upstream = house.upstream(path=str(tmp_path / "model.sock") if kind == "unix" else "")
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    await client.send(POST)
    await server.until(b"hello")
    server.close()
    assert (await client.head()).startswith(b"HTTP/1.1 502")
    assert upstream.nobody_came()
    assert edge.counters.retries == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_question_that_changes_nothing_is_asked_once_more(
    house: House, reset: bool
) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    request = b"PUT /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    await client.send(request[:-2])
    await server.until(b"hel")
    server.reset() if reset else server.close()
    fresh = await upstream.accept()
    assert await fresh.until(b"hel") == request[:-2]
    await client.send(request[-2:])
    assert await fresh.until(b"lo") == b"lo"
    await fresh.send(OK)
    await client.until(b"\r\n\r\nok")
    assert edge.counters.retries == 1


async def test_there_is_no_third_try(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await server.head()
    server.close()
    fresh = await upstream.accept()
    await fresh.head()
    fresh.close()
    assert (await client.head()).startswith(b"HTTP/1.1 502")
    assert edge.counters.retries == 1


async def test_a_fresh_connection_is_not_tried_again(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    server.close()
    assert (await client.head()).startswith(b"HTTP/1.1 502")
    assert upstream.nobody_came()
    assert edge.counters.retries == 0


@pytest.mark.parametrize("begun", [b"HT", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_no_second_try_after_the_response_has_begun(house: House, begun: bytes) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await server.head()
    await server.send(begun)
    await house.settle()
    server.close()
    assert b"HTTP/1.1 502" in await client.until(b"unreachable")
    assert upstream.nobody_came()
    assert edge.counters.retries == 0


async def test_a_long_request_is_not_tried_again(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    size = 70_000
    request = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    await client.send(request)
    await server.exactly(len(request))
    server.close()
    assert (await client.head()).startswith(b"HTTP/1.1 502")
    assert upstream.nobody_came()
    assert edge.counters.retries == 0


async def test_a_connection_that_the_server_closed_is_not_taken_again(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await pooled(house, upstream)
    server.close()
    await house.until(lambda: edge.counters.upstream_connections == 0)
    await client.send(POST)
    fresh = await upstream.accept()
    assert await fresh.until(b"hello") == POST
    assert edge.counters.retries == 0


async def test_idle_upstream_connections_are_closed(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, idle_s=0.05)
    _, server = await pooled(house, upstream)
    assert await server.rest() == b""
    assert edge.counters.upstream_connections == 0


async def test_a_client_that_leaves_takes_its_upstream_connection_along(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    client.close()
    assert await server.rest() == b""
    assert edge.counters.cells("1")[0].codes[CODES["client_disconnect"]] == 1
    assert edge.counters.in_flight == 0


async def test_a_client_that_leaves_during_a_stream_is_counted(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await client.until(b"a\r\n")
    client.reset()
    assert await server.rest() == b""
    cell = edge.counters.cells("1")[0]
    assert cell.codes[CODES["client_disconnect"]] == 1
    assert sum(cell.first_byte) == 1


async def test_a_client_that_leaves_while_connecting_leaves_no_trace(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    await house.until(lambda: edge.counters.in_flight == 1)
    client.reset()
    await house.until(lambda: edge.counters.in_flight == 0)
    assert not edge.clients


async def test_a_server_that_takes_too_long_is_504(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, total_timeout_s=0.05)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    assert (await client.head()).startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert await server.rest() == b""
    assert edge.counters.cells("1")[0].codes[CODES["timeout"]] == 1


async def test_a_stream_that_takes_too_long_is_cut_and_does_not_look_whole(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, total_timeout_s=0.1)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    assert edge.counters.cells("1")[0].codes[CODES["timeout"]] == 1


async def test_connecting_too_long_is_504(house: House) -> None:
    # A backlog that is full drops further attempts: they hang instead of being refused.
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    upstream = Server(sock)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(sock.getsockname())
        fillers.append(filler)
    try:
        edge = await house.start(upstream, connect_timeout_s=0.05)
        client = await house.client()
        await client.send(POST)
        assert (await client.head()).startswith(b"HTTP/1.1 504")
        assert edge.counters.cells("1")[0].codes[CODES["timeout"]] == 1
    finally:
        for filler in fillers:
            filler.close()
        sock.close()


async def test_an_early_answer_reaches_a_client_that_still_sends(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst")
    server = await upstream.accept()
    await server.until(b"first")
    await server.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
    await client.send(b"x" * 100_000)
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"big")
    assert edge.counters.upstream_connections == 0


async def test_draining_finishes_what_is_in_flight(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    idle, busy = await house.client(), await house.client()
    await busy.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await house.until(lambda: len(edge.clients) == 2)
    draining = asyncio.get_running_loop().create_task(edge.drain(5.0))
    assert await idle.rest() == b""
    await server.send(OK)
    answer = await busy.rest()
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nok")
    await draining
    with pytest.raises(ConnectionRefusedError):
        await house.client()
