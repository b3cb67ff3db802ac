"""The edge's end of the channel: a bounded queue, sent in batches, that never waits.

This is the only place where the edge loses exchanges on purpose. When analysis does not read, the
socket fills, then the queue, and then exchanges are dropped and counted; traffic does not notice.
A batch that the socket took in part is finished before anything else, so the stream stays framed.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.edge import channel
from agent.edge.counters import Counters
from agent.edge.settings import EdgeSettings

# Below malloc's mmap threshold: longer buffers would cost three more system calls each.
_READ_BYTES: Final = 65_536
_MESSAGE_BYTES_MAX: Final = 1_048_576
# Per slot. One outcome has 28 bytes, so this is some 37,000 requests of an analysis that hangs.
OUTCOMES_BYTES_MAX: Final = 1_048_576
# A wall clock, for the one of CPU time is a system call; what took longer was interrupted.
_clock = time.perf_counter
_SENDING_S_MAX: Final = 0.002


class Outbox:
    """Frames out, messages in; counters and outcomes are asked for just before they are sent."""

    def __init__(
        self,
        settings: EdgeSettings,
        counters: Counters,
        *,
        make_counters: Callable[[], bytes],
        make_outcomes: Callable[[], tuple[list[bytes], int]],
        on_message: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self._bytes_max = settings.outbox_bytes_max
        self._records_max = settings.flush_records
        self._flush_s = settings.flush_s
        self._counters = counters
        self._make_counters = make_counters
        self._make_outcomes = make_outcomes
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._decoder = channel.FrameDecoder()
        self._parts: list[bytes] = []  # of whole records
        self._records = 0
        self._bytes = 0
        self._rest = memoryview(b"")  # of a batch that was sent in part
        self._rest_records = 0
        self._rest_outcomes = 0
        self._writer_on = False
        self._flush_due: asyncio.Handle | None = None
        self._flush_soon = False
        self.epoch = 0  # of how many channels this is the latest
        self.sending_s = 0.0  # that sending kept exchanges has cost so far

    def attach(self, sock: socket.socket) -> None:
        """A new analysis: what was on its way to the old one is dropped, and counted."""
        self.detach("channel_replaced")
        self.epoch += 1
        sock.setblocking(False)
        self._sock = sock
        self._decoder = channel.FrameDecoder(payload_bytes_max=_MESSAGE_BYTES_MAX)
        self._loop.add_reader(sock.fileno(), self._readable)
        self.send_counters()
        self.schedule()  # outcomes have waited for somebody to tell

    def detach(self, reason: str) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._watch_writable(sock, False)
            sock.close()
        lost = self._records + self._rest_records
        if lost:
            self._counters.drop(reason, lost)
        if self._rest_outcomes:
            self._counters.drop("outcomes_lost", self._rest_outcomes)
        self._rest = memoryview(b"")
        self._rest_records = self._rest_outcomes = 0
        self._forget_parts()

    def put(self, parts: list[bytes], size: int) -> None:
        """One record, in parts that are joined when it is sent. Dropped when there is no room."""
        if self._sock is None:
            self._counters.drop("channel_closed")
            return
        waiting = self._bytes + size
        if waiting + len(self._rest) > self._bytes_max:
            self._counters.drop("channel_full")
            return
        self._bytes = waiting
        self._parts += parts
        self._records += 1
        self._counters.kept += 1
        if self._records >= self._records_max and not self._flush_soon:
            # Not now: the answer to the client leaves at the end of this turn of the loop.
            self._flush_soon = True
            self._loop.call_soon(self.flush)
        elif self._flush_due is None:
            self.schedule()

    def put_batch(self, parts: list[bytes], size: int) -> bool:
        """Frames that are no kept exchanges; False when there is no room, and nothing is counted:
        whoever made them knows what is lost with them."""
        waiting = self._bytes + size
        if self._sock is None or waiting + len(self._rest) > self._bytes_max:
            return False
        self._bytes = waiting
        self._parts += parts
        self.schedule()
        return True

    def has_room(self) -> bool:
        """Whether what may be lost should still be put: a quarter is left for what may not."""
        return self._bytes + len(self._rest) < self._bytes_max * 3 // 4

    def later(self, wait_s: float, call: Callable[[], None]) -> None:
        self._loop.call_later(wait_s, call)

    def schedule(self) -> None:
        if self._flush_due is None and self._sock is not None and not self._writer_on:
            self._flush_due = self._loop.call_later(self._flush_s, self.flush)

    def flush(self) -> None:
        self._flush_soon = False
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if self._sock is None or (self._rest and not self._send_rest()):
            return
        started = _clock()
        outcomes, count = self._make_outcomes()
        if self._parts or outcomes:
            self._rest_outcomes = count
            self._send(b"".join(self._parts + outcomes))
        self.sending_s += min(_clock() - started, _SENDING_S_MAX)

    def send_counters(self) -> None:
        """Only onto an empty channel: counters are cumulative, a later snapshot says it all."""
        if self._sock is not None and not self._rest:
            counters = channel.frame(channel.COUNTERS, self._make_counters())
            self._send(b"".join([*self._parts, counters]))

    def _send(self, batch: bytes) -> None:
        self._rest = memoryview(batch)
        self._rest_records = self._records
        self._forget_parts()
        self._send_rest()

    def _send_rest(self) -> bool:
        """True when nothing is left of the batch."""
        sock = self._sock
        if sock is None:
            self._rest = memoryview(b"")
            return False
        try:
            self._rest = self._rest[sock.send(self._rest) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.detach("channel_closed")
            return False
        done = not self._rest
        if done:
            self._rest_records = self._rest_outcomes = 0
        self._watch_writable(sock, not done)
        return done

    def _watch_writable(self, sock: socket.socket, on: bool) -> None:
        if on and not self._writer_on:
            self._loop.add_writer(sock.fileno(), self.flush)
        elif self._writer_on and not on:
            self._loop.remove_writer(sock.fileno())
        self._writer_on = on

    def _forget_parts(self) -> None:
        self._parts = []
        self._records = 0
        self._bytes = 0

    def _readable(self) -> None:
        sock = self._sock
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
            self._counters.drop("channel_broken")
            self.detach("channel_broken")
