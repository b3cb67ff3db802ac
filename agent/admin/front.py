"""The admin port's front desk, in the supervisor: answers probes itself, hands on the rest.

A busy or dead analysis must never make an orchestrator restart the pod: that is why `/healthz`
and `/readyz` are answered here, from what the supervisor knows, and everything else is relayed
to analysis byte by byte. Analysis closes each connection after its answer, so no second request
can slip past the front desk. While analysis is away a scrape still learns that.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

HEAD_BYTES_MAX: Final = 32 * 1024
RELAY_BYTES: Final = 64 * 1024
CONNECTIONS_MAX: Final = 256
METRICS: Final = "/metrics"
AWAY_TEXT: Final = (
    b"# HELP remora_analysis_up 1 while analysis answers.\n"
    b"# TYPE remora_analysis_up gauge\n"
    b"remora_analysis_up 0\n"
)
AWAY: Final = {"error": "analysis is away and comes back by itself; traffic is served meanwhile"}
_REASONS: Final = {
    200: "OK",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}

Probe = Callable[[], Awaitable[tuple[bool, dict[str, object]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the front desk waits for others, in seconds."""

    head_s: float = 10.0
    # Until analysis begins to answer; long reports are jobs, not answers.
    answer_s: float = 30.0
    # Prometheus gives up after 10 s by default, and must hear of a hung analysis before.
    metrics_s: float = 5.0
    # Between two pieces of an answer or of a body.
    idle_s: float = 60.0
    # For a client to stop sending, once it has its answer.
    linger_s: float = 2.0


class FrontDesk:
    """Serves the admin listeners. `probes` maps a path to what answers it."""

    def __init__(
        self, *, backend: str, probes: dict[str, Probe], patience: Patience | None = None
    ) -> None:
        self._backend = backend
        self._probes = probes
        self._patience = patience or Patience()
        self.open = 0  # connections now
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
        self.open += 1
        try:
            if self.open > CONNECTIONS_MAX:
                writer.write(_answer(503, {"error": "too many admin connections"}))
            else:
                await self._converse(reader, writer)
            await writer.drain()
            await self._linger(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            # The client went away, dawdled or sent no head; there is nobody to tell.
            pass
        except asyncio.CancelledError:
            # The supervisor ends; asyncio's streams of 3.11 would log this as a crash.
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._patience.head_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            writer.write(_answer(431, {"error": f"a head has at most {HEAD_BYTES_MAX} bytes"}))
            return
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        probe = self._probes.get(path)
        if probe is None:
            answered = await self._relay(head, reader, writer, scrape=path == METRICS)
            if not answered:
                writer.write(_away(method, path))
        elif method not in (b"GET", b"HEAD"):
            writer.write(_answer(405, {"error": f"{path} is only read"}, "Allow: GET, HEAD"))
        else:
            ok, body = await probe()
            writer.write(_answer(200 if ok else 503, body, head_only=method == b"HEAD"))

    async def _relay(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        scrape: bool,
    ) -> bool:
        """Hand on a request and its answer; False when analysis did not begin to answer."""
        with socket.socket(socket.AF_UNIX) as backend:
            backend.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(backend, self._backend)
            except OSError:
                return False
            upload = _Upload(head, reader, backend, idle_s=self._patience.idle_s)
            uploading = asyncio.ensure_future(upload.run())
            wait_s = self._patience.metrics_s if scrape else self._patience.answer_s
            try:
                chunk = await _first(backend, upload, wait_s)
                if not chunk:
                    return False
                while chunk:
                    writer.write(chunk)
                    await writer.drain()
                    async with asyncio.timeout(self._patience.idle_s):
                        # It closed without reading all of the request: its answer is what counts.
                        with suppress(ConnectionResetError):
                            chunk = b""
                            chunk = await loop.sock_recv(backend, RELAY_BYTES)
                return True
            finally:
                uploading.cancel()
                with suppress(asyncio.CancelledError):
                    await uploading

    async def _linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Closing on a client that still sends would reset the connection and lose the answer."""
        if writer.can_write_eof():
            writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience.linger_s):
                while await reader.read(RELAY_BYTES):
                    pass


class _Upload:
    """A request on its way to analysis: the head, and what the client still sends.

    It writes to the socket itself: a stream that cannot write any more stops reading too, and
    the answer to a body that is too long comes while the body is still being sent.
    """

    def __init__(
        self, head: bytes, reader: asyncio.StreamReader, backend: socket.socket, *, idle_s: float
    ) -> None:
        self._head = head
        self._reader = reader
        self._backend = backend
        self._idle_s = idle_s
        self.moved_bytes = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        # Whoever hangs up or dawdles, the answer decides how this request ends.
        with suppress(OSError, TimeoutError):
            chunk = self._head
            while chunk:
                await loop.sock_sendall(self._backend, chunk)
                self.moved_bytes += len(chunk)
                async with asyncio.timeout(self._idle_s):
                    chunk = await self._reader.read(RELAY_BYTES)


async def _first(backend: socket.socket, upload: _Upload, wait_s: float) -> bytes:
    """The answer's first bytes; none when analysis hangs up, or does nothing for `wait_s`."""
    loop = asyncio.get_running_loop()
    reading = asyncio.ensure_future(loop.sock_recv(backend, RELAY_BYTES))
    try:
        while True:
            moved_bytes = upload.moved_bytes
            done, _ = await asyncio.wait({reading}, timeout=wait_s)
            if done:
                return reading.result()
            if upload.moved_bytes == moved_bytes:
                return b""
    except OSError:
        return b""
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await reading


def _away(method: bytes, path: str) -> bytes:
    if path == METRICS and method == b"GET":
        return _head(200, "text/plain; version=0.0.4; charset=utf-8", AWAY_TEXT) + AWAY_TEXT
    return _answer(503, AWAY, "Retry-After: 2", head_only=method == b"HEAD")


def _answer(
    status: int, body: dict[str, object] | dict[str, str], *more: str, head_only: bool = False
) -> bytes:
    payload = json.dumps(body).encode() + b"\n"
    head = _head(status, "application/json", payload, *more)
    return head if head_only else head + payload


def _head(status: int, media_type: str, payload: bytes, *more: str) -> bytes:
    lines = (
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(payload)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *more,
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode()
