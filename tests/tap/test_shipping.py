"""The tap's end of the channel never waits, and what it loses is counted."""

import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agent.edge import channel
from agent.tap.shipping import Shipping

RECORD = channel.frame(channel.EXCHANGE, b"x" * 10_000)


class Dock:
    """A shipping and the other end of its channel."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.told: list[tuple[int, Mapping[str, Any]]] = []
        self.shipping = Shipping(
            bytes_max=100_000,
            drop=self._drop,
            on_message=lambda kind, message: self.told.append((kind, message)),
        )
        ours, self.far = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        self.far.setblocking(False)
        self.shipping.attach(ours)
        self.decoder = channel.FrameDecoder()

    def _drop(self, reason: str, count: int) -> None:
        self.dropped[reason] += count

    def put(self, count: int) -> None:
        for _ in range(count):
            self.shipping.put([RECORD[:5], RECORD[5:]], len(RECORD))

    def received(self) -> int:
        """Whole frames that arrived, read while the shipping goes on sending."""
        frames = 0
        while True:
            try:
                data = self.far.recv(65_536)
            except BlockingIOError:
                if not self.shipping.stuck:
                    return frames
                self.shipping.flush()
                continue
            if not data:
                return frames
            frames += len(self.decoder.feed(data))


@pytest.fixture
def dock() -> Iterator[Dock]:
    dock = Dock()
    yield dock
    dock.shipping.detach("tap_closed")
    dock.far.close()


def test_what_does_not_fit_is_dropped_and_the_stream_stays_framed(dock: Dock) -> None:
    dock.put(5)
    dock.shipping.flush()
    assert dock.shipping.stuck
    dock.put(20)
    assert dock.dropped["channel_full"] > 0
    dock.shipping.flush()
    arrived = dock.received()
    dock.shipping.flush()
    arrived += dock.received()
    assert arrived == dock.shipping.kept == 25 - dock.dropped["channel_full"]


def test_snapshots_wait_for_a_batch_that_was_cut(dock: Dock) -> None:
    dock.put(5)
    dock.shipping.flush()
    asked = []

    def snapshots() -> list[bytes]:
        asked.append(1)
        return [channel.frame(channel.COUNTERS, b"{}")]

    dock.shipping.flush(snapshots)
    assert not asked
    assert dock.received() == 5
    dock.shipping.flush(snapshots)
    assert asked
    assert dock.received() == 1


def test_an_analysis_that_went_away_costs_what_was_on_its_way(dock: Dock) -> None:
    dock.put(3)
    dock.far.close()
    dock.shipping.flush()
    assert dock.shipping.sock is None
    assert dock.dropped["channel_closed"] == 3
    dock.put(2)
    assert dock.dropped["channel_closed"] == 5


def test_a_new_channel_begins_with_a_whole_frame(dock: Dock) -> None:
    dock.put(5)
    dock.shipping.flush()
    ours, theirs = socket.socketpair()
    dock.shipping.attach(ours)
    assert dock.dropped["channel_replaced"] == 5
    dock.far.close()
    dock.far, dock.decoder = theirs, channel.FrameDecoder()
    dock.far.setblocking(False)
    dock.put(2)
    dock.shipping.flush()
    assert dock.received() == 2


def test_messages_arrive_however_they_were_cut(dock: Dock) -> None:
    message = channel.frame(channel.SAMPLING, b'{"rate": 1}')
    for at in range(len(message)):
        dock.far.send(message[at : at + 1])
        dock.shipping.readable()
    assert dock.told == [(channel.SAMPLING, {"rate": 1})]


@pytest.mark.parametrize("nonsense", [channel.frame(channel.SAMPLING, b"{"), b"\xff" * 5])
def test_a_peer_that_talks_nonsense_is_not_listened_to(dock: Dock, nonsense: bytes) -> None:
    dock.far.send(nonsense)
    dock.shipping.readable()
    assert dock.shipping.sock is None
    assert dock.dropped["channel_broken"] == 1
