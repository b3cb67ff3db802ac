"""The tap process: `python -m agent.tap remora-tap --control-fd N`, started by the supervisor.

A plain loop around poll(2): the ring wakes it at most every 20 ms, whatever passes. Nothing that
happens here can reach the traffic: it listens on copies.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from agent.tap.filter import PARTS, FlowSampling
from agent.tap.listening import Listening
from agent.tap.privileges import drop_capabilities
from agent.tap.ring import BLOCK_BYTES, Ring, TapRefusedError
from agent.tap.settings import TapSettings
from agent.tap.shipping import Shipping

# As in agent/edge/control.py, which has an event loop.
PACKET_BYTES_MAX: Final = 200_000
DESCRIPTORS_MAX: Final = 32

_IDLE_MS: Final = 500
_EXPIRE_S: Final = 30.0
_BLOCKS_MIN: Final = 2
# Connections are what makes cycles, exchanges make none.
_GC_THRESHOLD: Final = 20_000


class Tap:
    """Ring, conversations and channel, once the supervisor has said which."""

    def __init__(self, settings: TapSettings) -> None:
        """Raises TapRefusedError."""
        self.settings = settings
        self._sampling = new_sampling(settings.flow_rate)
        self.ring = Ring(
            interface=settings.interface,
            port=settings.port,
            sampling=self._sampling,
            blocks=max(_BLOCKS_MIN, settings.ring_bytes // BLOCK_BYTES),
        )
        self.shipping = Shipping(
            bytes_max=settings.outbox_bytes_max, drop=self._drop, on_message=self._from_analysis
        )
        self.listening = Listening(
            settings, put=self.shipping.put, flow_weight=self._sampling.weight
        )
        now = time.monotonic()
        self._counters_at = now
        self._expire_at = now + _EXPIRE_S
        self._turn_at = now + settings.flow_turn_s

    def _drop(self, reason: str, count: int) -> None:
        self.listening.counters.drop(reason, count)

    def _from_analysis(self, kind: int, message: Any) -> None:
        self.listening.told(kind, message)

    def read(self) -> None:
        """All blocks that are ours, and what came of them onto the channel."""
        for memory, at, packets in self.ring.blocks():
            self.listening.block(memory, at, packets, self.ring.link)
            self.shipping.flush()

    def tick(self, now: float) -> None:
        if now >= self._counters_at:
            self._counters_at = now + self.settings.counters_s
            self.count()
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRE_S
            self.listening.flows.expire(time.time())
            gc.collect()
        if now >= self._turn_at:
            self._turn_at = now + self.settings.flow_turn_s
            self._turn()

    def count(self) -> None:
        listening = self.listening
        listening.losses.counts["kernel"] += self.ring.drops()
        listening.losses.tick()
        self.shipping.flush(lambda: listening.snapshots(kept=self.shipping.kept))

    def _turn(self) -> None:
        """Other connections: a few busy ones must not be all that is ever seen, or never seen."""
        if self._sampling.everything:
            return
        self._sampling = new_sampling(self.settings.flow_rate)
        self.ring.attach(self._sampling)
        self.listening.turn(self._sampling)

    def close(self) -> None:
        self.read()
        self.listening.flows.close()
        self.count()
        self.shipping.detach("tap_closed")
        self.ring.close()


def new_sampling(rate: float) -> FlowSampling:
    """The share `rate` of all connections, at least one part of them; which ones is drawn."""
    keep = max(1, min(PARTS, round(rate * PARTS)))
    multiplier, salt = int.from_bytes(os.urandom(4)) | 1, int.from_bytes(os.urandom(4))
    return FlowSampling(keep=keep, multiplier=multiplier, salt=salt)


class TapProcess:
    """Obeys the supervisor until it is told to go, or the supervisor is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._tap: Tap | None = None
        self._going = False
        self._code = 0
        control.setblocking(False)
        self._signalled, waking = socket.socketpair()
        for end in (self._signalled, waking):
            end.setblocking(False)
        self._waking = waking
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._go)

    def run(self) -> int:
        try:
            while not self._going:
                self._wait()
                tap = self._tap
                if tap is not None:
                    tap.read()
                    tap.tick(time.monotonic())
        finally:
            if self._tap is not None:
                self._tap.close()
            signal.set_wakeup_fd(-1)
        return self._code

    def _wait(self) -> None:
        """Until anything happens, and see to all but the packets."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._signalled, select.POLLIN)
        tap = self._tap
        channel = None
        if tap is not None:
            poll.register(tap.ring, select.POLLIN)
            channel = tap.shipping.sock
            if channel is not None:
                stuck = select.POLLOUT if tap.shipping.stuck else 0
                poll.register(channel, select.POLLIN | stuck)
        happened = dict(poll.poll(_IDLE_MS))
        if self._control.fileno() in happened:
            self._obey()
        if tap is None:
            return
        if happened.get(tap.ring.fileno(), 0) & select.POLLERR:
            # The interface went down, or is gone: the supervisor starts us again.
            self._fail(f"interface {tap.settings.interface} is down")
        if channel is not None and tap.shipping.sock is channel:
            events = happened.get(channel.fileno(), 0)
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                tap.shipping.readable()
            if events & select.POLLOUT:
                tap.shipping.flush()

    def _go(self, *_: object) -> None:
        self._going = True

    def _fail(self, reason: str) -> None:
        self._say({"type": "refused", "reason": reason})
        self._code = 1
        self._going = True

    def _obey(self) -> None:
        while not self._going:
            try:
                packet, fds, _, _ = socket.recv_fds(
                    self._control, PACKET_BYTES_MAX, DESCRIPTORS_MAX
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet, fds = b"", []
            if not packet:
                self._going = True
                return
            self._order(json.loads(packet), [socket.socket(fileno=fd) for fd in fds])

    def _order(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        kind = message["type"]
        tap = self._tap
        if kind == "ping":
            self._say({"type": "pong", "n": message["n"]})
        elif kind == "start" and tap is None:
            self._start(TapSettings.of(message["settings"]), sockets)
        elif kind == "channel" and tap is not None and sockets:
            tap.shipping.attach(sockets[0])
        elif kind == "drain":
            self._going = True

    def _start(self, settings: TapSettings, sockets: list[socket.socket]) -> None:
        try:
            tap = Tap(settings)
        except TapRefusedError as error:
            self._fail(str(error))
            return
        drop_capabilities()
        if sockets:
            tap.shipping.attach(sockets[-1])
        self._tap = tap
        # What is there now stays: nothing to look for in it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        self._say({"type": "ready"})

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            pass  # a supervisor that does not read, or is gone: the end of file will tell


def main(arguments: list[str]) -> int:
    control = socket.socket(fileno=int(arguments[arguments.index("--control-fd") + 1]))
    _name_process("remora-tap")
    return TapProcess(control).run()


def _name_process(name: str) -> None:
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)
    except OSError:
        pass  # only for ps and top


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
