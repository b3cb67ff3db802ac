"""The source `push`: a listener of its own for events and rows that others send.

It reads, answers and hands on; what bodies mean is `push_bodies.py`'s, who may come in is
`push_door.py`'s. Nothing here grows with what is sent: where there is no room a sender is told to
come back, and that is counted. An event that was taken is answered with exactly 200, the only
status that KServe's logger counts as delivered.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from agent.admin.server import QuietServer
from agent.admin.view import Refused
from agent.config import PushSource
from agent.decoders.decoder import DecodeLimits
from agent.sources.push_bodies import Bodies, Json, TakeLabels
from agent.sources.push_door import Gate, Room, push_server
from agent.sources.sampler import Sampler, keep_all
from agent.sources.source import Emit, SourceName

log = structlog.get_logger("remora.push")

RETRY_AFTER_S: Final = 1
# How long work is handed on before others get their turn of the event loop.
TURN_S: Final = 0.01
EXPIRE_EVERY_S: Final = 1.0
CHUNK_BYTES: Final = 65_536
Handler = Callable[[bytes, Mapping[str, str]], Awaitable[Json]]


class Push:
    """Serves on a listener that it is lent, from `run` to its end."""

    name: SourceName = "push"

    def __init__(
        self,
        source: PushSource,
        *,
        listener: socket.socket,
        take_labels: TakeLabels,
        limits: DecodeLimits | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._source = source
        self._listener = listener
        self._gate = Gate.of(source)
        self._room = Room(bytes_max=source.queue_bytes_max, items_max=source.queue_max)
        self._take_labels = take_labels
        self._dropped: Counter[str] = Counter()
        self._work = asyncio.Event()
        self._bodies = Bodies(
            source,
            limits=limits or DecodeLimits(),
            sampler=sampler or keep_all(),
            take_labels=take_labels,
            room=self._room,
        )
        self._handlers: Mapping[str, Handler] = {
            "/": self._events,
            "/api/v1/events": self._events,
            "/api/v1/rows": self._bodies.take_rows,
            "/api/v1/labels": self._labels,
        }

    @property
    def dropped(self) -> Mapping[str, int]:
        return self._dropped + self._bodies.dropped + self._bodies.pairing.dropped

    @property
    def completeness(self) -> float | None:
        """Of the exchanges that events told of, the share that had both halves."""
        return self._bodies.pairing.completeness

    async def run(self, emit: Emit) -> None:
        """Serve, and hand on what is taken. Raises `OSError` or `ValueError` when it cannot."""
        server = QuietServer(push_server(self._application, self._source, self._dropped))
        # The server closes what it serves on; the listener itself is only lent.
        serving = asyncio.get_running_loop().create_task(
            server.serve(sockets=[self._listener.dup()])
        )
        handing = asyncio.get_running_loop().create_task(self._hand_on(emit))
        try:
            await asyncio.wait({serving, handing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            handing.cancel()
            await asyncio.gather(serving, handing, return_exceptions=True)
            self._hand_on_some(emit, until=float("inf"))
        if not serving.cancelled() and (error := serving.exception()) is not None:
            raise OSError(f"the push listener cannot serve: {error!r}") from error

    # Handing on.

    async def _hand_on(self, emit: Emit) -> None:
        while True:
            try:
                async with asyncio.timeout(EXPIRE_EVERY_S):
                    await self._work.wait()
            except TimeoutError:
                self._bodies.pairing.expire(time.time())
                continue
            self._hand_on_some(emit, until=time.monotonic() + TURN_S)
            await asyncio.sleep(0)

    def _hand_on_some(self, emit: Emit, *, until: float) -> None:
        queue = self._bodies.queue
        while queue:
            waiting = queue.popleft()
            self._room.give_back(waiting.bytes)
            self._room.items -= 1
            emit(waiting.taken)
            if time.monotonic() >= until:
                return
        self._work.clear()

    # Requests.

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"  # the server speaks neither WebSocket nor lifespan
        request = Request(scope, receive)
        try:
            response: Response = JSONResponse(await self._answer(request))
        except Refused as refused:
            response = self._refusal(refused)
        except ClientDisconnect:
            self._dropped["sender_left"] += 1
            return
        except Exception:
            # Bytes from outside found a fault of ours: it costs this request, not the listener.
            self._dropped["push_failed"] += 1
            log.exception("a pushed request failed", path=scope["path"])
            response = self._refusal(Refused(500, "internal error; see the agent's log"))
        self._work.set()
        await response(scope, receive, send)

    def _refusal(self, refused: Refused) -> Response:
        # What is left of the body is not read: the connection cannot be used again.
        headers = {"Connection": "close"}
        if refused.status == 429:
            headers["Retry-After"] = str(RETRY_AFTER_S)
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="remora"'
        if refused.status == 405:
            headers["Allow"] = "POST"
        return JSONResponse({"error": refused.reason}, refused.status, headers=headers)

    async def _answer(self, request: Request) -> Json:
        headers = _headers(request)
        path = self._gate.admits(request.url.path, headers.get("authorization", ""))
        if path is None:
            self._dropped["unauthorised"] += 1
            if self._gate.auth == "path_token":
                raise Refused(404, "nothing is here")  # a path that is wrong, or a token
            raise Refused(401, "a bearer token is needed")
        handler = self._handlers.get(path)
        if handler is None:
            raise Refused(404, f"nothing is here; there are {', '.join(self._handlers)}")
        if request.method != "POST":
            raise Refused(405, "only POST brings anything in")
        reserved = 0
        try:
            body, reserved = await self._read(request, headers)
            return await handler(body, headers)
        finally:
            self._room.give_back(reserved)

    async def _read(self, request: Request, headers: Mapping[str, str]) -> tuple[bytes, int]:
        """The body, and how much room was taken for it. Raises `Refused`."""
        most = self._source.body_bytes_max
        said = headers.get("content-length", "")
        expected = int(said) if said.isdecimal() and len(said) < 18 else 0
        if expected > most:
            self._dropped["body_too_large"] += 1
            raise Refused(413, f"the body is longer than {most} bytes")
        reserved = 0
        parts: list[bytes] = []
        size = 0
        try:
            reserved = self._reserve(max(expected, 1))
            async with asyncio.timeout(self._source.body_timeout_s):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        self._dropped["body_too_large"] += 1
                        raise Refused(413, f"the body is longer than {most} bytes")
                    if size > reserved:
                        reserved += self._reserve(max(size - reserved, CHUNK_BYTES))
                    parts.append(part)
        except BaseException as error:
            self._room.give_back(reserved)
            if isinstance(error, TimeoutError):
                self._dropped["slow_sender"] += 1
                raise Refused(408, "the body did not come in time") from None
            raise
        return b"".join(parts), reserved

    def _reserve(self, count: int) -> int:
        if not self._room.take(count):
            self._dropped["shed"] += 1
            raise Refused(429, "too much is waiting for analysis: send it again later")
        return count

    async def _events(self, body: bytes, headers: Mapping[str, str]) -> Json:
        return self._bodies.take_events(body, headers)

    async def _labels(self, body: bytes, headers: Mapping[str, str]) -> Json:
        return await self._take_labels(body, headers.get("content-type", "application/json"))


def _headers(request: Request) -> dict[str, str]:
    """Lower-case names; repeated ones joined, bytes beyond ASCII as UTF-8 where they are that."""
    found: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        name = raw_name.decode("latin-1")
        try:
            value = raw_value.decode()
        except UnicodeDecodeError:
            value = raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
