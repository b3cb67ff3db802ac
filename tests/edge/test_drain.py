"""An edge that goes: whoever is in the middle of something, or about to begin, is answered."""

import asyncio

from tests.edge.house import OK, House

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


async def test_a_request_on_a_connection_that_was_idle_is_answered_and_is_the_last(
    house: House,
) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, drain_idle_s=30.0)
    client, late = await house.client(), await house.client()
    await client.send(POST)  # the same bytes again take a path of their own
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    assert b"Connection: close" not in await client.until(b"\r\n\r\nok")
    draining = asyncio.get_running_loop().create_task(edge.drain(30.0))
    await house.until(lambda: edge.draining)
    await client.send(POST)
    await server.until(b"hello")
    await server.send(OK)
    assert (await client.rest()).endswith(b"\r\nConnection: close\r\n\r\nok")
    await late.send(POST)  # a whole exchange later, and still not too late
    await server.until(b"hello")
    await server.send(OK)
    assert (await late.rest()).endswith(b"\r\nConnection: close\r\n\r\nok")
    await draining


async def test_who_does_not_ask_again_is_not_waited_for(house: House) -> None:
    edge = await house.start(house.upstream(), drain_idle_s=0.05)
    client = await house.client()
    await house.until(lambda: len(edge.clients) == 1)
    await edge.drain(30.0)
    assert await client.rest() == b""


async def test_what_was_accepted_before_and_is_known_after_is_served(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, drain_idle_s=30.0)
    edge.draining = True  # as between two turns of the loop
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    assert (await client.rest()).endswith(b"\r\nConnection: close\r\n\r\nok")
