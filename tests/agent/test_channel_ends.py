"""Ends of channels reach both sides, whoever of them comes first."""

import os
import socket
from typing import Any

import pytest

from agent.channel_ends import ChannelEnds, Peer

EDGE = Peer(worker=1)


class Kid:
    """A child that takes messages while it is there, and keeps the ends that come with them."""

    def __init__(self, *, there: bool) -> None:
        self.there = there
        self.told: list[dict[str, Any]] = []
        self.ends: list[socket.socket] = []

    def send(self, message: dict[str, Any], fds: list[int]) -> bool:
        if self.there:
            self.told.append(message)
            self.ends += [socket.socket(fileno=os.dup(fd)) for fd in fds]
        return self.there

    def close(self) -> None:
        for end in self.ends:
            end.close()


def joined(one: socket.socket, other: socket.socket) -> bool:
    one.sendall(b"x")
    other.setblocking(False)
    try:
        return other.recv(1) == b"x"
    except BlockingIOError:
        return False


@pytest.fixture
def kids() -> Any:
    made: Any = (Kid(there=True), Kid(there=False))
    yield made
    for kid in made:
        kid.close()


def test_what_analysis_cannot_take_yet_is_held_for_it(kids: tuple[Any, Any]) -> None:
    edge, analysis = kids
    ends = ChannelEnds(analysis)
    with socket.socket() as listener:
        ends.to_new_child(edge, EDGE, {"type": "start"}, [listener])
    assert edge.told == [{"type": "start"}]
    assert len(edge.ends) == 2  # the channel last
    analysis.there = True
    ends.to_new_analysis(EDGE, edge)
    assert analysis.told == [{"type": "channel", "source": "proxy", "worker": 1}]
    assert edge.told == [{"type": "start"}]  # the one that it has will do
    assert joined(edge.ends[-1], analysis.ends[0])


def test_of_two_that_waited_the_newer_is_handed_on(kids: tuple[Any, Any]) -> None:
    edge, analysis = kids
    ends = ChannelEnds(analysis)
    ends.to_new_child(edge, EDGE, {"type": "start"}, [])
    ends.to_new_child(edge, EDGE, {"type": "start"}, [])  # it had died
    analysis.there = True
    ends.to_new_analysis(EDGE, edge)
    assert len(analysis.ends) == 1
    assert joined(edge.ends[1], analysis.ends[0])


def test_an_analysis_that_was_started_again_gets_a_new_channel(kids: tuple[Any, Any]) -> None:
    edge, analysis = kids
    analysis.there = True
    ends = ChannelEnds(analysis)
    ends.to_new_analysis(EDGE, edge)
    assert edge.told == [{"type": "channel"}]
    assert joined(edge.ends[0], analysis.ends[0])


def test_a_child_that_is_away_brings_its_own(kids: tuple[Any, Any]) -> None:
    edge, analysis = kids
    analysis.there, edge.there = True, False
    ends = ChannelEnds(analysis)
    ends.join(EDGE, edge)
    assert (analysis.told, edge.told) == ([], [])
