"""HTTP/2 in clear text: one client's connection joined to one of the upstream's, byte for byte.

Bytes are forwarded first and looked at second, by `frames.FrameWalk`; nothing is taken out. One
thing may be put in, between two frames: a GOAWAY, when this connection is to end (drain, another
stable model, nothing to do), so that the client finishes what it has begun and goes elsewhere for
the rest. What must not break: whatever looking at bytes raises, they have been forwarded.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from agent.edge.channel import OUTCOME_NAMES
from agent.edge.frames import GOAWAY_FRAME, PREFACE, BrokenFraming, FrameWalk, Streams
from agent.edge.journal import FROM_CLIENT, FROM_SERVER
from agent.edge.upstream import dial

if TYPE_CHECKING:
    from agent.edge.edge import Edge

_now = time.monotonic
# Where a splice is: waiting for the preface, for the upstream; open; over.
PREFACE_AWAITED, CONNECTING, OPEN, CLOSED = range(4)
# Held while the upstream is being connected; beyond, the client is not read any further.
_UNREACHABLE: Final = OUTCOME_NAMES.index("upstream_unreachable")
_HELD_BYTES_MAX: Final = 65_536
# With no stream open after a GOAWAY: how long a client may still have something on its way.
_QUIET_S: Final = 0.5


class Splice(asyncio.Protocol):
    """The client's side, and all that is known of both. Counted among the edge's clients."""

    __slots__ = (
        "__weakref__",
        "_address",
        "_down",
        "_edge",
        "_far",
        "_goaway",
        "_held",
        "_leaving",
        "_looking",
        "_nonce",
        "_number",
        "_own_door",
        "_stage",
        "_streams",
        "_task",
        "_told",
        "_touched",
        "_up",
        "_upstream_gone",
        "half_closed",
        "transport",
    )

    def __init__(self, edge: "Edge", *, own_door: bool = False) -> None:
        self.transport: asyncio.Transport
        self.half_closed = False
        self._edge = edge
        self._own_door = own_door
        self._stage = PREFACE_AWAITED
        self._held = b""
        self._far: Far | None = None
        self._task: asyncio.Task[None] | None = None
        self._touched = _now()
        self._leaving = False  # it is to end once no stream is open
        self._goaway = False  # and the client has been told
        self._looking = True  # frames can be told apart
        self._told = False  # and analysis hears of them
        self._upstream_gone = False
        self._number = 0
        self._nonce = b""
        self._address = self._current_address()
        streams = self._streams = Streams()
        may_keep = edge.outbox.has_room
        self._up = FrameWalk(streams, from_client=True, opened=self._opened, may_keep=may_keep)
        self._down = FrameWalk(streams, from_client=False, may_keep=may_keep)
        self._up.other_kept, self._down.other_kept = self._down.kept, self._up.kept

    def _current_address(self) -> str:
        return self._edge.grpc_address if self._own_door else self._edge.router.stable.pool.address

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._edge.admit(self):
            self._edge.counters.refuse("connections_max")
            self.transport.abort()

    def take_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """A connection that began as any other, and said that it is HTTP/2."""
        self.transport = transport
        transport.set_protocol(self)
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        far = self._far
        if self._stage == OPEN and far is not None:
            far.transport.write(data)
            if self._looking:
                self._look(self._up, FROM_CLIENT, data)
            else:
                self._touched = _now()
            return
        self._held += data
        if self._stage == PREFACE_AWAITED:
            self._greet()
        if len(self._held) > _HELD_BYTES_MAX:
            self.transport.pause_reading()

    def _greet(self) -> None:
        if self._held[: len(PREFACE)] != PREFACE[: len(self._held)]:
            self._edge.counters.refuse("not_http2")
            self.transport.abort()
        elif len(self._held) >= len(PREFACE):
            self._stage = CONNECTING
            self._task = asyncio.get_running_loop().create_task(self._connect())

    def eof_received(self) -> bool:
        self.half_closed = True
        far = self._far
        if far is None:
            return self._stage == CONNECTING
        far.end()  # what it has asked is still answered
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        was_open = self._stage == OPEN
        self._stage = CLOSED
        if self._task is not None:
            self._task.cancel()
            self._task = None
        far, self._far = self._far, None
        if far is not None:
            far.near = None
            if exc is None:
                far.transport.close()
            else:
                far.transport.abort()
        if was_open:
            at = self._wall(_now())
            self._edge.journal.close(self, self._number, at, by_upstream=self._upstream_gone)
        self._held = b""
        self._told = self._looking = False
        self._up.kept.clear()
        self._down.kept.clear()
        # The walks hold this object and it holds them: the collector is off in this process.
        del self._up, self._down
        self._edge.left(self)

    def pause_writing(self) -> None:
        if self._far is not None:
            self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None:
            self._far.transport.resume_reading()

    # The upstream's side.

    async def _connect(self) -> None:
        edge = self._edge
        far = Far(self)
        contexts = edge.tls.upstream(self._address)
        try:
            await dial(lambda: far, self._address, edge.settings, contexts, protocol="h2")
        except (OSError, ValueError):  # TimeoutError is an OSError
            edge.counters.refuse("http2_upstream_unreachable")
            # Nobody will read what it asks, but at least one call has failed.
            cell = edge.router.stable.cells[0]
            cell.in_flight += 1
            cell.finished(_UNREACHABLE, 0, _now() - self._touched, None)
            self.transport.abort()
        finally:
            self._task = None

    def connected(self, far: "Far") -> bool:
        if self._stage != CONNECTING:
            return False
        now = _now()
        edge = self._edge
        self._far = far
        self._stage = OPEN
        self._told = True
        stable = edge.router.stable
        self._number = edge.journal.open(self, self._wall(now), stable.version_bytes)
        self._nonce = edge.minter.mint()
        edge.counters.upstream_connects += 1
        held, self._held = self._held, b""
        far.transport.write(held)
        self.transport.resume_reading()
        if len(held) > len(PREFACE):
            self._look(self._up, FROM_CLIENT, held[len(PREFACE) :])
        if self.half_closed:
            far.end()
        return True

    def answered(self, data: bytes) -> None:
        """Bytes from the upstream."""
        if self._leaving and not self._goaway:
            data = self._with_goaway(data)
        self.transport.write(data)
        if self._looking:
            # What a GOAWAY of ours has displaced does not matter: the walk knows it as well.
            self._look(self._down, FROM_SERVER, data)
        else:
            self._touched = _now()

    def far_lost(self, exc: Exception | None) -> None:
        self._far = None
        if self._stage != OPEN:
            return
        self._upstream_gone = True
        if exc is None:
            self.transport.close()
        else:
            self.transport.abort()

    # Looking.

    def _look(self, walk: FrameWalk, what: int, data: bytes) -> None:
        now = self._touched = _now()
        try:
            pieces = walk.walk(data)
            if pieces and self._told:
                journal = self._edge.journal
                journal.add(what, self, self._number, 0, now + self._edge.wall_offset_s, pieces)
        except BrokenFraming:
            self._blind("http2_broken")
        except Exception:  # a fault of ours costs the sight of this connection, nothing else
            self._blind("http2_failed")

    def _opened(self, stream: int) -> int:
        """Whether to keep the data of a new stream, and how much of it for each direction."""
        edge = self._edge
        if not self._told or not edge.capture.on:
            return 0
        drawn = edge.capture.drawn(b"%s/%d" % (self._nonce, stream))
        if drawn is None:
            return 0
        edge.journal.keep(self, self._number, stream, drawn)
        return edge.settings.capture_bytes_max

    def _blind(self, reason: str) -> None:
        self._looking = False
        self.untold(reason)

    def untold(self, reason: str) -> None:
        """Analysis hears no more of it: of compressed headers, some are as good as none."""
        if self._told:
            self._told = False
            self._edge.counters.drop(reason)
            self._up.kept.clear()
            self._down.kept.clear()
            self._edge.journal.untold(self, self._number)

    def _wall(self, now: float) -> float:
        return now + self._edge.wall_offset_s

    # Ending.

    def drain(self) -> None:
        """No further stream; over once those that are open have been answered."""
        self._leaving = True
        if self._stage != OPEN:
            self.transport.abort()
        elif not self._goaway and self._looking and self._down.gap(0) == 0:
            self._goaway = True
            self._touched = _now()
            self.transport.write(GOAWAY_FRAME)

    def _with_goaway(self, data: bytes) -> bytes:
        gap = self._down.gap(len(data)) if self._looking else -1
        if gap < 0:
            return data
        self._goaway = True
        return data[:gap] + GOAWAY_FRAME + data[gap:]

    def sweep(self, now: float) -> None:
        """Called a few times a second: the limits in time."""
        settings = self._edge.settings
        silent_s = now - self._touched
        if self._stage != OPEN:
            if silent_s > settings.head_timeout_s:
                self.transport.abort()
        elif not self._looking:
            limit_s = settings.client_idle_s if self._leaving else settings.total_timeout_s
            if silent_s > limit_s:
                self.transport.close()
        elif self._streams.open:
            if silent_s > settings.total_timeout_s:
                self._edge.counters.refuse("http2_silent")
                self.transport.abort()
        elif self._leaving:
            if silent_s > _QUIET_S:
                self.transport.close()
        elif silent_s > settings.client_idle_s:
            self.drain()
        if not self._leaving and self._stage == OPEN and self._address != self._current_address():
            self.drain()  # another model is stable now; what is open here is still answered


class Far(asyncio.Protocol):
    """The upstream's side of a splice."""

    __slots__ = ("near", "transport")

    def __init__(self, near: Splice) -> None:
        self.near: Splice | None = near
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.near is None or not self.near.connected(self):
            self.transport.abort()

    def end(self) -> None:
        """The client says nothing more; over TLS there is no way to say only that."""
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def data_received(self, data: bytes) -> None:
        if self.near is not None:
            self.near.answered(data)

    def eof_received(self) -> bool:
        return False  # a server that says nothing more answers nothing: it is over

    def connection_lost(self, exc: Exception | None) -> None:
        near, self.near = self.near, None
        if near is not None:
            near.far_lost(exc)

    def pause_writing(self) -> None:
        if self.near is not None:
            self.near.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.near is not None:
            self.near.transport.resume_reading()
