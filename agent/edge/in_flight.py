"""The request that a client's connection is serving: its answer, and what is counted of it.

The connection itself, who reads and forwards, is `proxy.Client`. What must not break here: every
answer carries the request's id and the version that gave it, and every request that was begun is
recorded once, whatever becomes of it. Limits in time are looked at a few times a second (`sweep`),
never set and cleared for each request.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.edge.answers import CONNECTION_CLOSE, error_answer
from agent.edge.counters import CODE_OF_OUTCOME
from agent.edge.heads import RequestHead
from agent.edge.upstream import TIMEOUT

if TYPE_CHECKING:
    from agent.edge.capture import Tape
    from agent.edge.counters import Cell
    from agent.edge.edge import Edge
    from agent.edge.routing import Slot
    from agent.edge.shadow import Draft

# Where a connection is: between requests; reading a body; all read and the answer awaited; passing
# bytes both ways; throwing away what a refused client still sends; gone.
IDLE, BODY, WAIT, TUNNEL, LINGER, CLOSED = range(6)
_EMPTY_LINES_BYTES: Final = 4  # what is between a head's last line and a body
_now = time.monotonic


class InFlight(asyncio.Protocol):
    """`head` is there exactly while a request is in flight; the rest is of that request.

    What most requests never set stays as it is between them: `_status`, `_first_byte_s`,
    `_tracked`, `_draft` and `_tape` are put back by whoever has set them.
    """

    __slots__ = (
        "_cell",
        "_draft",
        "_edge",
        "_first_byte_s",
        "_held",
        "_id",
        "_moved",
        "_moved_at",
        "_sent",
        "_slot",
        "_stage",
        "_started",
        "_status",
        "_stuck",
        "_tape",
        "_touched",
        "_tracked",
        "_unsent_bytes",
        "_write_paused",
        "bodiless",
        "half_closed",
        "head",
        "keep",
        "plain",
        "transport",
        "write_bytes",
    )

    def __init__(self, edge: "Edge") -> None:
        self.transport: asyncio.Transport
        self.write_bytes: Callable[[bytes], None]  # the transport's
        self.head: RequestHead | None = None
        self.bodiless = False  # HEAD: the answer has the head of one with a body
        self.keep = True  # the connection, after this request
        self.plain = False  # all read, kept, nothing held back: `answered` may take the answer
        self.half_closed = False
        self._edge = edge
        self._stage = IDLE
        self._touched = 0.0  # when the connection came to this stage
        self._held = b""  # of a head that is not whole yet
        self._stuck = False  # the client does not read its answers: no further request is begun
        self._write_paused = False
        # For the limit on silence: whether bytes have passed since the last sweep, when that was
        # last so, and how many were waiting for a slow reader then.
        self._moved = False
        self._moved_at = 0.0
        self._unsent_bytes = 0
        self._id = b""
        self._slot: Slot
        self._cell: Cell
        self._tape: Tape | None = None
        self._draft: Draft | None = None  # of the copy that the candidate is to get
        self._tracked = False  # a candidate was routed when it began: its outcome is told
        self._sent: list[bytes] | None = None  # the request so far, while it may be sent again
        self._started = 0.0
        self._first_byte_s: float | None = None
        self._status = 0  # 0 until the final response has begun

    # Called by the upstream connection.

    def may_tunnel(self) -> bool:
        return self.head is not None and bool(self.head.upgrade)

    def response_begun(self) -> None:
        self._sent = None

    def interim(self, data: bytes) -> None:
        self._sent = None
        assert self.head is not None
        if self.head.line.version_1_1:
            self.write(data)

    def answer(self, status: int, opening: bytes, tail: bytes) -> None:
        """The response's head up to where the id belongs, and the bytes from the head's end on."""
        self._first_byte_s = _now() - self._started
        self._status = status
        self._sent = None
        if self._stage == BODY or self._edge.draining:
            self.keep = False
        ours = self._slot.answer_head
        if not self.keep and status != 101:
            ours += CONNECTION_CLOSE
        data = b"".join((opening, self._id, ours, tail))
        self.write_bytes(data)
        if self._tape is not None:
            if len(tail) > _EMPTY_LINES_BYTES:
                self._tape.first_body_s = self._first_byte_s
            self._tape.add_response(data)

    def write(self, data: bytes) -> None:
        self._moved = True
        self.write_bytes(data)
        tape = self._tape
        if tape is not None:
            if self._status and tape.first_body_s is None:
                tape.first_body_s = _now() - self._started
            tape.add_response(data)

    @abstractmethod
    def failed(self, outcome: int) -> None:
        """There will be no response, or not all of it."""

    def _record(self, outcome: int, now: float) -> None:
        head, self.head = self.head, None
        assert head is not None
        duration_s = now - self._started
        first_byte_s = self._first_byte_s
        status = self._status
        self._status = 0
        self._first_byte_s = None
        self.plain = False
        self._cell.finished(outcome, status, duration_s, first_byte_s)
        edge = self._edge
        if self._tracked:
            self._tracked = False
            key = head.key or self._id
            edge.outcome(self._slot, outcome, status, duration_s, first_byte_s, key)
            draft, self._draft = self._draft, None
            if draft is not None and not outcome:
                edge.shadows.begin(draft)
        if self._tape is not None:
            code = status // 100 - 1 if status else CODE_OF_OUTCOME[outcome]
            self._keep(self._tape, head, outcome, duration_s, first_byte_s, code)

    def _keep(
        self,
        tape: "Tape",
        head: RequestHead,
        outcome: int,
        duration_s: float,
        first_byte_s: float | None,
        code: int,
    ) -> None:
        self._tape = None
        edge = self._edge
        slot = self._slot
        edge.capture.keep(
            tape,
            slot.code,
            slot.version_bytes,
            self._id,
            head.id_from,
            outcome,
            self._started + edge.wall_offset_s,
            first_byte_s,
            duration_s,
            False,
            code,
        )

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

    # Refusing, and ending.

    def _refuse(self, status: int, reason: str) -> None:
        """Not a byte of the request has reached an upstream."""
        self._edge.counters.refuse(reason)
        self._id = self._edge.minter.mint()
        self._slot = self._edge.router.stable
        self._write_error(status, reason, keep=False)
        self._linger()

    def _linger(self) -> None:
        """Closing at once would reset the connection, and the answer might never be read."""
        self._stage = LINGER
        self._touched = _now()
        self._held = b""
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS says goodbye first, and waits for the other's goodbye

    # Limits in time.

    def sweep(self, now: float) -> None:
        """Called a few times a second for each connection."""
        settings = self._edge.settings
        if self.head is not None:
            if now - self._started > settings.total_timeout_s or self._silent(now):
                self.failed(TIMEOUT)
        elif self._stage == IDLE:
            limit_s = settings.head_timeout_s if self._held else settings.client_idle_s
            if now - self._touched > limit_s:
                self.transport.close()
        elif self._stage == LINGER or self._stuck:
            limit_s = settings.client_idle_s if self._stuck else settings.linger_s
            if now - self._touched > limit_s:
                self.transport.abort()
        elif self._stage == TUNNEL and self._silent(now):
            self.transport.abort()

    def _silent(self, now: float) -> bool:
        """Whether no byte has passed either way for too long, as far as sweeps can tell."""
        limit_s = self._edge.settings.stall_timeout_s
        if not limit_s:
            return False
        unsent_bytes = self.unsent_bytes()
        if self._moved or unsent_bytes != self._unsent_bytes:
            self._moved = False
            self._unsent_bytes = unsent_bytes
            self._moved_at = now
        return now - max(self._started, self._moved_at) > limit_s

    def unsent_bytes(self) -> int:
        """Waiting for either side to read: a slow reader shows in this growing less."""
        return self.transport.get_write_buffer_size()

    def drain(self) -> None:
        """The answer under way is the last one; between two of them, the next one will be.

        To close an idle connection at once would cut off a request that is on its way to us.
        """
        self.keep = self.plain = False

    def close_idle(self) -> None:
        """Nobody has asked again: enough waited."""
        if self._stage == IDLE:
            self.transport.close()
