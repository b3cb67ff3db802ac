"""The relay: one client's connection, from the first byte of a request to the last of its answer.

Relay first, copy second: every byte is on its way to the other side before capture sees it. What
must not break: nothing is forwarded that llhttp has not accepted, a head only whole, and a message
only up to its own end. Requests that a client pipelines are served one after the other, so that
each is routed, answered and counted by itself and the order stays right.
"""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final, cast

from agent.edge.answers import CONNECTION_CLOSE, REQUEST_ID, error_answer
from agent.edge.channel import OUTCOME_NAMES
from agent.edge.framing import Refused, RequestFraming
from agent.edge.heads import RequestHead
from agent.edge.upstream import TIMEOUT, UNREACHABLE, UpstreamConnection

if TYPE_CHECKING:
    from agent.edge.capture import Tape
    from agent.edge.counters import Cell
    from agent.edge.edge import Edge
    from agent.edge.routing import Slot

# Where a connection is: between requests; reading a body; all read and the answer awaited; passing
# bytes both ways; throwing away what a refused client still sends; gone.
IDLE, BODY, WAIT, TUNNEL, LINGER, CLOSED = range(6)
OK: Final = OUTCOME_NAMES.index("ok")
DISCONNECT: Final = OUTCOME_NAMES.index("client_disconnect")
_STATUS: Final = {UNREACHABLE: 502, TIMEOUT: 504}
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_now = time.monotonic


