"""Analysis' ends of the channels: one to each edge, one to the tap.

Every edge is told the same routes and rates, and a route counts as in force only once every edge
has it: with half of them a canary would be measured that half of the traffic knows nothing of.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from agent.channel_ends import Peer
from agent.exchange import Exchange
from agent.sampling import SamplingOrder
from agent.sources.grpc_calls import CallTally
from agent.sources.proxy import EdgeChannel, EdgeCounters, Outcome, Route, SourceCounters

log = structlog.get_logger("remora.analysis")

# A process that died brings a channel with it when it comes back; one that merely lost it does not.
CHANNEL_LOST_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """Who takes what comes in."""

    exchange: Callable[[Exchange], object]
    outcomes: Callable[[Sequence[Outcome]], None]
    counters: Callable[[int, EdgeCounters], None]  # with the number of the edge
    generation: Callable[[int, float], None]  # a route, and its weight, in force everywhere
    lost: Callable[[Peer], None]  # ask for a new channel
    source: Callable[[SourceCounters], None]  # what the tap lost
    calls: CallTally | None = None  # on HTTP/2 connections


class Channels:
    """At most one channel for each peer; a new one replaces the one before."""

    def __init__(
        self,
        receivers: Receivers,
        *,
        workers: int,
        sampling: Callable[[], SamplingOrder],
        headers: Sequence[str],
    ) -> None:
        self._receivers = receivers
        self._workers = workers
        self._sampling = sampling
        self._headers = tuple(headers)
        self._open: dict[Peer, EdgeChannel] = {}
        self._reading: set[asyncio.Task[None]] = set()
        self._malformed: Counter[str] = Counter()  # of channels that are closed
        self._in_force: dict[int, tuple[int, float]] = {}  # by edge: generation and weight

    def connect(self, sock: socket.socket, peer: Peer) -> None:
        """A channel to a process that has just started, or to one that was there before us."""
        before = self._open.pop(peer, None)
        if before is not None:
            self._malformed += before.malformed
            before.close()
        channel = EdgeChannel(
            sock,
            self._receivers.exchange,
            self._receivers.outcomes,
            lambda counters: self._counted(peer, counters),
            source=peer.source,
            on_source=self._receivers.source,
            headers_also=self._headers,
            calls=self._receivers.calls,
        )
        self._tell(channel)
        self._open[peer] = channel
        if peer.source == "proxy":
            self._in_force.pop(peer.worker, None)
        reading = asyncio.get_running_loop().create_task(self._read(channel, peer))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _read(self, channel: EdgeChannel, peer: Peer) -> None:
        """Read to the end of a channel; then ask for another until there is one.

        Both ends give up a channel whose bytes make no sense, and a process that lives on would
        never be heard of again.
        """
        try:
            await channel.run()
        except (OSError, ValueError) as error:
            log.warning("channel failed", source=peer.source, error=repr(error))
            channel.close()
        while self._open.get(peer) is channel:
            await asyncio.sleep(CHANNEL_LOST_S)
            if self._open.get(peer) is channel:
                log.warning("no channel, asking for one", source=peer.source, worker=peer.worker)
                self._receivers.lost(peer)

    def _counted(self, peer: Peer, counters: EdgeCounters) -> None:
        if peer.source != "proxy":
            if not self._workers:  # what passes a proxy was counted there
                self._receivers.counters(peer.worker, counters)
            return
        self._receivers.counters(peer.worker, counters)
        self._in_force[peer.worker] = (counters.generation, counters.weight)
        told = list(self._in_force.values())
        weights = {weight for _, weight in told}
        # Of one generation they differ only while a lease has run out somewhere.
        if len(told) >= self._workers and len(weights) == 1:
            self._receivers.generation(min(told)[0], weights.pop())

    def send_route(self, route: Route) -> None:
        for channel in self._edges():
            channel.send_route(route)

    def send_sampling(self) -> None:
        """What is in force now, to everybody; whoever connects later is told what is so then."""
        for channel in self._open.values():
            if not channel.closed:
                self._tell(channel)

    def _tell(self, channel: EdgeChannel) -> None:
        order = self._sampling()
        channel.send_sampling(
            rate=order.rate,
            salt=order.salt,
            also=order.also,
            errors=order.errors,
            error_codes=order.error_codes,
        )

    def _edges(self) -> Iterator[EdgeChannel]:
        for peer, channel in self._open.items():
            if peer.source == "proxy" and not channel.closed:
                yield channel

    def malformed(self) -> Counter[str]:
        """Captured bytes that were no HTTP, by reason."""
        found = Counter(self._malformed)
        for channel in self._open.values():
            found += channel.malformed
        return found

    @property
    def reading(self) -> int:
        """How many channels are being read, or asked for."""
        return len(self._reading)

    def close(self) -> None:
        for task in self._reading:
            task.cancel()
        for channel in self._open.values():
            channel.close()
