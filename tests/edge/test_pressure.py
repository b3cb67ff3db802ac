"""Whoever is slow slows the other side, and nothing piles up in between."""

import asyncio

from tests.edge.house import OK, House

POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


async def test_an_upload_waits_for_a_slow_server_and_memory_stays_flat(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    size = 64 * 1024 * 1024
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    server = await upstream.accept()
    await server.head()
    piece = b"x" * 1_048_576

    async def upload() -> None:
        for _ in range(size // len(piece)):
            await client.send(piece)

    sending = asyncio.get_running_loop().create_task(upload())
    connection = house.connection()
    await house.until(lambda: not _reads(connection))
    held: list[int] = []
    received = 0
    while received < size:
        received += len(await server.some())
        assert connection._upstream is not None
        held.append(connection._upstream.transport.get_write_buffer_size())
    await sending
    assert max(held) < 1_048_576
    await server.send(OK)
    await client.until(b"\r\n\r\nok")


async def test_a_download_waits_for_a_slow_client(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    size = 32 * 1024 * 1024
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    sending = asyncio.get_running_loop().create_task(server.send(b"x" * size))
    await client.head()
    connection = house.connection()
    await house.until(lambda: connection._write_paused)
    held: list[int] = []
    received = 0
    while received < size:
        received += len(await client.some())
        held.append(connection.transport.get_write_buffer_size())
    await sending
    assert max(held) < 1_048_576
    await client.send(POST)
    assert await server.until(b"hello") == POST


async def test_a_client_that_does_not_read_gets_no_further_answers(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    server = await upstream.accept()
    await server.head()
    size = 16 * 1024 * 1024
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    sending = asyncio.get_running_loop().create_task(server.send(b"x" * size))
    connection = house.connection()
    await house.until(lambda: connection._write_paused)
    await client.head()
    await client.exactly(size)
    await sending
    await server.head()
    await server.send(OK)
    await client.until(b"\r\n\r\nok")


def _reads(connection: object) -> bool:
    transport = connection.transport  # type: ignore[attr-defined]
    return bool(transport.is_reading())
