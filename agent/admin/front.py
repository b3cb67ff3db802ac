"""The admin port's front desk, in the supervisor: answers probes itself, hands on the rest.

A busy or dead analysis must never make an orchestrator restart the pod: that is why `/healthz`
and `/readyz` are answered here, from what the supervisor knows, and everything else is relayed
to analysis byte by byte. Analysis closes each connection after its answer, so no second request
can slip past the front desk.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

HEAD_BYTES_MAX = 32 * 1024
HEAD_WAIT_S = 10.0
RELAY_BYTES = 64 * 1024
# An answer that takes longer than this is a hung analysis; long reports are jobs, not answers.
RELAY_IDLE_S = 120.0
CONNECTIONS_MAX = 256

Probe = Callable[[], Awaitable[tuple[bool, dict[str, object]]]]


class FrontDesk:
    """Serves the admin listeners. `probes` maps a path to what answers it."""

    def __init__(self, *, backend: str, probes: dict[str, Probe]) -> None:
        self._backend = backend
        self._probes = probes
        self._open = 0
        self._servers: list[asyncio.Server] = []

    async def serve(self, listener: socket.socket) -> None:
        """Accept on a listening socket that the caller owns."""
        if listener.family == socket.AF_UNIX:
            server = await asyncio.start_unix_server(
                self._serve, sock=listener, limit=HEAD_BYTES_MAX
            )
        else:
            server = await asyncio.start_server(self._serve, sock=listener, limit=HEAD_BYTES_MAX)
        self._servers.append(server)

    def close(self) -> None:
        """Accept nothing more; answers under way are finished."""
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > CONNECTIONS_MAX:
                writer.write(_answer(503, {"error": "too many admin connections"}))
            else:
                await self._converse(reader, writer)
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # The client went away, dawdled or sent no head; there is nobody to tell.
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_WAIT_S)
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        probe = self._probes.get(path)
        if probe is None:
            await self._relay(head, reader, writer)
        elif method not in (b"GET", b"HEAD"):
            writer.write(_answer(405, {"error": f"{path} is only read"}))
        else:
            ok, body = await probe()
            writer.write(_answer(200 if ok else 503, body, head_only=method == b"HEAD"))

    async def _relay(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            answers, requests = await asyncio.open_unix_connection(self._backend)
        except OSError:
            writer.write(
                _answer(503, {"error": "analysis is restarting; traffic is served, try again"})
            )
            return
        requests.write(head)
        upload = asyncio.ensure_future(_copy(reader, requests))
        try:
            await _copy(answers, writer)
        finally:
            upload.cancel()
            requests.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await asyncio.wait_for(source.read(RELAY_BYTES), RELAY_IDLE_S):
        target.write(chunk)
        await target.drain()


def _answer(status: int, body: dict[str, object], *, head_only: bool = False) -> bytes:
    reason = {200: "OK", 405: "Method Not Allowed", 503: "Service Unavailable"}[status]
    payload = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else payload)
