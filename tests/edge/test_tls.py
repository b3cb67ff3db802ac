"""TLS on either side, with certificates of a real authority, and files that change underneath."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.edge.contexts import Sides
from agent.edge.edge import Edge
from agent.edge.settings import EdgeSettings
from tests.edge.authority import Authority, Pair
from tests.edge.house import OK, WAIT_S, House

pytestmark = pytest.mark.real

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[ssl.SSLContext, Callable[[Streams], Awaitable[None]]], Awaitable[int]]


@pytest.fixture
def authority(tmp_path: Path, program: Callable[[str], Path]) -> Authority:
    program("openssl")
    return Authority(tmp_path)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A TLS server that does with each connection what it is told; gives its port."""
    servers: list[asyncio.Server] = []

    async def start(context: ssl.SSLContext, handle: Callable[[Streams], Awaitable[None]]) -> int:
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle((reader, writer))
            finally:
                writer.close()

        server = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


async def answer_one(streams: Streams) -> None:
    reader, writer = streams
    while await reader.readuntil(b"hello"):
        writer.write(OK)


async def dial(house: House, context: ssl.SSLContext) -> Streams:
    async with asyncio.timeout(WAIT_S):
        return await asyncio.open_connection(
            "127.0.0.1", house.port, ssl=context, server_hostname="localhost"
        )


def files(pair: Pair) -> dict[str, str]:
    return {"tls_cert_file": str(pair.cert), "tls_key_file": str(pair.key)}


def serial(streams: Streams) -> str:
    return str(streams[1].get_extra_info("peercert")["serialNumber"])


async def test_clients_speak_tls_and_the_upstream_is_told(
    house: House, authority: Authority
) -> None:
    upstream = house.upstream()
    await house.start(upstream, forwarded=True, **files(authority.pair("edge")))
    streams = await dial(house, authority.client())
    assert streams[1].get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    for _ in range(3):
        streams[1].write(POST)
        server = upstream.peers[0] if upstream.peers else await upstream.accept()
        head = await server.until(b"hello")
        assert b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 127.0.0.1\r\n" in head
        await server.send(OK)
        assert b"x-remora-version" in await streams[0].readuntil(b"\r\n\r\nok")
    streams[1].close()
    await house.until(lambda: not house.edge.clients)


async def test_old_versions_of_tls_are_refused(house: House, authority: Authority) -> None:
    edge = await house.start(house.upstream(), **files(authority.pair("edge")))
    context = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await dial(house, context)
    await house.until(lambda: edge.counters.refused["handshake"] == 1)


async def test_only_http_1_is_offered(house: House, authority: Authority) -> None:
    await house.start(house.upstream(), **files(authority.pair("edge")))
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    streams = await dial(house, context)
    assert streams[1].get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    streams[1].close()


async def test_with_a_client_ca_only_its_clients_come_in(
    house: House, authority: Authority
) -> None:
    upstream = house.upstream()
    ca = {"tls_client_ca_file": str(authority.cert)}
    edge = await house.start(upstream, **files(authority.pair("edge")), **ca)
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones let a client learn of it later
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await dial(house, context)
    assert upstream.nobody_came()
    await house.until(lambda: edge.counters.refused["handshake"] == 1)
    known = await dial(house, authority.client(authority.pair("friend")))
    known[1].write(POST)
    assert await (await upstream.accept()).until(b"hello") == POST
    known[1].close()


async def test_plain_http_at_a_tls_door_is_refused(house: House, authority: Authority) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, **files(authority.pair("edge")))
    client = await house.client()
    await client.send(POST)
    await client.rest()
    assert upstream.nobody_came()
    assert edge.counters.refused["handshake"] == 1


async def test_a_handshake_that_never_ends_is_ended(house: House, authority: Authority) -> None:
    pair = authority.pair("edge")
    edge = await house.start(house.upstream(), head_timeout_s=0.05, **files(pair))
    client = await house.client()
    await client.send(b"\x16\x03\x01")
    assert await client.rest() == b""
    assert edge.counters.refused["handshake"] == 1