class Client(asyncio.Protocol):
    """One accepted connection. `head` is there exactly while a request is in flight."""

    __slots__ = (
        "_attempt",
        "_cell",
        "_edge",
        "_first_byte_s",
        "_framing",
        "_held",
        "_id",
        "_sent",
        "_sent_bytes",
        "_slot",
        "_stage",
        "_started",
        "_status",
        "_stuck",
        "_tape",
        "_touched",
        "_tracked",
        "_upstream",
        "_write_paused",
        "bodiless",
        "half_closed",
        "head",
        "keep",
        "transport",
    )

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge
        self.transport: asyncio.Transport
        self._framing = RequestFraming(edge.reader)
        self._stage = IDLE
        self._held = b""  # of a head that is not whole yet
        self._touched = 0.0
        self._write_paused = False
        self._stuck = False  # the client does not read its answers: no further request is begun
        self._attempt = 0  # at connecting; an older attempt's result is nobody's any more
        self.half_closed = False
        self.bodiless = False  # HEAD: the answer has the head of one with a body
        self.keep = True
        self.head: RequestHead | None = None
        self._id = b""
        self._slot: Slot
        self._cell: Cell
        self._tape: Tape | None = None
        self._tracked = False
        self._upstream: UpstreamConnection | None = None
        self._sent: list[bytes] | None = None  # the request so far, while it may be sent again
        self._sent_bytes = 0
        self._started = 0.0
        self._first_byte_s: float | None = None
        self._status = 0

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self.transport = cast(asyncio.Transport, transport)
        self._touched = _now()
        if self._edge.settings.forwarded:
            self._framing.peer = _peer(self.transport)
        if not self._edge.admit(self):
            self._refuse(503, "connections_max")

    def data_received(self, data: bytes) -> None:
        stage = self._stage
        if stage == IDLE:
            self._begin(self._held + data if self._held else data)
        elif stage == BODY:
            self._body(data)
        elif stage == WAIT:
            self._framing.rest += data
            if len(self._framing.rest) > self._edge.settings.pipelined_bytes_max:
                self.transport.pause_reading()
        elif stage == TUNNEL:
            assert self._upstream is not None
            self._upstream.transport.write(data)

    def eof_received(self) -> bool:
        self.half_closed = True
        upstream = self._upstream
        if self._stage == TUNNEL and upstream is not None and upstream.transport.can_write_eof():
            upstream.transport.write_eof()
            return not upstream.half_closed
        return False  # a client that has closed its side waits for nothing (as nginx sees it)

    def connection_lost(self, exc: Exception | None) -> None:
        tunnel = self._stage == TUNNEL
        self._stage = CLOSED
        self._attempt += 1
        self._edge.left(self)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.client = None
            if tunnel:
                upstream.transport.close()
            else:
                upstream.close()
        if self.head is not None:
            self._record(DISCONNECT, _now())
        self._framing.close()
        self._sent = None
        self._held = b""

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._upstream is not None:
            self._upstream.pause()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._upstream is not None:
            self._upstream.resume()
        if self._stuck:
            self._stuck = False
            self._next(_now())

    # Reading a request.

    def _begin(self, data: bytes) -> None:
        if data[0] == 13:
            data = _without_empty_lines(data)
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > self._edge.settings.head_bytes_max:
            self._incomplete(data, end)
            return
        self._held = b""
        framing = self._framing
        try:
            head, data = framing.begin(data, end)
        except Refused:
            self._refuse(400, "bad_request")
            return
        self._stage = WAIT if framing.complete else BODY
        self._start(head, data)

    def _incomplete(self, data: bytes, end: int) -> None:
        if end > 0 or len(data) > self._edge.settings.head_bytes_max:
            self._refuse(431, "head_too_large")
        elif _BARE_LF.search(data):
            self._refuse(400, "bad_request")
        else:
            if not self._held:
                self._touched = _now()
            self._held = data

    def _body(self, data: bytes) -> None:
        try:
            data = self._framing.more(data)
        except Refused:
            self._bad_body()
            return
        if self._framing.complete:
            self._stage = WAIT
        self._forward(data)

    def _bad_body(self) -> None:
        self._edge.counters.refuse("bad_request")
        self._drop_upstream()
        answered = self._status != 0
        if not answered:
            self._write_error(400, "bad_request", keep=False)
            self._status = 400
        self._record(OK, _now())
        if answered:
            self.transport.abort()
        else:
            self._linger()

    # Sending it on.

    def _start(self, head: RequestHead, data: bytes) -> None:
        edge = self._edge
        now = self._started = _now()
        self.head = head
        self.keep = head.keep
        self.bodiless = head.line.bodiless
        id = self._id = head.id or edge.minter.mint()
        router = edge.router
        if router.candidate is None:
            slot = router.stable
            self._tracked = False
        else:
            slot = router.pick(head.key or id, now)
            self._tracked = router.weight(now) > 0.0
        self._slot = slot
        cell = self._cell = slot.cells[head.line.route]
        cell.in_flight += 1
        edge.counters.in_flight += 1
        self._status = 0
        self._first_byte_s = None
        self._sent = [data]
        self._sent_bytes = len(data)
        upstream = slot.pool.take(now)
        if upstream is None:
            self._connect()
        else:
            self._upstream = upstream
            if self._sent_bytes > edge.settings.retry_bytes_max:
                self._sent = None
            upstream.serve(self, data)
        if edge.capture.on:
            tape = self._tape = edge.capture.begin(id)
            if tape is not None:
                tape.add_request(data)

    def _forward(self, data: bytes) -> None:
        upstream = self._upstream
        if self._sent is not None:
            self._sent.append(data)
            self._sent_bytes += len(data)
            if self._sent_bytes > self._edge.settings.retry_bytes_max:
                if upstream is None:
                    self.transport.pause_reading()
                else:
                    self._sent = None
        if upstream is not None:
            upstream.transport.write(data)
        if self._tape is not None:
            self._tape.add_request(data)

    def _connect(self) -> None:
        self._attempt += 1
        self._edge.connect(self, self._slot, self._attempt)

    def connected(self, upstream: UpstreamConnection, attempt: int) -> bool:
        """False when nobody waits for this connection any more."""
        if attempt != self._attempt or self._sent is None or self.head is None:
            return False
        data = self._sent[0] if len(self._sent) == 1 else b"".join(self._sent)
        self._upstream = upstream
        if self._write_paused:
            upstream.pause()
        upstream.serve(self, data)
        if self._sent_bytes > self._edge.settings.retry_bytes_max:
            self._sent = None
        self.resume()
        return True

    def not_connected(self, attempt: int, outcome: int) -> None:
        if attempt == self._attempt and self.head is not None:
            self.failed(outcome)

    def resume(self) -> None:
        if (
            self._stage != CLOSED
            and len(self._framing.rest) <= self._edge.settings.pipelined_bytes_max
        ):
            self.transport.resume_reading()

    def upstream_lost(self, upstream: UpstreamConnection) -> None:
        """It closed before the response was whole."""
        self._upstream = None
        if self._stage == TUNNEL:
            self.transport.close()
        elif self._sent is not None and upstream.served:
            # The server closed an idle connection just as we took it: this is not its answer.
            self._edge.counters.retries += 1
            self._connect()
        else:
            self.failed(UNREACHABLE)

    def failed(self, outcome: int) -> None:
        """There will be no response, or not all of it."""
        self._drop_upstream()
        now = _now()
        if self._status:
            self._record(outcome, now)
            self.transport.abort()  # an answer that was begun must not look whole
            return
        keep = self.keep and self._stage == WAIT
        self.keep = keep
        self._write_error(_STATUS[outcome], OUTCOME_NAMES[outcome], keep=keep)
        self._record(outcome, now)
        self._next(now)

    def _drop_upstream(self) -> None:
        self._attempt += 1
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    # Giving the response back; called by the upstream connection.

    def may_tunnel(self) -> bool:
        return self.head is not None and bool(self.head.upgrade)

    def response_begun(self) -> None:
        self._sent = None

    def interim(self, data: bytes) -> None:
        self._sent = None
        assert self.head is not None
        if self.head.line.version_1_1:
            self.write(data)

    def answer(self, status: int, head: bytes, tail: bytes) -> None:
        """The response's head, edited and without its end, and the bytes from its end on."""
        self._first_byte_s = _now() - self._started
        self._status = status
        self._sent = None
        if self._stage == BODY or self._edge.draining:
            self.keep = False
        if self.keep or status == 101:
            parts = (head, REQUEST_ID, self._id, self._slot.answer_head, tail)
        else:
            parts = (head, REQUEST_ID, self._id, self._slot.answer_head + CONNECTION_CLOSE, tail)
        data = b"".join(parts)
        self.transport.write(data)
        if self._tape is not None:
            self._tape.add_response(data)

    def write(self, data: bytes) -> None:
        self.transport.write(data)
        if self._tape is not None:
            self._tape.add_response(data)

    def finished(self, upstream: UpstreamConnection, *, keep: bool) -> None:
        """The response is whole."""
        now = _now()
        self._upstream = None
        upstream.release(now, keep=keep and self._stage == WAIT)
        self._record(OK, now)
        self._next(now)

    def tunnel(self) -> None:
        """From here on it is not HTTP: what both sides send is passed on and not captured."""
        self._record(OK, _now())
        self._stage = TUNNEL
        rest, self._framing.rest = self._framing.rest, b""
        if rest and self._upstream is not None:
            self._upstream.transport.write(rest)
        self.transport.resume_reading()

    def _record(self, outcome: int, now: float) -> None:
        head, self.head = self.head, None
        assert head is not None
        duration_s = now - self._started
        first_byte_s = self._first_byte_s
        self._cell.finished(outcome, self._status, duration_s, first_byte_s)
        edge = self._edge
        edge.counters.in_flight -= 1
        if self._tracked:
            key = head.key or self._id
            edge.outcome(self._slot, outcome, self._status, duration_s, first_byte_s, key)
        tape = self._tape
        if tape is not None:
            self._tape = None
            edge.capture.keep(
                tape,
                slot=self._slot.code,
                version=self._slot.version_bytes,
                id=self._id,
                id_from=head.id_from,
                outcome=outcome,
                started_at=self._started + edge.wall_offset_s,
                first_byte_s=first_byte_s,
                duration_s=duration_s,
            )

    def _next(self, now: float) -> None:
        if self._stage == CLOSED:
            return
        if self._stage == BODY or (not self.keep and self._framing.rest):
            self._linger()
        elif not self.keep:
            self._stage = CLOSED
            self.transport.close()
        elif self._write_paused:
            self._stage = WAIT
            self._stuck = True
            self._touched = now
        else:
            self._stage = IDLE
            self._touched = now
            rest = self._framing.rest
            if rest:
                self._framing.rest = b""
                self.transport.resume_reading()
                self._begin(rest)

    # Refusing, and ending.

    def _refuse(self, status: int, reason: str) -> None:
        """Not a byte of the request has reached an upstream."""
        self._edge.counters.refuse(reason)
        self._id = self._edge.minter.mint()
        self._slot = self._edge.router.stable
        self._write_error(status, reason, keep=False)
        self._linger()

    def _write_error(self, status: int, reason: str, *, keep: bool) -> None:
        self.transport.write(
            error_answer(
                status,
                reason,
                id=self._id,
                answer_head=self._slot.answer_head,
                keep=keep,
                bodiless=self.head is not None and self.bodiless,
            )
        )

    def _linger(self) -> None:
        """Closing at once would reset the connection, and the answer might never be read."""
        self._stage = LINGER
        self._touched = _now()
        self._held = self._framing.rest = b""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()

    def sweep(self, now: float) -> None:
        """Called a few times a second for each connection: the limits in time."""
        settings = self._edge.settings
        if self.head is not None:
            if now - self._started > settings.total_timeout_s:
                self.failed(TIMEOUT)
        elif self._stage == IDLE:
            limit_s = settings.head_timeout_s if self._held else settings.client_idle_s
            if now - self._touched > limit_s:
                self.transport.close()
        elif self._stage == LINGER or self._stuck:
            limit_s = settings.client_idle_s if self._stuck else settings.linger_s
            if now - self._touched > limit_s:
                self.transport.abort()

    def drain(self) -> None:
        """No further request: between two of them the connection is closed now."""
        self.keep = False
        if self._stage == IDLE:
            self.transport.close()


def _without_empty_lines(data: bytes) -> bytes:
    while data.startswith(b"\r\n"):  # allowed before a request line (RFC 9112 2.2)
        data = data[2:]
    return data


def _peer(transport: asyncio.Transport) -> bytes:
    """The client's address as X-Forwarded-For has it; over a Unix socket there is none."""
    name = transport.get_extra_info("peername")
    return str(name[0]).encode() if isinstance(name, tuple) else b"unknown"
