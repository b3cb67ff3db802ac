"""What is ambiguous or too big is refused before a byte of it reaches the upstream."""

import asyncio

import pytest

from tests.edge.house import OK, House

AMBIGUOUS = {
    "length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Content-Length: 6\r\n\r\nhello",
    "the same length twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"content-length: 5\r\n\r\nhello",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "length with a sign": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    "length with an underscore": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nhello",
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare line feed inside": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a bare line feed at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "a folded connection": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n c\r\n\r\n",
    "space before the colon": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "tab before the colon": b"POST / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "space before the first header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a null in a value": b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding that is not chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n",
    "chunked not last": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with a sign": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n",
    "a chunk size with 0x": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n",
    "a chunk ended by a bare line feed": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\na\r\n0\r\n\r\n",
    "a chunk longer than its size": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\nab\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces in the request line": b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same host twice": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "a list of hosts": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a null in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\x00Y: 1\r\n\r\n",
    "a null in the target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "a line without a colon": b"GET / HTTP/1.1\r\nHost: a\r\nXXX\r\n\r\n",
    "a line without a name": b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "a length before a masked one": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Content-Length\x0b: 6\r\n\r\nhello",
    "a length with an underscore in its name": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Content_Length: 5\r\n\r\n",
    "a coding with an underscore in its name": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
    "a length after a vertical tab": b"POST / HTTP/1.1\r\nContent-Length: \x0b5\r\n\r\nhello",
    "a coding after a vertical tab": b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"
    b"0\r\n\r\n",
    "a coding in quotes": b'POST / HTTP/1.1\r\nTransfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding with a parameter": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n"
    b"0\r\n\r\n",
    "identity before chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: identity, chunked\r\n\r\n"
    b"0\r\n\r\n",
    "gzip before chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "nothing before chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    "identity, then chunked": b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then identity": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "identity with a length": b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    "an empty coding": b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
    **{
        name: b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        for name, body in {
            "a line feed in a chunk extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            "a carriage return in a chunk extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            "a null in a chunk extension": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
            "a chunk extension that goes on": b'5;a="b\r\nc"\r\nhello\r\n0\r\n\r\n',
            "a chunk size before a space": b"5 \r\nhello\r\n0\r\n\r\n",
            "a chunk size after a space": b" 5\r\nhello\r\n0\r\n\r\n",
            "a chunk size that wraps around": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            "a chunk size with an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
            "no chunk size": b";a\r\nhello\r\n0\r\n\r\n",
            "the last chunk ended by a bare line feed": b"5\r\nhello\r\n0\r\n\n",
            "a chunk closed by a bare line feed": b"5\r\nhello\n0\r\n\r\n",
            "a trailer ended by a bare line feed": b"5\r\nhello\r\n0\r\nX: 1\n\r\n",
            "a folded trailer": b"5\r\nhello\r\n0\r\nX: 1\r\n b\r\n\r\n",
            "a length as a trailer": b"5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n",
            "a coding as a trailer": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        }.items()
    },
    "a method in small letters": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs in the request line": b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "a space at the end of the request line": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a target that is no path": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "another protocol": b"DESCRIBE / RTSP/1.0\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_nothing_ambiguous_reaches_the_upstream(house: House, request_bytes: bytes) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(request_bytes)
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nx-remora-request-id: " in answer
    assert upstream.nobody_came()
    assert edge.counters.refused == {"bad_request": 1}


async def test_two_hosts_are_refused_when_each_was_seen_before(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    server = None
    for host in (b"a", b"b"):
        await client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        server = server or await upstream.accept()
        await server.head()
        await server.send(OK)
        await client.until(b"\r\n\r\nok")
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_second_request_cannot_hide_in_the_first(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    whole = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    await client.send(
        whole + b"GET /admin HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    )
    server = await upstream.accept()
    assert await server.exactly(len(whole)) == whole
    await server.send(OK)
    answer = await client.rest()
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400" in answer
    client.close()
    assert b"admin" not in server._held


async def test_a_body_that_turns_bad_ends_both_sides(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    server = await upstream.accept()
    await server.until(b"abc\r\n")
    await client.send(b"zz\r\nevil\r\n")
    assert await server.rest() == b""
    assert (await client.rest()).startswith(b"HTTP/1.1 400")
    assert edge.counters.cells("1")[0].codes[3] == 1


async def test_a_head_over_the_limit_is_431(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, head_bytes_max=1000)
    for ending in (b"", b"\r\n\r\n"):
        client = await house.client()
        await client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 2000 + ending)
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")
    assert upstream.nobody_came()
    assert edge.counters.refused == {"head_too_large": 2}


async def test_too_many_connections_are_told_so(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, connections_max=1)
    first = await house.client()
    await house.until(lambda: len(edge.clients) == 1)
    second = await house.client()
    assert (await second.rest()).startswith(b"HTTP/1.1 503 ")
    await first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    assert edge.counters.refused == {"connections_max": 1}


async def test_an_upstream_that_talks_nonsense_is_502(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    for nonsense in (
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ):
        client = await house.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        server = await upstream.accept()
        await server.head()
        await server.send(nonsense)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n"), nonsense
        assert b"Content-Type: application/json" in head


async def test_slow_heads_and_idle_clients_are_closed(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, head_timeout_s=0.05, client_idle_s=0.05)
    silent, slow = await house.client(), await house.client()
    await slow.send(b"GET / HTT")
    async with asyncio.timeout(5):
        assert await silent.rest() == b""
        assert await slow.rest() == b""
