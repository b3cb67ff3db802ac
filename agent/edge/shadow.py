"""Copies of requests to the candidate, whose answers no client sees.

A copy leaves after the client has its answer, on a connection of the candidate's, within a budget
of its own: whatever the candidate does, slow, dead or garbled, costs copies and nothing else. What
must not break here: nothing waits for a copy, and every copy that was begun ends in one count.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from agent.edge.channel import OUTCOME_NAMES
from agent.edge.heads import RequestHead
from agent.edge.upstream import TIMEOUT, UNREACHABLE, UpstreamConnection, connect

if TYPE_CHECKING:
    from agent.edge.answer_heads import AnswerHead
    from agent.edge.capture import Tape
    from agent.edge.edge import Edge
    from agent.edge.routing import Slot

# Why a copy was not made, beside the outcomes of those that were.
BUSY: Final = "busy"
TOO_LARGE: Final = "too_large"
ENDED: Final = "ended"
_OK: Final = OUTCOME_NAMES.index("ok")
# So that a server can leave out what must happen once, as charging for it.
_MARK: Final = b"\r\nx-remora-shadow: 1"
_now = time.monotonic


class Draft:
    """The request of a client, gathered by reference while it is forwarded."""

    __slots__ = ("_bytes_max", "chunks", "head", "id", "size", "slot")

    def __init__(self, slot: "Slot", head: RequestHead, id: bytes, bytes_max: int) -> None:
        self.slot = slot
        self.head = head
        self.id = id
        self.chunks: list[bytes] | None = []
        self.size = 0
        self._bytes_max = bytes_max

    def add(self, data: bytes) -> None:
        if self.chunks is None:
            return
        self.size += len(data)
        if self.size > self._bytes_max:
            self.chunks = None
        else:
            self.chunks.append(data)


class Shadows:
    """Every copy that is under way, and their counts."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge
        self._settings = edge.settings
        self.counts: Counter[str] = Counter()
        self._copies: set[Copy] = set()

    def draft(self, head: RequestHead, id: bytes) -> Draft | None:
        """Only what asks for predictions is copied: a GET may be a probe, a PUT a change."""
        slot = self._edge.router.candidate
        if slot is None or head.line.method != b"POST" or head.upgrade:
            return None
        return Draft(slot, head, id, self._settings.shadow_request_bytes_max)

    def begin(self, draft: Draft) -> None:
        """The client has its answer: now the candidate is asked, if there is room."""
        if draft.chunks is None:
            self.counts[TOO_LARGE] += 1
        elif len(self._copies) >= self._settings.shadow_in_flight_max:
            self.counts[BUSY] += 1
        elif draft.slot is not self._edge.router.candidate:
            self.counts[ENDED] += 1
        else:
            copy = Copy(self._edge, self, draft, b"".join(draft.chunks))
            self._copies.add(copy)
            copy.start()

    def waits_for(self, copy: "Copy") -> bool:
        """Whether it has not ended yet: it may have, while it was connecting."""
        return copy in self._copies

    def done(self, copy: "Copy", outcome: str) -> None:
        self._copies.discard(copy)
        self.counts[outcome] += 1

    def sweep(self, now: float) -> None:
        timeout_s = self._settings.shadow_timeout_s
        for copy in [copy for copy in self._copies if now - copy.started > timeout_s]:
            copy.failed(TIMEOUT)

    def close(self) -> None:
        for copy in list(self._copies):
            copy.end(ENDED)


class _NoTransport:
    """What an upstream connection asks of a client's transport; nobody is there to be slowed."""

    def pause_reading(self) -> None:
        """The candidate does not take the request: the timeout will tell."""

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        """Never asked: a copy is no tunnel."""


