"""The supervisor's orders: JSON packets that keep their boundaries, descriptors beside them.

The end of this socket is the end of the supervisor: the edge then drains and goes.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, Final

PACKET_BYTES_MAX: Final = 200_000
DESCRIPTORS_MAX: Final = 32

Message = dict[str, Any]


class Control:
    """Reads packets in the event loop; `on_end` is called once, at end of file."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message) -> None:
        try:
            self._sock.send(json.dumps(message).encode())
        except OSError:
            pass  # a supervisor that does not read, or is gone: the end of file will tell

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                packet, fds, _, _ = socket.recv_fds(self._sock, PACKET_BYTES_MAX, DESCRIPTORS_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet, fds = b"", []
            if not packet:
                self.close()
                self._on_end()
                return
            self._on_message(json.loads(packet), list(fds))
