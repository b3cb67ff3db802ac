"""Heads that come again are not read again: the same bytes must mean the same as the first time."""

import pytest

from tests.edge.house import OK, House, Peer, Server

POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
HEAD_BYTES = POST.index(b"hello")


async def twice(house: House, upstream: Server, request: bytes = POST) -> tuple[Peer, Peer]:
    """A client and its server that both know each other's heads by now."""
    client = await house.client()
    await client.send(request)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    await again(client, server, request)
    return client, server


async def again(client: Peer, server: Peer, request: bytes = POST) -> None:
    await client.send(request)
    assert (await server.until(b"hello")).endswith(b"\r\n\r\nhello")
    await server.send(OK)
    answer = await client.until(b"\r\n\r\nok")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-remora-request-id: ")
    assert answer.endswith(b"\r\nx-remora-version: 1\r\n\r\nok")


async def test_each_repeat_is_counted_and_has_an_id_of_its_own(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await twice(house, upstream)
    ids = set()
    for _ in range(600):
        await client.send(POST)
        assert await server.exactly(len(POST)) == POST
        await server.send(OK)
        head = await client.until(b"\r\n\r\nok")
        ids.add(head.split(b"x-remora-request-id: ")[1][:32])
    assert len(ids) == 600
    cell = edge.counters.cells("1")[0]
    assert (cell.codes[1], cell.in_flight, edge.counters.in_flight) == (602, 0, 0)
    edge.counters.snapshot(generation=0, weight=0.0)
    assert sum(cell.duration) == sum(cell.first_byte) == 602
    assert 0.0 < cell.duration_sum_s < 60.0
    assert edge.counters.upstream_connects == 1


async def test_a_body_that_looks_like_a_request_stays_a_body(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    inner = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(inner)
    client = await house.client()
    server = None
    for body in (b"x" * len(inner), inner, inner):
        await client.send(head + body)
        server = server or await upstream.accept()
        assert await server.exactly(len(head + body)) == head + body
        await server.send(OK)
        await client.until(b"\r\n\r\nok")
    assert edge.counters.cells("1")[0].codes[1] == 3


async def test_what_follows_a_repeat_is_the_next_request(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client, server = await twice(house, upstream)
    await client.send(POST + POST + POST[:-2])
    for _ in range(2):
        assert await server.exactly(len(POST)) == POST
        await server.send(OK)
        await client.until(b"\r\n\r\nok")
    assert await server.exactly(len(POST) - 2) == POST[:-2]
    await client.send(POST[-2:])
    assert await server.until(b"lo") == b"lo"
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    await again(client, server)


@pytest.mark.parametrize("cut", [1, 20, HEAD_BYTES - 2, HEAD_BYTES, HEAD_BYTES + 2])
async def test_a_repeat_in_pieces_is_read_as_the_first_was(house: House, cut: int) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client, server = await twice(house, upstream)
    await client.send(POST[:cut])
    await house.settle()
    await client.send(POST[cut:])
    assert await server.until(b"hello") == POST
    await server.send(OK[:cut])
    await house.settle()
    await server.send(OK[cut:])
    await client.until(b"\r\n\r\nok")
    await again(client, server)


async def test_a_whole_request_behind_half_a_head_is_no_repeat(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await twice(house, upstream)
    await client.send(b"POST / HTTP/1.1\r\nX-")
    await house.settle()
    await client.send(POST)  # a header "X-POST /v1/..." to anybody who reads in order
    assert (await client.head()).startswith(b"HTTP/1.1 400")
    assert edge.counters.refused["bad_request"] == 1
    assert server.sock is not None
    assert edge.counters.cells("1")[0].codes[1] == 2


@pytest.mark.parametrize("more", [b"", b"\r\nConnection: keep-alive\r\nX-Remora-A: b"])
async def test_a_head_that_is_edited_is_edited_again(house: House, more: bytes) -> None:
    upstream = house.upstream()
    await house.start(upstream, forwarded=True)
    request = POST.replace(b"Host: a", b"Host: a" + more)
    client = await house.client()
    server = None
    for _ in range(3):
        await client.send(request)
        server = server or await upstream.accept()
        assert await server.until(b"hello") == POST.replace(
            b"Length: 5",
            b"Length: 5\r\nX-Forwarded-Proto: http\r\nX-Forwarded-For: 127.0.0.1",
        )
        await server.send(OK)
        await client.until(b"\r\n\r\nok")


async def test_more_than_the_known_answer_is_not_passed_on(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client, server = await twice(house, upstream)
    await client.send(POST)
    await server.until(b"hello")
    await server.send(OK + b"HTTP/1.1 200 OK\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 502")
    assert await server.rest() == b""
    assert edge.counters.cells("1")[0].codes[6] == 1


async def test_the_known_head_as_an_answer_to_head_has_no_body(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client, server = await twice(house, upstream)
    await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    await server.head()
    await server.send(OK[:-2])
    assert b"Content-Length: 2\r\n" in await client.head()
    await again(client, server)


async def test_a_known_answer_before_the_body_is_sent_ends_both_connections(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client, server = await twice(house, upstream)
    await client.send(POST[:-2])
    await server.until(b"hel")
    await server.send(OK)
    answer = await client.until(b"\r\n\r\nok")
    assert b"\r\nConnection: close\r\n" in answer
    assert await server.rest() == b""