async def test_a_refusal_reaches_a_client_that_reads_to_the_end(
    house: House, authority: Authority
) -> None:
    """With a goodbye behind it: a strict client would take an answer without one for a cut one."""
    await house.start(house.upstream(), **files(authority.pair("edge")))

    def ask() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", house.port), WAIT_S) as plain,
            authority.client().wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as strict,
        ):
            strict.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            answer = b""
            while more := strict.recv(65_536):
                answer += more
            return answer

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 400 ")


async def test_a_large_body_passes_both_ways(house: House, authority: Authority) -> None:
    upstream = house.upstream()
    await house.start(upstream, **files(authority.pair("edge")))
    reader, writer = await dial(house, authority.client())
    size = 8 * 1024 * 1024
    body = os.urandom(1024) * (size // 1024)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body)
    server = await upstream.accept()
    await server.head()
    assert await server.exactly(size) == body
    sending = asyncio.ensure_future(
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)
    )
    async with asyncio.timeout(WAIT_S):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(size) == body
    await sending
    writer.close()


# Files that change.


async def test_a_renewed_certificate_is_used_and_open_connections_stay(
    house: House, authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    upstream = house.upstream()
    pair, renewed = authority.pair("edge"), authority.pair("edge")
    edge = await house.start(upstream, tls_look_s=0.0, **files(pair))
    before = await dial(house, authority.client())
    before[1].write(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    shutil.copy(renewed.key, pair.key)  # half written: the key does not fit
    contexts = edge.tls.listener()
    assert contexts is not None
    await house.until(lambda: contexts.failures == 1)
    between = await dial(house, authority.client())
    assert serial(between) == serial(before)
    shutil.copy(renewed.cert, pair.cert)
    await house.until(lambda: contexts.reloads == 1)
    after = await dial(house, authority.client())
    assert serial(after) != serial(before)
    await server.send(OK)
    async with asyncio.timeout(WAIT_S):
        await before[0].readuntil(b"\r\n\r\nok")  # its request was in flight all the time
    for streams in (before, between, after):
        streams[1].close()
    assert edge.tls.counts() == {"listener": {"reloaded": 1, "failed": 1}}
    told = capfd.readouterr().err
    assert "cannot be used, the old stay" in told
    assert "are in use" in told


async def test_a_link_that_is_swapped_is_a_change(house: House, authority: Authority) -> None:
    """As Kubernetes does it: `..data` points at a new directory, times may be older."""
    home = authority.home
    for name in ("one", "two"):
        (home / name).mkdir()
        pair = authority.pair("edge")
        shutil.copy(pair.cert, home / name / "tls.crt")
        shutil.copy(pair.key, home / name / "tls.key")
    (home / "data").symlink_to("one")
    edge = await house.start(
        house.upstream(),
        tls_look_s=0.0,
        tls_cert_file=str(home / "data" / "tls.crt"),
        tls_key_file=str(home / "data" / "tls.key"),
    )
    before = await dial(house, authority.client())
    (home / "new").symlink_to("two")
    (home / "new").replace(home / "data")
    contexts = edge.tls.listener()
    assert contexts is not None
    await house.until(lambda: contexts.reloads == 1)
    after = await dial(house, authority.client())
    assert serial(after) != serial(before)
    for streams in (before, after):
        streams[1].close()


def test_a_certificate_that_is_no_use_at_start_is_an_error(authority: Authority) -> None:
    one, other = authority.pair("one"), authority.pair("other")
    settings = EdgeSettings(tls_cert_file=str(one.cert), tls_key_file=str(other.key))
    with pytest.raises(OSError, match="KEY_VALUES_MISMATCH"):
        Sides(settings).listener()


# Towards the upstream.


def towards(port: int, name: str = "localhost") -> str:
    return f"https://127.0.0.1:{port}/{name}"


async def test_an_upstream_is_verified_by_name_and_kept(
    house: House, authority: Authority, serve: Serve
) -> None:
    port = await serve(authority.server(authority.pair("model")), answer_one)
    edge = await house.start(towards(port), upstream_ca_file=str(authority.cert))
    client = await house.client()
    for _ in range(5):
        await client.send(POST)
        assert (await client.until(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert edge.counters.upstream_connects == 1


@pytest.mark.parametrize("why", ["another name", "another authority"])
async def test_an_upstream_that_cannot_be_verified_gets_not_a_byte(
    house: House, authority: Authority, serve: Serve, why: str
) -> None:
    asked: list[bytes] = []

    async def listen(streams: Streams) -> None:
        asked.append(await streams[0].read(1))

    port = await serve(authority.server(authority.pair("model")), listen)
    other = Authority(authority.home, "other")
    ca = other.cert if why == "another authority" else authority.cert
    name = "model.internal" if why == "another name" else "localhost"
    edge = await house.start(towards(port, name), upstream_ca_file=str(ca))
    client = await house.client()
    await client.send(POST)
    assert (await client.head()).startswith(b"HTTP/1.1 502 ")
    assert asked in ([], [b""])
    assert edge.counters.cells("1")[0].codes[6] == 1


@pytest.mark.parametrize(
    "settings", [{"upstream_verify": False}, {"upstream_server_name": "localhost"}]
)
async def test_a_name_may_be_given_or_not_be_looked_at(
    house: House, authority: Authority, serve: Serve, settings: dict[str, Any]
) -> None:
    port = await serve(authority.server(authority.pair("model")), answer_one)
    await house.start(towards(port, "elsewhere"), upstream_ca_file=str(authority.cert), **settings)
    client = await house.client()
    await client.send(POST)
    await client.until(b"\r\n\r\nok")


async def test_an_upstream_that_wants_a_certificate_is_shown_ours(
    house: House, authority: Authority, serve: Serve
) -> None:
    context = authority.server(authority.pair("model"), client_ca=authority.cert)
    port = await serve(context, answer_one)
    ours = authority.pair("edge")
    await house.start(
        towards(port),
        upstream_ca_file=str(authority.cert),
        upstream_cert_file=str(ours.cert),
        upstream_key_file=str(ours.key),
    )
    client = await house.client()
    await client.send(POST)
    await client.until(b"\r\n\r\nok")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_without_a_length_must_end_with_a_goodbye(
    house: House, authority: Authority, serve: Serve, announced: bool
) -> None:
    """Whoever can cut the connection could cut the answer, and it would look whole."""

    async def answer(streams: Streams) -> None:
        reader, writer = streams
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await writer.drain()
        if not announced:
            writer.transport.abort()

    port = await serve(authority.server(authority.pair("model")), answer)
    edge = await house.start(towards(port), upstream_ca_file=str(authority.cert))
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.rest()
    codes = edge.counters.cells("1")[0].codes
    assert (codes[1], codes[6]) == ((1, 0) if announced else (0, 1))


async def test_an_edge_whose_authority_is_no_file_answers_502(
    house: House, authority: Authority, serve: Serve
) -> None:
    port = await serve(authority.server(authority.pair("model")), answer_one)
    await house.start(towards(port), upstream_ca_file=str(authority.home / "nothing.pem"))
    client = await house.client()
    await client.send(POST)
    assert (await client.head()).startswith(b"HTTP/1.1 502 ")


async def test_curl_is_satisfied(
    house: House, authority: Authority, serve: Serve, program: Callable[[str], Path]
) -> None:
    """The whole way: curl over TLS to the edge, the edge over TLS to the server."""
    port = await serve(authority.server(authority.pair("model")), answer_one)
    await house.start(
        towards(port), upstream_ca_file=str(authority.cert), **files(authority.pair("edge"))
    )
    arguments = (
        *("--silent", "--show-error", "--include", "--data", "hello"),
        *("--cacert", str(authority.cert), f"https://localhost:{house.port}/v1"),
        *("--resolve", f"localhost:{house.port}:127.0.0.1"),
    )
    process = await asyncio.create_subprocess_exec(
        program("curl"), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(WAIT_S):
        out, error = await process.communicate()
    assert error == b""
    assert out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert out.endswith(b"\r\n\r\nok")


def test_an_edge_without_tls_makes_no_context() -> None:
    async def main() -> dict[str, dict[str, int]]:
        edge = Edge(EdgeSettings(), address="127.0.0.1:9", version="1")
        return edge.tls.counts()

    assert asyncio.run(main()) == {}
