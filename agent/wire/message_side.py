"""Where one direction of a connection stands: before a head, or in a body and how far.

What must not break: bytes of a head that is not whole are held up to a limit, and never more.
"""

from typing import Final

from agent.wire.message_ends import HEAD_BYTES_MAX, ChunkedBody

HEAD, SIZED, CHUNKED, CLOSE = range(4)
TOO_LONG: Final = -2


class Side:
    """Where one direction stands: before a head, or in a body and how far."""

    __slots__ = ("_chunks", "_left", "began_at", "held", "interim", "malformed", "mode")

    def __init__(self) -> None:
        self.mode = HEAD
        self.began_at = 0.0  # when the first byte of the head came
        self.interim = False
        self.malformed = False
        self.held = b""  # of a head that is not whole
        self._left = 0
        self._chunks: ChunkedBody | None = None

    def find_head(self, data: bytes, at: int, now: float) -> tuple[bytes, int, int]:
        """The bytes in which the head is, where it begins, and where its last line ends.

        -1 when that has not come yet (it is held), TOO_LONG when it never may.
        """
        if self.held:
            data = self.held + data[at:]
            at = 0
        else:
            self.began_at = now
        while data.startswith(b"\r\n", at):  # allowed before a message (RFC 9112 2.2)
            at += 2
        end = data.find(b"\r\n\r\n", at)
        if end >= 0:
            self.held = b""
            return data, at, end
        self.held = data[at:] if at else data
        return self.held, 0, TOO_LONG if len(self.held) > HEAD_BYTES_MAX else -1

    def begin_sized(self, left: int) -> None:
        self.mode = SIZED
        self._left = left

    def begin_chunked(self) -> None:
        self.mode = CHUNKED
        self._chunks = ChunkedBody()

    def end_of_body(self, data: bytes, at: int) -> int:
        """Where it ends, and a head may begin; -1 while it does not end."""
        if self.mode == SIZED:
            have = len(data) - at
            if have < self._left:
                self._left -= have
                return -1
            at += self._left
        elif self.mode == CHUNKED:
            assert self._chunks is not None
            at = self._chunks.end(data, at)
            self.malformed = self._chunks.malformed
            if at < 0:
                return -1
        else:
            return -1
        self.mode = HEAD
        return at
