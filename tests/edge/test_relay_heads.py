"""What the edge changes in heads, and what it must leave alone."""

import re

import pytest

from tests.edge.house import OK, House

ID = re.compile(rb"x-remora-request-id: ([0-9a-f]{32})\r\n")


async def test_hop_by_hop_headers_go_no_further(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret, Host\r\nKeep-Alive: 5\r\n"
        b"X-Secret: s\r\nProxy-Authorization: p\r\nX-Remora-Version: forged\r\nx-other: 1\r\n\r\n"
    )
    server = await upstream.accept()
    assert await server.head() == b"GET / HTTP/1.1\r\nHost: a\r\nx-other: 1\r\n\r\n"
    await server.send(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, x-internal\r\nKeep-Alive: timeout=5\r\n"
        b"x-internal: i\r\nProxy-Thing: p\r\nx-remora-request-id: forged\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    answer = await client.head()
    assert ID.sub(b"", answer) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-remora-version: 1\r\n\r\n"
    )
    assert b"forged" not in answer


async def test_connection_cannot_name_the_framing_away(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n%b\r\nhello"
    await client.send(request % b"Connection: content-length, transfer-encoding, host\r\n")
    server = await upstream.accept()
    assert await server.until(b"hello") == request % b""


@pytest.mark.parametrize(
    ("header", "id"),
    [
        (b"x-request-id: abc.DEF:1-2_3", b"abc.DEF:1-2_3"),
        (b"ce-id: from-ce\r\ntraceparent: 00-%b-%b-01" % (b"a" * 32, b"b" * 16), b"from-ce"),
        (b"ce-id: from-ce\r\nX-Request-ID: first", b"first"),
        (b"traceparent: 00-%b-%b-01" % (b"a" * 32, b"b" * 16), b"a" * 32 + b"-" + b"b" * 16),
        (b"x-request-id: no spaces\r\nce-id: from-ce", b"from-ce"),
        (b"x-request-id: " + b"a" * 128, b"a" * 128),
    ],
)
async def test_the_id_that_the_client_brought_comes_back(
    house: House, header: bytes, id: bytes
) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    await server.send(OK)
    assert b"\r\nx-remora-request-id: " + id + b"\r\n" in await client.head()


@pytest.mark.parametrize(
    "header",
    [
        b"x-request-id: " + b"a" * 129,
        b"x-request-id: a b",
        b"x-request-id:",
        b"traceparent: 00-%b-%b-01" % (b"0" * 32, b"b" * 16),
    ],
)
async def test_an_id_that_is_not_acceptable_is_replaced(house: House, header: bytes) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    await server.send(OK)
    assert ID.search(await client.head())


async def test_forwarded_headers_only_when_configured(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, forwarded=True)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
    server = await upstream.accept()
    assert await server.head() == (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n\r\n"
    )


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\nKeep-Alive: 5\r\n"])
async def test_an_old_server_s_answer_leaves_the_client_s_connection_open(
    house: House, more: bytes
) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    for _ in range(3):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        again = bool(more and upstream.peers)
        server = upstream.peers[0] if again else await upstream.accept()
        await server.head()
        await server.send(b"HTTP/1.0 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % more)
        answer = await client.until(b"\r\n\r\nok")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-remora-request-id: ")
        assert b"onnection" not in answer


async def test_traces_pass_untouched(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, forwarded=True)
    client = await house.client()
    trace = (
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
        b"TraceState: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7\r\ntracestate: b=2\r\n"
    )
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n" + trace + b"\r\n")
    server = await upstream.accept()
    assert trace in await server.head()
