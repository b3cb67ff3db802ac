"""The relay: one client's connection, from the first byte of a request to the last of its answer.

Relay first, copy second: every byte is on its way to the other side before capture sees it. What
must not break: nothing is forwarded that llhttp has not accepted, a head only whole, and a message
only up to its own end. Requests that a client pipelines are served one after the other, so that
each is routed, answered and counted by itself and the order stays right.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from agent.edge.channel import OUTCOME_NAMES
from agent.edge.frames import HTTP2_LINE
from agent.edge.framing import (
    Refused,
    RequestFraming,
    has_bare_line_feed,
    peer_of,
    without_empty_lines,
)
from agent.edge.heads import RequestHead
from agent.edge.in_flight import BODY, CLOSED, IDLE, TUNNEL, WAIT, InFlight
from agent.edge.unread import unread
from agent.edge.upstream import TIMEOUT, UNREACHABLE, UpstreamConnection

if TYPE_CHECKING:
    from agent.edge.answer_heads import AnswerHead
    from agent.edge.edge import Edge
    from agent.edge.routing import Slot

OK: Final = OUTCOME_NAMES.index("ok")
DISCONNECT: Final = OUTCOME_NAMES.index("client_disconnect")
_STATUS: Final = {UNREACHABLE: 502, TIMEOUT: 504}
_now = time.monotonic


class Client(InFlight):
    """One accepted connection."""

    __slots__ = ("_attempt", "_framing", "_sent_bytes", "_upstream")

    def __init__(self, edge: "Edge") -> None:
        super().__init__(edge)
        self._framing = RequestFraming(edge.reader, edge.templates)
        self._attempt = 0  # at connecting; an older attempt's result is nobody's any more
        self._upstream: UpstreamConnection | None = None
        self._sent_bytes = 0

    def came(self, peer: bytes, scheme: bytes) -> None:
        """By a door that knows more than the socket does."""
        if self._edge.settings.forwarded:
            self._framing.peer = peer
        self._framing.scheme = scheme

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self.transport = cast(asyncio.Transport, transport)
        self.write_bytes = self.transport.write
        self._touched = _now()
        if self._edge.settings.forwarded and not self._framing.peer:
            self._framing.peer = peer_of(self.transport.get_extra_info("peername"))
        if not self._edge.admit(self):
            self._refuse(503, "connections_max")

    def data_received(self, data: bytes) -> None:
        stage = self._stage
        if stage == IDLE:
            framing = self._framing
            last = framing.last
            if len(data) == last.size and data.startswith(last.text) and not self._held:
                # The same kind of thing again, in one piece.
                self._stage = WAIT
                self._start(last, framing.again(data) if last.forwarded else data)
            elif framing.alike is not None and not self._held:
                # The same kind of thing with another id.
                found = framing.alike(data)
                if found is None:
                    self._begin(data)
                else:
                    self._stage = WAIT
                    self._start(framing.kin, found)
            else:
                self._begin(self._held + data if self._held else data)
        elif stage == BODY:
            self._body(data)
        elif stage == WAIT:
            self._framing.rest += data
            self.plain = False
            if len(self._framing.rest) > self._edge.settings.pipelined_bytes_max:
                self.transport.pause_reading()
        elif stage == TUNNEL:
            assert self._upstream is not None
            self._moved = True
            self._upstream.transport.write(data)

    def eof_received(self) -> bool:
        self.half_closed = True
        upstream = self._upstream
        if self._stage == TUNNEL and upstream is not None and upstream.transport.can_write_eof():
            upstream.transport.write_eof()
            return not upstream.half_closed and self.transport.can_write_eof()
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
        self._sent = None
        self._held = self._framing.rest = b""

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
            data = without_empty_lines(data)
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > self._edge.settings.head_bytes_max:
            self._incomplete(data, end)
            return
        self._held = b""
        if data.startswith(HTTP2_LINE) and not self._started:
            self._stage = CLOSED
            self._edge.splice(self, data)
            return
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
        elif has_bare_line_feed(data):
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
        self.plain = head.plain and self._stage == WAIT and not self._framing.rest
        if edge.draining:
            self.drain()
        ids = edge.minter.ids
        id = self._id = head.id or (ids.pop() if ids else edge.minter.mint())
        slot = edge.router.stable
        if edge.router.candidate is not None:
            slot = self._pick(head, id, now)
            if self._draft is not None:
                self._draft.add(data)
        self._slot = slot
        cell = self._cell = slot.cells[head.line.route]
        cell.in_flight += 1
        self._sent = [data]
        self._sent_bytes = len(data)
        upstream = slot.pool.take(now)
        if upstream is None:
            self._connect()
        else:
            self._upstream = upstream
            if self._sent_bytes > edge.settings.retry_bytes_max:
                self._sent = None
            upstream.client = self
            upstream.write(data)
        if edge.capture.on:
            self._tape = edge.capture.begin(id, data)

    def _pick(self, head: RequestHead, id: bytes, now: float) -> "Slot":
        router = self._edge.router
        slot = router.pick(head.key or id, now)
        self._tracked = router.watched(now)
        if self._tracked:
            self.plain = False
            if slot is router.stable and router.copies(id):
                self._draft = self._edge.shadows.draft(head, id)
        return slot

    def _forward(self, data: bytes) -> None:
        self._moved = True
        upstream = self._upstream
        if self._draft is not None:
            self._draft.add(data)
        if self._sent is not None:
            self._sent.append(data)
            self._sent_bytes += len(data)
            if self._sent_bytes > self._edge.settings.retry_bytes_max:
                if upstream is None:
                    self.transport.pause_reading()
                else:
                    self._sent = None
        if upstream is not None:
            upstream.write(data)
        if self._tape is not None:
            self._tape.add_request(data)

    def unsent_bytes(self) -> int:
        upstream = self._upstream
        waiting = 0 if upstream is None else upstream.transport.get_write_buffer_size()
        return self.transport.get_write_buffer_size() + waiting

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
        elif self._sent is not None and upstream.idle_since and self._may_repeat(upstream):
            # The server closed an idle connection just as we took it: this is not its answer.
            self._edge.counters.retries += 1
            self._connect()
        else:
            self.failed(UNREACHABLE)

    def _may_repeat(self, upstream: UpstreamConnection) -> bool:
        head = self.head
        if head is not None and head.line.idempotent:
            return True
        return unread(upstream.transport, self._sent_bytes, upstream.error)

    def failed(self, outcome: int) -> None:
        slow_client = self._stage == BODY and self.transport.is_reading()
        self._drop_upstream()
        now = _now()
        if self._status:
            self._record(outcome, now)
            self.transport.abort()  # an answer that was begun must not look whole
            return
        keep = self.keep and self._stage == WAIT
        self.keep = keep
        status = 408 if outcome == TIMEOUT and slow_client else _STATUS[outcome]
        self._write_error(status, OUTCOME_NAMES[outcome], keep=keep)
        self._record(outcome, now)
        self._next(now)

    def _drop_upstream(self) -> None:
        self._attempt += 1
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    # Giving the response back; called by the upstream connection.

    def answered(self, upstream: UpstreamConnection, head: "AnswerHead", data: bytes) -> None:
        """The whole response to a plain request, with a head that llhttp has accepted before.

        What `answer`, `finished`, `_record` and `_next` do for any response, in one function: calls
        cost more here than what they do.
        """
        now = _now()
        duration_s = now - self._started
        data = b"".join((head.opening, self._id, self._slot.answer_head, data[head.end :]))
        self.write_bytes(data)
        tape = self._tape
        if tape is not None:
            assert self.head is not None
            if head.size > len(head.text):
                tape.first_body_s = duration_s
            tape.add_response(data)
            self._keep(tape, self.head, OK, duration_s, duration_s, head.code)
        self._cell.answered(head.code, duration_s)
        self.head = self._sent = self._upstream = None
        upstream.client = None
        upstream.back(now)
        if self._write_paused:
            self._next(now)
        else:
            self._stage = IDLE
            self._touched = now

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
