"""A passive walk along the frames of one direction of an HTTP/2 connection (RFC 9113, section 4).

It reads the nine bytes at the head of each frame and nothing inside them: no header is decoded
here. What must not break: it is given bytes that were forwarded already, however they were cut,
and what it makes of them never changes them.
"""

import struct
from collections.abc import Callable
from typing import Final

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM: Final = 1
END_HEADERS: Final = 4
FRAME_HEAD_BYTES: Final = 9
HTTP2_LINE: Final = b"PRI * HTTP/2.0\r\n"  # of a request that nobody makes in HTTP/1.1
PREFACE: Final = HTTP2_LINE + b"\r\nSM\r\n\r\n"
# What a server that goes away says to a client: no new streams here, those that are open are
# finished. 2^31-1 as the last stream, because what is on its way here is still answered.
GOAWAY_FRAME: Final = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0"
# Far more than any server allows at once (100 to 250 by default); a server would have refused.
OPEN_STREAMS_MAX: Final = 16_384

_read_head: Final = struct.Struct(">IBI").unpack_from  # length and type, flags, stream
_STREAM: Final = 0x7FFFFFFF
# Kinds that nobody needs: all but headers and their continuations, promises, resets and goodbyes.
_WANTED: Final = (HEADERS, RST_STREAM, PUSH_PROMISE, GOAWAY, CONTINUATION)
_PASSED: Final = bytes(kind not in _WANTED for kind in range(256))


class BrokenFraming(ValueError):
    """This is no HTTP/2, or not any more: nothing that follows can be told apart."""


class Streams:
    """What both directions of one connection know together."""

    __slots__ = ("last", "open")

    def __init__(self) -> None:
        self.open: set[int] = set()  # asked by the client, not answered to the end
        self.last = 0  # the highest that the client has opened


class FrameWalk:
    """One direction. `walk` gives the pieces that analysis needs, as they were on the wire:
    headers, resets and goodbyes of every stream, and the data of those streams that are kept.
    """

    __slots__ = (
        "_answers",
        "_held",
        "_in_block",
        "_left",
        "_may_keep",
        "_opened",
        "_shipping",
        "_streams",
        "begun",
        "kept",
        "other_kept",
    )

    def __init__(
        self,
        streams: Streams,
        *,
        from_client: bool,
        opened: Callable[[int], int] = lambda stream: 0,
        may_keep: Callable[[], bool] = lambda: True,
    ) -> None:
        """`opened` is told of each new stream, and says how many bytes of its data to keep."""
        self._streams = streams
        self._answers = not from_client
        self._opened = opened
        self._may_keep = may_keep
        self._held = b""  # the beginning of a frame's head
        self._left = 0  # bytes until the next frame begins
        self._shipping = False  # those bytes are wanted
        self._in_block = False  # headers go on in the next frame
        self.begun = False
        self.kept: dict[int, int] = {}  # stream to how much more of its data is wanted
        self.other_kept: dict[int, int] = {}  # the same of the other direction

    def walk(self, data: bytes) -> list[bytes]:
        """Raises BrokenFraming; not to be called again then."""
        if self._held:
            data = self._held + data
            self._held = b""
        size = len(data)
        at = self._left
        start = 0 if at and self._shipping else -1  # of the piece that is being collected
        pieces: list[bytes] = []
        if not self.begun and size >= FRAME_HEAD_BYTES:
            self._begin(data)
        kept, answers = self.kept, self._answers
        # For the most part of what passes one branch of this loop is all there is: a frame of
        # data that is not kept, or one that says nothing of any call.
        while size - at >= FRAME_HEAD_BYTES:
            word, flags, stream = _read_head(data, at)
            kind = word & 0xFF
            if kind == HEADERS:
                self._headers(flags, stream & _STREAM)
                wanted = True
            elif kind == DATA and (kept or (answers and flags & END_STREAM)):
                wanted = self._data(word >> 8, flags, stream & _STREAM)
            elif _PASSED[kind]:
                if self._in_block or not (kind or stream):
                    raise BrokenFraming("a header block is interrupted, or data of no stream")
                wanted = False
            else:
                wanted = self._other(kind, flags, stream & _STREAM)
            if wanted:
                if start < 0:
                    start = at
            else:
                if start >= 0:
                    pieces.append(data[start:at])
                    start = -1
                if kind == DATA and answers and flags & END_STREAM:
                    pieces.append(_bare_end(stream & _STREAM))
            at += FRAME_HEAD_BYTES + (word >> 8)
        if at < size:  # in the middle of a head
            self._held = data[at:]
            self._left = 0
            size = at
        else:
            self._left = at - size
            self._shipping = start >= 0
        if 0 <= start < size:
            pieces.append(data[start:size])
        return pieces

    def gap(self, size: int) -> int:
        """Where in the next `size` bytes a frame may be put between two others; -1: nowhere."""
        if not self.begun or self._held or self._in_block or self._left > size:
            return -1
        return self._left

    def _begin(self, data: bytes) -> None:
        word, _, stream = _read_head(data, 0)
        if word & 0xFF != SETTINGS or stream:
            raise BrokenFraming("the first frame is not SETTINGS")
        self.begun = True

    def _headers(self, flags: int, stream: int) -> None:
        if not stream or self._in_block:
            raise BrokenFraming("headers of no stream, or inside of others")
        streams = self._streams
        self._in_block = not flags & END_HEADERS
        if self._answers:
            if flags & END_STREAM:
                self._ended(stream)
        elif stream > streams.last:
            if not stream & 1 or len(streams.open) >= OPEN_STREAMS_MAX:
                raise BrokenFraming("a stream that no client may open")
            streams.last = stream
            streams.open.add(stream)
            wanted_bytes = self._opened(stream)
            if wanted_bytes:
                self.kept[stream] = self.other_kept[stream] = wanted_bytes

    def _data(self, length: int, flags: int, stream: int) -> bool:
        if not stream or self._in_block:
            raise BrokenFraming("data of no stream, or inside of headers")
        room = self.kept.get(stream)
        wanted = False
        if room is not None:
            wanted = length <= room and self._may_keep()
            if wanted:
                self.kept[stream] = room - length
            else:
                del self.kept[stream]  # analysis sees a message that is not whole
        if flags & END_STREAM and self._answers:
            self._ended(stream)
        return wanted

    def _other(self, kind: int, flags: int, stream: int) -> bool:
        if (kind == CONTINUATION) != self._in_block:
            raise BrokenFraming("headers go on that have not begun, or are interrupted")
        if kind == RST_STREAM:
            self._ended(stream)
        elif kind != GOAWAY:
            self._in_block = not flags & END_HEADERS
        return True

    def _ended(self, stream: int) -> None:
        self._streams.open.discard(stream)
        if self.kept or self.other_kept:
            self.kept.pop(stream, None)
            self.other_kept.pop(stream, None)


def _bare_end(stream: int) -> bytes:
    """A DATA frame without data that ends the stream."""
    return b"\0\0\0\0\x01" + stream.to_bytes(4, "big")
