"""The tap's end of the channel to analysis: frames out, messages in, and never a wait.

When analysis does not read, the socket fills, then the queue, and then exchanges are dropped and
counted. A batch that the socket took in part is finished before anything else, so that the stream
stays framed.
"""

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.edge import channel

_READ_BYTES: Final = 65_536
_MESSAGE_BYTES_MAX: Final = 1_048_576


class Shipping:
    """A bounded queue in front of a socket that may come and go."""

    def __init__(
        self,
        *,
        bytes_max: int,
        drop: Callable[[str, int], None],
        on_message: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self._bytes_max = bytes_max
        self._drop = drop
        self._on_message = on_message
        self.sock: socket.socket | None = None
        self._decoder = channel.FrameDecoder()
        self._parts: list[bytes] = []
        self._records = 0
        self._bytes = 0
        self._rest = memoryview(b"")  # of a batch that was sent in part
        self._rest_records = 0
        self.kept = 0

    @property
    def stuck(self) -> bool:
        """Whether the socket has to become writable before anything more can leave."""
        return self.sock is not None and bool(self._rest)

    def attach(self, sock: socket.socket) -> None:
        """A new analysis: what was on its way to the old one is dropped, and counted."""
        self.detach("channel_replaced")
        sock.setblocking(False)
        self.sock = sock
        self._decoder = channel.FrameDecoder(payload_bytes_max=_MESSAGE_BYTES_MAX)

    def detach(self, reason: str) -> None:
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()
        lost = self._records + self._rest_records
        if lost:
            self._drop(reason, lost)
        self._rest = memoryview(b"")
        self._rest_records = 0
        self._forget_parts()

    def put(self, parts: list[bytes], size: int) -> None:
        """One record, in parts that are joined when it is sent. Dropped when there is no room."""
        if self.sock is None:
            self._drop("channel_closed", 1)
            return
        waiting = self._bytes + size
        if waiting + len(self._rest) > self._bytes_max:
            self._drop("channel_full", 1)
            return
        self._bytes = waiting
        self._parts += parts
        self._records += 1
        self.kept += 1

    def flush(self, snapshots: Callable[[], list[bytes]] | None = None) -> None:
        """Send what the socket takes. Snapshots are cumulative: a later one says it all."""
        if self.sock is None or (self._rest and not self._send_rest()):
            return
        frames = snapshots() if snapshots is not None else []
        if self._parts or frames:
            self._rest = memoryview(b"".join(self._parts + frames))
            self._rest_records = self._records
            self._forget_parts()
            self._send_rest()

    def _send_rest(self) -> bool:
        """True when nothing is left of the batch."""
        sock = self.sock
        if sock is None:
            return False
        try:
            while self._rest:
                self._rest = self._rest[sock.send(self._rest) :]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.detach("channel_closed")
            return False
        self._rest_records = 0
        return True

    def _forget_parts(self) -> None:
        self._parts = []
        self._records = 0
        self._bytes = 0

    def readable(self) -> None:
        sock = self.sock
        if sock is None:
            return
        try:
            data = sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.detach("channel_closed")
            return
        try:
            for kind, payload in self._decoder.feed(data):
                self._on_message(kind, json.loads(payload))
        except (ValueError, KeyError, TypeError):
            # A peer that talks nonsense is not listened to again; the supervisor sends another.
            self._drop("channel_broken", 1)
            self.detach("channel_broken")
