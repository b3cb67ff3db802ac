"""Several channels at once: what every edge must have, and what is asked for again."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agent.channel_ends import Peer
from agent.channels import Channels, Receivers
from agent.edge import channel
from agent.edge.counters import Counters
from agent.sources.proxy import Route, SourceCounters, Upstream

TAP = Peer(source="tap")


class Desk:
    """Channels under test, the far ends, and what came of them."""

    def __init__(self, *, workers: int) -> None:
        self.generations: list[tuple[int, float]] = []
        self.counted: list[int] = []
        self.losses: list[SourceCounters] = []
        self.lost: list[Peer] = []
        self.ends: dict[Peer, socket.socket] = {}
        self._decoders: dict[Peer, channel.FrameDecoder] = {}
        self.channels = new_channels(
            Receivers(
                exchange=lambda _: True,
                outcomes=lambda _: None,
                counters=lambda worker, _: self.counted.append(worker),
                generation=lambda *told: self.generations.append(told),
                lost=self.lost.append,
                source=self.losses.append,
            ),
            workers,
        )

    def connect(self, peer: Peer) -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.channels.connect(ours, peer)
        if peer in self.ends:
            self.ends[peer].close()
        self.ends[peer] = theirs
        self._decoders[peer] = channel.FrameDecoder()

    async def count(self, peer: Peer, generation: int, weight: float) -> None:
        before = len(self.counted)
        snapshot = Counters(()).snapshot(generation=generation, weight=weight)
        self.say(peer, channel.COUNTERS, snapshot)
        await until(lambda: len(self.counted) > before)

    def say(self, peer: Peer, kind: int, body: Any) -> None:
        self.ends[peer].send(channel.frame(kind, json.dumps(body).encode()))

    async def hears(self, peer: Peer) -> tuple[int, Any]:
        """The next message at the far end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20.0):
            while True:
                data = await loop.sock_recv(self.ends[peer], 65_536)
                for kind, payload in self._decoders[peer].feed(data):
                    return kind, json.loads(payload)

    def close(self) -> None:
        self.channels.close()
        for end in self.ends.values():
            end.close()


def new_channels(receivers: Receivers, workers: int) -> Channels:
    from agent.sampling import SamplingOrder

    order = SamplingOrder(rate=0.5, salt=b"salt")
    return Channels(receivers, workers=workers, sampling=lambda: order, headers=())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - the far end has no event for us
            await asyncio.sleep(0.005)


@pytest.fixture
async def desk() -> Any:
    made = Desk(workers=2)
    yield made
    made.close()


FIRST, SECOND = Peer(worker=0), Peer(worker=1)


async def test_a_route_is_in_force_once_every_edge_has_it(desk: Desk) -> None:
    desk.connect(FIRST)
    desk.connect(SECOND)
    await desk.count(FIRST, 3, 0.1)
    assert desk.generations == []  # the other one was not heard yet
    await desk.count(SECOND, 2, 0.1)
    assert desk.generations == [(2, 0.1)]
    await desk.count(SECOND, 3, 0.1)
    assert desk.generations[-1] == (3, 0.1)


async def test_while_a_lease_has_run_out_somewhere_nothing_is_in_force(desk: Desk) -> None:
    desk.connect(FIRST)
    desk.connect(SECOND)
    await desk.count(FIRST, 3, 0.1)
    await desk.count(SECOND, 3, 0.0)
    assert desk.generations == []


async def test_an_edge_that_was_started_again_is_asked_anew(desk: Desk) -> None:
    desk.connect(FIRST)
    desk.connect(SECOND)
    await desk.count(FIRST, 3, 0.1)
    await desk.count(SECOND, 3, 0.1)
    desk.connect(SECOND)
    await desk.count(FIRST, 4, 0.1)
    assert desk.generations == [(3, 0.1)]  # what the one before had in force counts no more
    await desk.count(SECOND, 4, 0.1)
    assert desk.generations == [(3, 0.1), (4, 0.1)]


async def test_routes_go_to_edges_and_rates_to_everybody(desk: Desk) -> None:
    for peer in (FIRST, SECOND, TAP):
        desk.connect(peer)
        kind, order = await desk.hears(peer)
        assert (kind, order["rate"]) == (channel.SAMPLING, 0.5)
    desk.channels.send_route(Route(generation=7, stable=Upstream(address="a:1", version="1")))
    for peer in (FIRST, SECOND):
        kind, route = await desk.hears(peer)
        assert (kind, route["generation"]) == (channel.ROUTE, 7)
    desk.channels.send_sampling()
    assert (await desk.hears(TAP))[0] == channel.SAMPLING  # and no route before it


async def test_what_the_tap_lost_arrives_and_its_requests_are_counted_only_alone(
    desk: Desk,
) -> None:
    desk.connect(TAP)
    desk.say(TAP, channel.COUNTERS, Counters(()).snapshot(generation=0, weight=0.0))
    desk.say(TAP, channel.SOURCE_COUNTERS, {"dropped": {"tap_gap": 2}, "completeness": 0.5})
    await until(lambda: desk.losses)
    assert desk.losses == [SourceCounters(dropped={"tap_gap": 2}, completeness=0.5)]
    assert desk.counted == []  # what passes the proxy was counted there
    alone = Desk(workers=0)
    alone.connect(TAP)
    await alone.count(TAP, 0, 0.0)
    assert (alone.counted, alone.generations) == ([0], [])
    alone.close()


async def test_a_lost_channel_is_asked_for_by_its_peer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.channels.CHANNEL_LOST_S", 0.01)
    desk.connect(FIRST)
    desk.connect(SECOND)
    desk.ends[SECOND].close()
    await until(lambda: len(desk.lost) > 1)
    assert set(desk.lost) == {SECOND}
    assert desk.channels.reading == 2
