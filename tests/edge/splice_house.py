"""Both ends of an HTTP/2 connection through a real edge, and analysis that hears of its calls."""

import asyncio
from collections import Counter

from agent.call_totals import CallTotals
from agent.edge.splice import Splice
from agent.exchange import Exchange
from agent.sources.proxy import EdgeChannel
from tests.edge.house import House, Peer, Server
from tests.wire.h2 import DATA, Client, frame
from tests.wire.h2 import Server as Answering

PATH = "/inference.GRPCInferenceService/ModelInfer"
BROKEN = frame(DATA, 0, 0, b"data of no stream")


class Heard:
    """Analysis, as far as calls are concerned."""

    def __init__(self, house: House, *, buffer_bytes: int = 0, reading: bool = True) -> None:
        self.exchanges: list[Exchange] = []
        self.totals = CallTotals()
        self.channel = EdgeChannel(
            house.channel_end(buffer_bytes=buffer_bytes),
            self.exchanges.append,
            lambda _: None,
            lambda _: None,
            calls=self.totals,
        )
        self.reading: asyncio.Task[None] | None = None
        if reading:
            self.read()

    def read(self) -> None:
        self.reading = asyncio.get_running_loop().create_task(self.channel.run())

    @property
    def statuses(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for (_, _, status), count in self.totals.grpc.items():
            found[status] += count
        return found

    async def close(self) -> None:
        self.channel.close()
        if self.reading is not None:
            await asyncio.gather(self.reading, return_exceptions=True)


class Pair:
    """A client and the upstream's end of its splice, greeted."""

    def __init__(self, peer: Peer, upstream: Peer) -> None:
        self.peer, self.upstream = peer, upstream
        self.client, self.server = Client(), Answering()

    async def up(self, data: bytes) -> None:
        await self.peer.send(data)
        assert await self.upstream.exactly(len(data)) == data

    async def down(self, data: bytes) -> None:
        await self.upstream.send(data)
        assert await self.peer.exactly(len(data)) == data

    async def call(self, stream: int) -> None:
        await self.up(self.client.asks(stream, PATH, b"question"))
        await self.down(self.server.answers(stream, b"answer"))


async def spliced(house: House, upstream: Server) -> Pair:
    peer = await house.client()
    client = Client()
    await peer.send(client.opening())
    pair = Pair(peer, await upstream.accept())
    assert await pair.upstream.exactly(len(client.opening())) == client.opening()
    await pair.down(pair.server.opening())
    return pair


def splices(house: House) -> list[Splice]:
    return [client for client in house.edge.clients if isinstance(client, Splice)]
