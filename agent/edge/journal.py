"""What the edge tells analysis of spliced HTTP/2 connections: records, batched, in order.

Order is everything: header compression has state, so analysis reads a connection's headers all or
not at all. A batch that finds no room makes every connection in it untold from then on; its bytes
are forwarded as before. Notices of that wait here until there is room again.

One batch is the payload of a SPLICE frame: records of ``what u8 | connection u32 | stream u32 |
at f64 | length u32 | payload``, little-endian, `at` in unix seconds.

    OPENED      the version that serves the connection
    FROM_CLIENT whole pieces of HTTP/2 frames, cut anywhere, see `frames.FrameWalk`
    FROM_SERVER the same of the other direction
    KEPT        of a stream whose data follows: draw u64, weight f64, uniform u8
    CLOSED      the connection is no more; stream 1: its upstream ended it, 0: its client
    UNTOLD      it goes on, and nothing more is told of it
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.edge import channel

if TYPE_CHECKING:
    from agent.edge.outbox import Outbox
    from agent.edge.splice import Splice

OPENED, FROM_CLIENT, FROM_SERVER, KEPT, CLOSED, UNTOLD = range(6)

_RECORD: Final = struct.Struct("<BIIdI")
_KEPT: Final = struct.Struct("<Qd?")
_BATCH_BYTES: Final = 16_384
# A record of a connection that could not be told about has 21 bytes; beyond this many of them
# analysis forgets such connections by its own limit.
_NOTICES_MAX: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    what: int
    connection: int
    stream: int
    at: float
    payload: bytes


def encode_record(record: Record) -> bytes:
    head = _RECORD.pack(
        record.what, record.connection, record.stream, record.at, len(record.payload)
    )
    return head + record.payload


def decode_records(batch: bytes) -> Iterator[Record]:
    """Raises channel.ChannelError at bytes that no edge writes."""
    at = 0
    while at < len(batch):
        if len(batch) - at < _RECORD.size:
            raise channel.ChannelError("splice record is shorter than its head")
        what, connection, stream, when, length = _RECORD.unpack_from(batch, at)
        start = at + _RECORD.size
        at = start + length
        if at > len(batch) or what > UNTOLD:
            raise channel.ChannelError("splice record with an unknown code, or cut")
        yield Record(
            what=what, connection=connection, stream=stream, at=when, payload=batch[start:at]
        )


def decode_kept(payload: bytes) -> tuple[int, float, bool]:
    """Draw, weight and stratum of a kept stream. Raises channel.ChannelError."""
    if len(payload) != _KEPT.size:
        raise channel.ChannelError("a kept stream without draw and weight")
    draw, weight, uniform = _KEPT.unpack(payload)
    return int(draw), float(weight), bool(uniform)


class Journal:
    """Collects records of all connections, and hands them to the outbox a batch at a time."""

    def __init__(self, outbox: "Outbox", *, flush_s: float) -> None:
        self._outbox = outbox
        self._flush_s = flush_s
        self._parts: list[bytes] = []
        self._bytes = 0
        self._inside: dict[int, Splice] = {}  # connections with something in this batch
        self._told: dict[int, Splice] = {}  # connections that analysis knows of
        self._notices: dict[int, bytes] = {}
        self._epoch = outbox.epoch
        self._timer = False
        self._next = 0

    def open(self, splice: "Splice", at: float, version: bytes) -> int:
        """The number of a new connection."""
        if self._outbox.epoch != self._epoch:
            self.reset()
        self._next = (self._next + 1) & 0xFFFFFFFF
        self._told[self._next] = splice
        self.add(OPENED, splice, self._next, 0, at, [version])
        return self._next

    def keep(
        self, splice: "Splice", number: int, stream: int, drawn: tuple[int, float, bool]
    ) -> None:
        self.add(KEPT, splice, number, stream, 0.0, [_KEPT.pack(*drawn)])

    def add(
        self,
        what: int,
        splice: "Splice",
        number: int,
        stream: int,
        at: float,
        pieces: list[bytes],
    ) -> None:
        """Positions, not names: this is called for nearly every chunk."""
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        self._parts.append(_RECORD.pack(what, number, stream, at, size))
        self._parts += pieces
        self._bytes += _RECORD.size + size
        self._inside[number] = splice
        if self._bytes >= _BATCH_BYTES:
            self._hand_over()
        elif not self._timer:
            self._timer = True
            self._outbox.later(self._flush_s, self.flush)

    def close(self, splice: "Splice", number: int, at: float, *, by_upstream: bool) -> None:
        """The last word on a connection, unless it was said."""
        if self._told.pop(number, None) is not None:
            self.add(CLOSED, splice, number, int(by_upstream), at, [])

    def untold(self, splice: "Splice", number: int) -> None:
        """Nothing more is told of this connection."""
        if self._told.pop(number, None) is not None:
            self.add(UNTOLD, splice, number, 0, 0.0, [])

    def flush(self) -> None:
        """What has come together is sent now."""
        self._timer = False
        self._hand_over()
        self._outbox.flush()

    def reset(self) -> None:
        """There is another analysis, which knows none of the connections."""
        self._epoch = self._outbox.epoch
        known = [*self._told.values()]
        self._told.clear()
        self._notices.clear()
        self._clear()
        for splice in known:
            splice.untold("http2_channel_replaced")

    def _hand_over(self) -> None:
        if self._outbox.epoch != self._epoch:
            self.reset()
            return
        if self._notices:
            self._send_notices()
        if not self._parts:
            return
        inside = self._inside
        head = channel.frame_head(channel.SPLICE, self._bytes)
        taken = self._outbox.put_batch([head, *self._parts], len(head) + self._bytes)
        self._clear()
        if not taken:
            for number, splice in inside.items():
                if number in self._told:
                    splice.untold("http2_headers_lost")
                else:
                    self._notice(number)

    def _send_notices(self) -> None:
        payload = b"".join(self._notices.values())
        head = channel.frame_head(channel.SPLICE, len(payload))
        if self._outbox.put_batch([head, payload], len(head) + len(payload)):
            self._notices.clear()

    def _notice(self, number: int) -> None:
        if len(self._notices) < _NOTICES_MAX:
            self._notices[number] = _RECORD.pack(UNTOLD, number, 0, 0.0, 0)

    def _clear(self) -> None:
        self._parts = []
        self._bytes = 0
        self._inside = {}
