"""The PROXY protocol: who is behind the balancer, and that not a byte of the client's is lost."""

import contextlib
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge.proxy_protocol import HeaderError, peer, wanted
from tests.edge.house import OK, House

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


def binary(command: int, family: int, details: bytes, *, version: int = 2) -> bytes:
    fixed = struct.pack("!BBH", version << 4 | command, family << 4 | 1, len(details))
    return SIGNATURE + fixed + details


INET = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.9") + struct.pack("!HH", 4000, 80)
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + struct.pack("!HH", 4000, 443)
)
HEADERS = {
    b"PROXY TCP4 192.0.2.1 192.0.2.9 4000 80\r\n": b"192.0.2.1",
    b"PROXY TCP6 2001:db8::1 2001:db8::9 4000 443\r\n": b"2001:db8::1",
    b"PROXY UNKNOWN\r\n": b"",
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": b"",
    binary(1, 1, INET): b"192.0.2.1",
    binary(1, 2, INET6): b"2001:db8::1",
    binary(1, 1, INET + b"\x20\x00\x05extra"): b"192.0.2.1",
    binary(1, 3, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")): b"",
    binary(1, 0, b""): b"",
    binary(0, 1, INET): b"",
}
SPOILT = {
    "a request": POST,
    "another version": binary(1, 1, INET, version=3),
    "another command": binary(7, 1, INET),
    "addresses that are cut": binary(1, 2, INET),
    "too much": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 3_000),
    "a host name": b"PROXY TCP4 localhost 192.0.2.9 4000 80\r\n",
    "another family": b"PROXY TCP4 2001:db8::1 2001:db8::9 4000 80\r\n",
    "a port beyond": b"PROXY TCP4 192.0.2.1 192.0.2.9 4000 70000\r\n",
    "five words": b"PROXY TCP4 192.0.2.1 192.0.2.9 4000\r\n",
    "UDP": b"PROXY UDP4 192.0.2.1 192.0.2.9 4000 80\r\n",
    "a bare line feed": b"PROXY TCP4 192.0.2.1 192.0.2.9 4000 80\nGET / HTTP/1.1\r\n",
    "an endless line": b"PROXY UNKNOWN " + b"a" * 200,
}


def read(stream: bytes) -> tuple[bytes, bytes]:
    """The peer, and what comes behind the header; as a reader of a socket does it."""
    held = b""
    while more := wanted(held):
        assert more > 0
        data = stream[len(held) : len(held) + more]
        if not data:
            raise HeaderError("cut")
        held += data
    return peer(held), stream[len(held) :]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_is_taken_and_nothing_behind_it(header: bytes) -> None:
    assert read(header + POST) == (HEADERS[header], POST)
    assert read(header) == (HEADERS[header], b"")


@pytest.mark.parametrize("stream", SPOILT.values(), ids=SPOILT)
def test_what_is_no_header_is_refused(stream: bytes) -> None:
    with pytest.raises(HeaderError):
        read(stream)


@given(
    st.sampled_from(list(HEADERS)),
    st.lists(st.tuples(st.integers(0, 250), st.binary(max_size=3)), max_size=3),
)
def test_spoilt_headers_are_refused_or_read_and_never_raise_otherwise(
    header: bytes, changes: list[tuple[int, bytes]]
) -> None:
    for at, change in changes:
        header = header[:at] + change + header[at + 1 :]
    with contextlib.suppress(HeaderError):
        address, rest = read(header + POST)
        assert len(rest) <= len(header + POST)
        if address:
            family = socket.AF_INET6 if b":" in address else socket.AF_INET
            socket.inet_pton(family, address.decode())


@given(st.binary(max_size=300))
def test_noise_is_refused_soon(noise: bytes) -> None:
    with contextlib.suppress(HeaderError):
        read(noise)


@pytest.mark.parametrize("header", HEADERS)
async def test_the_upstream_hears_of_the_client_and_not_of_the_balancer(
    house: House, header: bytes
) -> None:
    upstream = house.upstream()
    await house.start(upstream, proxy_protocol=True, forwarded=True)
    client = await house.client()
    await client.send(header + POST)
    server = await upstream.accept()
    forwarded = b"\r\nX-Forwarded-For: %b\r\n" % (HEADERS[header] or b"127.0.0.1")
    assert forwarded in await server.until(b"hello")
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    await client.send(POST)  # the header comes once
    assert forwarded in await server.until(b"hello")


@pytest.mark.parametrize("header", list(HEADERS)[::4])
async def test_how_the_header_was_cut_does_not_matter(house: House, header: bytes) -> None:
    upstream = house.upstream()
    await house.start(upstream, proxy_protocol=True)
    client = await house.client()
    for at in range(len(header)):
        await client.send(header[at : at + 1])
        await house.settle()
    await client.send(POST)
    assert await (await upstream.accept()).until(b"hello") == POST


async def test_who_brings_no_header_does_not_come_in(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, proxy_protocol=True, head_timeout_s=0.05)
    for beginning in (POST, b"PRO", b""):
        client = await house.client()
        await client.send(beginning)
        assert await client.rest() == b""
    assert upstream.nobody_came()
    assert edge.counters.refused == {"proxy_protocol": 1, "handshake": 2}
