"""The edge as a whole: listeners, clients, upstreams, limits in time, and the drain."""

import asyncio
import gc
import json
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from agent.edge import channel
from agent.edge.capture import Capture
from agent.edge.contexts import Sides
from agent.edge.counters import Counters
from agent.edge.heads import HeadReader
from agent.edge.journal import Journal
from agent.edge.minting import Minter
from agent.edge.outbox import OUTCOMES_BYTES_MAX, Outbox
from agent.edge.pool import Pool
from agent.edge.proxy import Client
from agent.edge.routing import Router, Routes, Slot
from agent.edge.settings import EdgeSettings
from agent.edge.shadow import Shadows
from agent.edge.splice import Splice
from agent.edge.templates import Templates
from agent.edge.upstream import TIMEOUT, UNREACHABLE, connect

if TYPE_CHECKING:
    from agent.edge.doors import Door

# Cycles are broken by hand and the collector is off; this finds what a rare error path left.
_COLLECT_EVERY_S: Final = 60.0


class Edge:
    """Everything that connections share. Lives in one event loop, never in two threads."""

    def __init__(self, settings: EdgeSettings, *, address: str, version: str) -> None:
        if not settings.sampling_salt:
            settings = _with_salt(settings)
        self.settings = settings
        self.routes = Routes(settings.routes)
        self.counters = Counters(self.routes.names)
        self.reader = HeadReader(settings.client_key, self.routes.index)
        self.templates = Templates()
        self.minter = Minter()
        self.tls = Sides(settings)
        self.router = Router(
            new_pool=self._new_pool,
            counters=self.counters,
            salt=bytes.fromhex(settings.sampling_salt)[:64],
        )
        self.router.set_stable(address=address, version=version)
        self.outbox = Outbox(
            settings,
            self.counters,
            make_counters=self._make_counters,
            make_outcomes=self._make_outcomes,
            on_message=self._from_analysis,
        )
        self.capture = Capture(settings, self.counters, self.outbox)
        self.shadows = Shadows(self)
        self.journal = Journal(self.outbox, flush_s=settings.flush_s)
        self.grpc_address = address  # of the door for HTTP/2 alone, if there is one
        self.clients: set[Client | Splice] = set()
        self.draining = False
        self.wall_offset_s = time.time() - time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server | Door] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._ticks: list[asyncio.Task[None]] = []
        self._emptied = asyncio.Event()

    async def serve(
        self, listeners: Sequence[socket.socket], *, grpc: Sequence[socket.socket] = ()
    ) -> None:
        """Raises OSError or ValueError when a certificate cannot be used."""
        for listener in listeners:
            await self._accept(listener, self._new_client)
        for listener in grpc:
            await self._accept(listener, self._new_splice, protocol="h2")
        self._ticks = [
            self._loop.create_task(self._sweep_forever()),
            self._loop.create_task(self._count_forever()),
        ]

    async def _accept(
        self,
        listener: socket.socket,
        new: Callable[[bytes, bytes], asyncio.Protocol],
        *,
        protocol: str = "http/1.1",
    ) -> None:
        listener.setblocking(False)
        _notice_the_dead(listener)
        settings = self.settings
        if settings.tls_cert_file or settings.proxy_protocol:
            from agent.edge.doors import Door  # few sidecars need one, and all would pay for it

            contexts = self.tls.listener()
            door = Door(self, listener, new, contexts=contexts, protocol=protocol)
            self._servers.append(door)
            return

        def plain() -> asyncio.Protocol:
            return new(b"", b"http")

        if listener.family == socket.AF_UNIX:
            server = await self._loop.create_unix_server(plain, sock=listener)
        else:
            server = await self._loop.create_server(plain, sock=listener)
        self._servers.append(server)

    def _new_client(self, peer: bytes, scheme: bytes) -> Client:
        client = Client(self)
        client.came(peer, scheme)
        return client

    def _new_splice(self, peer: bytes, scheme: bytes) -> Splice:
        return Splice(self, own_door=True)

    # Clients.

    def admit(self, client: Client | Splice) -> bool:
        if len(self.clients) >= self.settings.connections_max:
            self.clients.add(client)  # it lingers until it has read why
            return False
        self.clients.add(client)
        return True

    def connect(self, client: Client, slot: Slot, attempt: int) -> None:
        self.spawn(self._connect(client, slot.pool, attempt))

    def spawn(self, connecting: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else; `close` ends what is left."""
        task = self._loop.create_task(connecting)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: Client, pool: Pool, attempt: int) -> None:
        try:
            connection = await connect(pool, self.counters, self.settings)
        except TimeoutError:
            client.not_connected(attempt, TIMEOUT)
        except (OSError, ValueError):
            client.not_connected(attempt, UNREACHABLE)
        else:
            if not client.connected(connection, attempt):
                connection.release(time.monotonic(), keep=True)

    def _new_pool(self, address: str) -> Pool:
        settings = self.settings
        return Pool(
            address,
            idle_s=settings.idle_s,
            idle_max=settings.upstream_idle_max,
            contexts=self.tls.upstream(address),
        )

    def outcome(
        self,
        slot: Slot,
        outcome: int,
        status: int,
        duration_s: float,
        first_byte_s: float | None,
        key: bytes,
        shadow: bool = False,
    ) -> None:
        if len(slot.outcomes) >= OUTCOMES_BYTES_MAX:
            self.counters.drop("outcomes_full")
            return
        slot.outcomes += channel.pack_outcome(
            outcome,
            status,
            duration_s,
            first_byte_s,
            self.router.hash(key),
            time.monotonic() + self.wall_offset_s,
            shadow,
        )
        self.outbox.schedule()

    # Analysis.

    def _from_analysis(self, kind: int, message: Mapping[str, Any]) -> None:
        if kind == channel.ROUTE:
            self.router.route(message, time.monotonic())
        elif kind == channel.SAMPLING:
            salt = bytes.fromhex(message["salt"])
            self.capture.set_sampling(
                rate=float(message["rate"]),
                salt=salt,
                also=float(message.get("also", 0.0)),
                errors=float(message.get("errors", 0.0)),
                error_codes=message.get("error_codes", ()),
            )
            self.router.salt = salt[:64]

    def _make_counters(self) -> bytes:
        counters = self.counters
        counters.client_connections = len(self.clients)
        weight = self.router.weight(time.monotonic())
        snapshot = counters.snapshot(generation=self.router.generation, weight=weight)
        snapshot["capture_s"] = self.capture.cost.total_s(
            requests=counters.answered, kept=counters.kept, sent_s=self.outbox.sending_s
        )
        snapshot["tls"] = self.tls.counts()
        snapshot["shadow_copies"] = self.shadows.counts
        return json.dumps(snapshot).encode()

    def _make_outcomes(self) -> tuple[list[bytes], int]:
        frames = []
        count = 0
        for slot in self.router.slots_with_outcomes():
            count += len(slot.outcomes) // channel.OUTCOME_BYTES
            frames.append(
                channel.outcomes_frame(slot.code, slot.version_bytes, bytes(slot.outcomes))
            )
            slot.outcomes.clear()
        return frames, count

    # Time.

    async def _count_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.counters_s)
            self.outbox.send_counters()

    async def _sweep_forever(self) -> None:
        collected = looked = time.monotonic()
        while True:
            await asyncio.sleep(self.settings.sweep_s)
            now = time.monotonic()
            self.wall_offset_s = time.time() - now
            for client in list(self.clients):
                client.sweep(now)
            self.shadows.sweep(now)
            self.router.expire(now)
            if now - looked > self.settings.tls_look_s:
                looked = now
                self.tls.refresh()
            if now - collected > _COLLECT_EVERY_S and not self.counters.in_flight:
                collected = now
                gc.collect()

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, finish what is in flight for at most `timeout_s`, close the rest."""
        self.draining = True
        for server in self._servers:
            server.close()
        self.shadows.close()
        for client in list(self.clients):
            client.drain()
        closing = self._loop.call_later(self.settings.drain_idle_s, self._close_idle)
        try:
            async with asyncio.timeout(timeout_s):
                while self.clients:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            pass  # the rest is cut off below: the supervisor does not wait for ever either
        closing.cancel()
        for client in list(self.clients):
            client.transport.abort()
        self.journal.flush()
        self.outbox.send_counters()

    def _close_idle(self) -> None:
        for client in list(self.clients):
            if isinstance(client, Client):
                client.close_idle()

    def splice(self, client: Client, data: bytes) -> None:
        """A client has said, as the first thing of its connection, that it speaks HTTP/2."""
        splice = Splice(self)
        self.clients.discard(client)
        self.clients.add(splice)
        splice.take_over(client.transport, data)

    def left(self, client: Client | Splice) -> None:
        self.clients.discard(client)
        if self.draining and not self.clients:
            self._emptied.set()

    async def close(self) -> None:
        """After the drain: ends what runs by itself."""
        for task in (*self._ticks, *self._connecting):
            task.cancel()
        await asyncio.gather(*self._ticks, *self._connecting, return_exceptions=True)
        self.router.close_idle()
        self.outbox.detach("edge_closed")
        for server in self._servers:
            server.close()


def _with_salt(settings: EdgeSettings) -> EdgeSettings:
    return replace(settings, sampling_salt=os.urandom(32).hex())


def _notice_the_dead(listener: socket.socket) -> None:
    """What is accepted inherits it: a peer that vanished without a word is found after 2 minutes.

    Set here once, it costs no connection anything.
    """
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
