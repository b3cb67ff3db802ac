"""Real sockets on loopback for the tests of the edge: an upstream, an edge, clients, analysis.

Everything speaks raw bytes, so that a test can say exactly what must have crossed the wire. Waits
are for events, each bounded by `WAIT_S`; nothing sleeps.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from agent.edge.edge import Edge
from agent.edge.proxy import Client
from agent.edge.settings import EdgeSettings
from agent.exchange import Exchange
from agent.sources.proxy import EdgeChannel, EdgeCounters, Outcome

WAIT_S = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """One end of a TCP connection, in the hands of the test."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._held = b""

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def some(self) -> bytes:
        """What has come, at least one byte; nothing at end of file."""
        if self._held:
            data, self._held = self._held, b""
            return data
        async with asyncio.timeout(WAIT_S):
            return await asyncio.get_running_loop().sock_recv(self.sock, 65_536)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`; fails when the connection ends before it."""
        data = b""
        while mark not in data:
            more = await self.some()
            assert more, f"connection ended after {data!r}"
            data += more
        end = data.index(mark) + len(mark)
        self._held = data[end:] + self._held
        return data[:end]

    async def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.some()
            assert more, f"connection ended after {data!r}"
            data += more
        self._held = data[size:] + self._held
        return data[:size]

    async def rest(self) -> bytes:
        """Everything until the other side closes; a reset counts as closing."""
        data = b""
        try:
            while more := await self.some():
                data += more
        except ConnectionResetError:
            pass
        return data

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n")

    def eof(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close so that the other side sees a reset, not an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """A listening socket that the test accepts from."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peers: list[Peer] = []

    @property
    def address(self) -> str:
        name = self.sock.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def accept(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        peer = Peer(sock)
        self.peers.append(peer)
        return peer

    def nobody_came(self) -> bool:
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return True
        sock.close()
        return False

    def close(self) -> None:
        self.sock.close()
        for peer in self.peers:
            peer.close()


class Analysis:
    """The other end of the channel, and all that it was told."""

    def __init__(self, sock: socket.socket) -> None:
        self.exchanges: asyncio.Queue[Exchange] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.counters: asyncio.Queue[EdgeCounters] = asyncio.Queue()
        self.channel = EdgeChannel(
            sock, self.exchanges.put_nowait, self._take_outcomes, self.counters.put_nowait
        )
        self.reading = asyncio.get_running_loop().create_task(self.channel.run())

    def _take_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.outcomes.put_nowait(outcome)

    async def exchange(self) -> Exchange:
        async with asyncio.timeout(WAIT_S):
            return await self.exchanges.get()

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(WAIT_S):
            return await self.outcomes.get()

    async def snapshot(self) -> EdgeCounters:
        async with asyncio.timeout(WAIT_S):
            return await self.counters.get()

    async def close(self) -> None:
        self.channel.close()
        await asyncio.gather(self.reading, return_exceptions=True)


class House:
    """Opens everything, and closes it when the test is over."""

    def __init__(self) -> None:
        self._servers: list[Server] = []
        self._clients: list[Peer] = []
        self._analyses: list[Analysis] = []
        self._sockets: list[socket.socket] = []
        self._edges: list[Edge] = []
        self.edge: Edge
        self.port = 0

    def upstream(self, *, family: int = socket.AF_INET, path: str = "") -> Server:
        if path:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            sock.listen(64)
        else:
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            sock = socket.create_server((host, 0), family=family, backlog=64)
        server = Server(sock)
        self._servers.append(server)
        return server

    async def start(self, upstream: Server | str, *, version: str = "1", **settings: Any) -> Edge:
        """An edge in this process, in front of `upstream`."""
        address = upstream if isinstance(upstream, str) else upstream.address
        defaults: Mapping[str, Any] = {"sweep_s": 0.02, "flush_s": 0.001, "sampling_rate": 0.0}
        edge = Edge(EdgeSettings.of({**defaults, **settings}), address=address, version=version)
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = listener.getsockname()[1]
        await edge.serve([listener])
        self.edge = edge
        self._edges.append(edge)
        return edge

    def channel_end(self, *, buffer_bytes: int = 0) -> socket.socket:
        """Analysis' end of a channel that the edge has just been given."""
        ours, theirs = socket.socketpair()
        if buffer_bytes:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.edge.outbox.attach(theirs)
        ours.setblocking(False)
        self._sockets.append(ours)
        return ours

    def analysis(self) -> Analysis:
        analysis = Analysis(self.channel_end())
        self._analyses.append(analysis)
        return analysis

    async def client(self) -> Peer:
        sock = socket.socket()
        peer = Peer(sock)
        self._clients.append(peer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return peer

    def connection(self) -> Client:
        """The edge's end of its one client's connection."""
        (connection,) = self.edge.clients
        assert isinstance(connection, Client)
        return connection

    async def settle(self) -> None:
        """Until the edge has done all that it could do about what has happened so far."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def until(self, condition: Any) -> None:
        """Until `condition()` holds, looking again at every turn of the loop."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110  the edge has no event for every count
                await asyncio.sleep(0)

    async def close(self) -> None:
        for peer in self._clients:
            peer.close()
        for edge in self._edges:
            await edge.drain(0.0)
            await edge.close()
        for analysis in self._analyses:
            await analysis.close()
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
