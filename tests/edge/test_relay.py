"""The relay as a dialogue: what the client sends, what the upstream gets, and back."""

import re
import socket
from pathlib import Path

import pytest

from tests.edge.house import OK, House

POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
ID = re.compile(rb"x-remora-request-id: ([0-9a-f]{32})\r\n")


async def test_request_arrives_byte_for_byte_and_the_answer_gains_two_headers(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, version="7")
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    assert await server.until(b"hello") == POST
    await server.send(OK)
    head = await client.head()
    assert ID.search(head)
    assert ID.sub(b"", head) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-remora-version: 7\r\n\r\n"
    )
    assert await client.exactly(2) == b"ok"


async def test_both_sides_stay_connected_over_many_requests(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    for _ in range(50):
        assert await server.until(b"hello") == POST
        await server.send(OK)
        await client.until(b"\r\n\r\nok")
        await client.send(POST)
    assert edge.counters.upstream_connects == 1


async def test_pooled_connection_serves_the_next_client(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    first, second = await house.client(), await house.client()
    await first.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    await first.until(b"ok")
    await second.send(POST)
    await server.until(b"hello")
    await server.send(OK)
    await second.until(b"\r\n\r\nok")
    assert edge.counters.upstream_connects == 1


async def test_the_most_recently_used_connection_is_taken_first(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    first, second = await house.client(), await house.client()
    await first.send(POST)
    one = await upstream.accept()
    await second.send(POST)
    two = await upstream.accept()
    for server in (one, two):
        await server.until(b"hello")
    await two.send(OK)
    await second.until(b"\r\n\r\nok")
    await one.send(OK)
    await first.until(b"\r\n\r\nok")
    await second.send(POST)
    assert await one.until(b"hello") == POST


@pytest.mark.parametrize("cut", range(1, len(POST)))
async def test_where_the_request_was_cut_does_not_matter(house: House, cut: int) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(POST[:cut])
    await house.settle()
    await client.send(POST[cut:])
    server = await upstream.accept()
    assert await server.until(b"hello") == POST
    await server.send(OK)
    await client.until(b"\r\n\r\nok")


async def test_an_incomplete_head_is_never_forwarded(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(POST[:60])
    await house.settle()
    assert upstream.nobody_came()


@pytest.mark.parametrize("cut", range(1, len(OK)))
async def test_where_the_answer_was_cut_does_not_matter(house: House, cut: int) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK[:cut])
    await house.settle()
    await server.send(OK[cut:])
    answer = await client.until(b"\r\n\r\nok")
    assert answer.count(b"x-remora-request-id") == 1


async def test_chunks_pass_as_they_are_both_ways(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"
    body = b"5;ext=1\r\nhello\r\n0\r\nx: 1\r\n\r\n"
    await client.send(head)
    server = await upstream.accept()
    assert await server.head() == head
    for at in range(len(body)):
        await client.send(body[at : at + 1])
    assert await server.exactly(len(body)) == body
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.head()
    for at in range(len(body)):
        await server.send(body[at : at + 1])
        assert await client.exactly(1) == body[at : at + 1]
    await client.send(POST)
    assert await server.until(b"hello") == POST


async def test_continue_is_passed_on_before_the_body(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    await client.send(head)
    server = await upstream.accept()
    assert await server.head() == head
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    assert await server.exactly(5) == b"hello"
    await server.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_head_has_no_body_and_the_connection_is_used_again(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    for _ in range(3):
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        server = upstream.peers[0] if upstream.peers else await upstream.accept()
        await server.head()
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        assert b"Content-Length: 1000" in await client.head()
    assert edge.counters.upstream_connects == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body_end_with_their_head(house: House, status: bytes) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    for _ in range(2):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        server = upstream.peers[0] if upstream.peers else await upstream.accept()
        await server.head()
        await server.send(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 " + status)
    assert edge.counters.upstream_connects == 1


async def test_pipelined_requests_are_answered_in_order_and_each_by_itself(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    requests = [
        b"GET /1 HTTP/1.1\r\nHost: a\r\nx-request-id: one\r\n\r\n",
        b"POST /2 HTTP/1.1\r\nHost: a\r\nx-request-id: two\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /3 HTTP/1.1\r\nHost: a\r\nx-request-id: three\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n\r\n",
        b"GET /4 HTTP/1.1\r\nHost: a\r\nx-request-id: four\r\n\r\n",
    ]
    await client.send(b"".join(requests))
    server = await upstream.accept()
    for request in requests:
        assert await server.exactly(len(request)) == request
        await server.send(OK)
    for name in (b"one", b"two", b"three", b"four"):
        assert b"x-remora-request-id: " + name in await client.until(b"\r\n\r\nok")
    assert edge.counters.upstream_connects == 1


async def test_a_response_until_close_ends_both_connections(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\n\r\nsome")
    await server.send(b" more")
    server.close()
    answer = await client.rest()
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nsome more")
    assert edge.counters.cells("1")[0].codes[1] == 1


async def test_a_response_cut_short_does_not_look_whole(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsome")
    await client.until(b"some")
    server.close()
    assert await client.rest() == b""
    assert edge.counters.cells("1")[0].codes[6] == 1


async def test_client_that_asks_to_close_is_closed_but_the_upstream_is_kept(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    for _ in range(2):
        client = await house.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        server = upstream.peers[0] if upstream.peers else await upstream.accept()
        assert await server.head() == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        await server.send(OK)
        assert (await client.rest()).endswith(b"\r\nConnection: close\r\n\r\nok")
    assert edge.counters.upstream_connects == 1


async def test_upgrade_becomes_a_tunnel_with_half_closing(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly"
    )
    server = await upstream.accept()
    head = await server.head()
    assert b"\r\nUpgrade: websocket\r\n" in head
    assert b"\r\nConnection: upgrade\r\n" in head
    await server.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"
    )
    answer = await client.head()
    assert b"\r\nConnection: upgrade\r\n" in answer
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert await client.exactly(2) == b"hi"
    assert await server.exactly(5) == b"early"
    await client.send(b"\x81\x00\r\n\r\nnot http")
    assert await server.exactly(14) == b"\x81\x00\r\n\r\nnot http"
    client.eof()
    assert await server.rest() == b""
    await server.send(b"last words")
    server.close()
    assert await client.rest() == b"last words"
    assert edge.counters.cells("1")[0].codes[0] == 1


async def test_upgrade_that_is_declined_stays_http(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + POST
    )
    server = await upstream.accept()
    await server.head()
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    assert await server.until(b"hello") == POST


async def test_no_tunnel_to_cleartext_http2(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5\r\n\r\nhello"
    )
    server = await upstream.accept()
    assert await server.until(b"hello") == (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    )


async def test_ipv6_and_unix_upstreams(house: House, tmp_path: Path) -> None:
    for upstream in (
        house.upstream(family=socket.AF_INET6),
        house.upstream(path=str(tmp_path / "model.sock")),
    ):
        await house.start(upstream)
        client = await house.client()
        await client.send(POST)
        server = await upstream.accept()
        assert await server.until(b"hello") == POST
        await server.send(OK)
        await client.until(b"\r\n\r\nok")


async def test_bytes_behind_a_response_never_reach_the_client(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    answer = await client.until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert edge.counters.upstream_connections == 0


async def test_unasked_bytes_on_an_idle_connection_end_it(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    await server.send(OK)
    assert await server.rest() == b""
    await client.send(POST)
    other = await upstream.accept()
    assert await other.until(b"hello") == POST
    assert edge.counters.upstream_connects == 2
