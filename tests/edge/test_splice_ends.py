"""How HTTP/2 connections through the edge end: by either side, by limits in time, by a drain."""

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from agent.edge.frames import GOAWAY_FRAME
from tests.edge.house import House
from tests.edge.splice_house import PATH, Heard, Pair, spliced, splices
from tests.wire.h2 import DATA, END_STREAM, SETTINGS, frame


async def test_each_side_may_close_its_half(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    pair.peer.eof()
    assert await pair.upstream.some() == b""
    await pair.down(pair.server.answers(1, b"answer"))
    pair.upstream.close()
    assert await pair.peer.rest() == b""
    await house.until(lambda: not edge.clients)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda pair: pair.peer.reset(), "CANCELLED"),
        (lambda pair: pair.upstream.reset(), "UNAVAILABLE"),
        (lambda pair: pair.upstream.close(), "UNAVAILABLE"),
    ],
)
async def test_an_end_reaches_the_other_side_and_the_open_calls(
    house: House, end: Callable[[Pair], None], status: str
) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    heard = Heard(house)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    end(pair)
    await house.until(lambda: not edge.clients)
    await house.until(lambda: heard.statuses == {status: 1})
    other = pair.upstream if status == "CANCELLED" else pair.peer
    assert await other.rest() == b""
    await heard.close()


async def test_a_client_that_does_not_read_stops_the_server_and_takes_no_memory(
    house: House,
) -> None:
    upstream = house.upstream()
    await house.start(upstream)
    pair = await spliced(house, upstream)
    size = 24_000_000  # far more than the kernel holds for two connections
    sending = asyncio.create_task(pair.upstream.send(bytes(size)))
    (splice,) = splices(house)
    await house.until(lambda: splice.transport.get_write_buffer_size() > 0)
    for _ in range(200):
        await asyncio.sleep(0)
    assert not sending.done()
    assert splice.transport.get_write_buffer_size() < 2_000_000
    while size:
        size -= len(await pair.peer.some())
    await sending


async def test_a_drain_lets_calls_finish_and_turns_new_ones_away(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    draining = asyncio.create_task(edge.drain(10.0))
    assert await pair.peer.exactly(len(GOAWAY_FRAME)) == GOAWAY_FRAME
    await pair.down(pair.server.answers(1, b"answer"))
    pair.peer.close()
    await draining
    assert not edge.clients


async def test_a_goaway_waits_for_the_end_of_a_frame(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    answer = pair.server.answers(1, b"answer" * 100)
    await pair.down(answer[:200])
    draining = asyncio.create_task(edge.drain(10.0))
    await house.settle()
    await pair.upstream.send(answer[200:])
    rest = await pair.peer.exactly(len(answer) - 200 + len(GOAWAY_FRAME))
    assert rest.count(GOAWAY_FRAME) == 1
    assert rest.replace(GOAWAY_FRAME, b"") == answer[200:]
    assert frame_borders(answer, 200 + rest.index(GOAWAY_FRAME))
    pair.peer.close()
    await draining


def frame_borders(stream: bytes, at: int) -> bool:
    place = 0
    while place < at:
        place += 9 + int.from_bytes(stream[place : place + 3], "big")
    return place == at


async def test_a_drain_does_not_wait_for_ever(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    await edge.drain(0.05)
    assert not [client for client in edge.clients if not client.transport.is_closing()]
    assert await pair.upstream.rest() == b""


async def test_another_stable_model_gets_the_next_connection(house: House) -> None:
    upstream, next_model = house.upstream(), house.upstream()
    edge = await house.start(upstream)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    edge.router.set_stable(address=next_model.address, version="2")
    assert await pair.peer.exactly(len(GOAWAY_FRAME)) == GOAWAY_FRAME
    await pair.down(pair.server.answers(1, b"answer"))
    assert await pair.peer.rest() == b""
    fresh = await spliced(house, next_model)
    await fresh.call(1)


async def test_an_idle_connection_is_told_to_go_and_closed(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, client_idle_s=0.05)
    pair = await spliced(house, upstream)
    await pair.call(1)
    assert await pair.peer.rest() == GOAWAY_FRAME
    await house.until(lambda: not edge.clients)


async def test_a_call_that_goes_silent_is_ended(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, total_timeout_s=0.05, client_idle_s=60.0)
    pair = await spliced(house, upstream)
    await pair.up(pair.client.asks(1, PATH, b"question"))
    assert await pair.peer.rest() == b""
    assert edge.counters.refused == {"http2_silent": 1}


async def test_a_splice_that_is_over_is_gone_without_the_collector(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    heard = Heard(house)
    pair = await spliced(house, upstream)
    await pair.call(1)
    (splice,) = splices(house)
    gone = weakref.ref(splice)
    del splice
    gc.disable()
    try:
        pair.peer.close()
        pair.upstream.close()
        await house.until(lambda: not edge.clients)
        await house.until(lambda: gone() is None)
    finally:
        gc.enable()
    await heard.close()


async def test_data_after_the_end_is_not_the_edges_concern(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    Heard(house, reading=False)
    pair = await spliced(house, upstream)
    await pair.call(1)
    await pair.up(frame(DATA, END_STREAM, 1, b"late") + frame(SETTINGS, 1, 0))
    await pair.call(3)
    assert not edge.counters.drops