class Copy:
    """One copy: what a client is to an upstream connection, without anybody behind it."""

    __slots__ = (
        "_data",
        "_draft",
        "_edge",
        "_first_byte_s",
        "_shadows",
        "_status",
        "_tape",
        "_upstream",
        "bodiless",
        "half_closed",
        "keep",
        "plain",
        "started",
        "transport",
    )

    def __init__(self, edge: "Edge", shadows: Shadows, draft: Draft, data: bytes) -> None:
        self.bodiless = False
        self.half_closed = False
        self.keep = True
        self.plain = False
        self.transport = _NoTransport()
        self.started = _now()
        self._edge = edge
        self._shadows = shadows
        self._draft = draft
        line_end = data.index(b"\r\n")
        self._data = data[:line_end] + _MARK + data[line_end:]
        self._first_byte_s: float | None = None
        self._status = 0
        self._upstream: UpstreamConnection | None = None
        # The same id, the same decision: who keeps the stable answer keeps this one beside it.
        self._tape: Tape | None = edge.capture.begin(draft.id, data) if edge.capture.on else None

    def start(self) -> None:
        upstream = self._draft.slot.pool.take(self.started)
        if upstream is None:
            self._edge.spawn(self._connect())
        else:
            self._serve(upstream)

    async def _connect(self) -> None:
        edge = self._edge
        try:
            upstream = await connect(self._draft.slot.pool, edge.counters, edge.settings)
        except TimeoutError:
            self.failed(TIMEOUT)
        except (OSError, ValueError):
            self.failed(UNREACHABLE)
        else:
            if self._shadows.waits_for(self):
                self._serve(upstream)
            else:
                upstream.release(_now(), keep=True)

    def _serve(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.serve(self, self._data)

    # What the upstream connection calls.

    def may_tunnel(self) -> bool:
        return False

    def tunnel(self) -> None:
        raise AssertionError("a copy is no tunnel")

    def response_begun(self) -> None:
        """Copies are not sent twice, so nothing is given up here."""

    def interim(self, data: bytes) -> None:
        """For a client, and there is none."""

    def answer(self, status: int, opening: bytes, tail: bytes) -> None:
        self._first_byte_s = _now() - self.started
        self._status = status
        if self._tape is not None:
            self._tape.add_response(opening + self._draft.id + tail)

    def write(self, data: bytes) -> None:
        if self._tape is not None:
            self._tape.add_response(data)

    def answered(self, upstream: UpstreamConnection, head: "AnswerHead", data: bytes) -> None:
        raise AssertionError("a copy is never plain")

    def finished(self, upstream: UpstreamConnection, *, keep: bool) -> None:
        self._upstream = None
        upstream.release(_now(), keep=keep)
        self._record(_OK)

    def failed(self, outcome: int) -> None:
        self._drop_upstream()
        self._record(outcome)

    def upstream_lost(self, upstream: UpstreamConnection) -> None:
        self._upstream = None
        if upstream.idle_since and not self._status:
            # Closed just as it was taken from the pool: that is not the candidate's failure.
            self._edge.spawn(self._connect())
        else:
            self._record(UNREACHABLE)

    def resume(self) -> None:
        """There is no client to read more from."""

    # Its end.

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def end(self, why: str) -> None:
        """Nothing is said about the candidate."""
        self._drop_upstream()
        if self._tape is not None:
            self._edge.capture.forget(self._tape)
        self._shadows.done(self, why)

    def _record(self, outcome: int) -> None:
        edge, draft = self._edge, self._draft
        duration_s = _now() - self.started
        edge.outcome(
            draft.slot,
            outcome,
            self._status,
            duration_s,
            self._first_byte_s,
            draft.head.key or draft.id,
            shadow=True,
        )
        if self._tape is not None:
            edge.capture.keep(
                self._tape,
                draft.slot.code,
                draft.slot.version_bytes,
                draft.id,
                draft.head.id_from,
                outcome,
                self.started + edge.wall_offset_s,
                self._first_byte_s,
                duration_s,
                shadow=True,
            )
        self._shadows.done(self, OUTCOME_NAMES[outcome])
