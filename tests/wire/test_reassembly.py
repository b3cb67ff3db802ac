"""Segments in any order, twice, or not at all: the same pairs, or a loss that is counted."""

from collections.abc import Iterable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agent.wire import reassembly
from agent.wire.packet import ACK, FIN, RST, SYN
from agent.wire.pair import CLIENT_DISCONNECT, OK, UPSTREAM_UNREACHABLE, Pair
from agent.wire.reassembly import Flows
from tests.wire.wires import SERVER, Connection, Segment, Witness, seen


def request(number: int, size: int = 4) -> bytes:
    body = b"x" * size
    return b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (number, size, body)


def response(number: int, size: int = 4) -> bytes:
    return b"HTTP/1.1 200 OK\r\nN: %d\r\nContent-Length: %d\r\n\r\n%b" % (number, size, b"y" * size)


class Listener:
    """A flow table and the pairs that came out of it."""

    def __init__(self, *, flows_max: int = 100) -> None:
        self.witness = Witness()
        self.flows = Flows(self.witness, port=SERVER, flows_max=flows_max, idle_s=60.0)
        self.pairs: list[Pair] = []

    def hear(self, segments: Iterable[Segment]) -> "Listener":
        for one in segments:
            self.pairs += self.flows.take(one.key, one.seq, one.ack, one.flags, one.data, one.at)
        return self

    @property
    def heard(self) -> list[tuple[bytes, bytes]]:
        return [seen(pair)[:2] for pair in self.pairs]

    @property
    def lost(self) -> int:
        return len(self.witness.given_up) + len(self.witness.dropped)


SIZES = st.lists(st.integers(1, 50), max_size=8)
TALKS = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, 120), SIZES, SIZES), min_size=1, max_size=6
)
STARTS = st.sampled_from([1_000, 2**31 - 40, 2**32 - 60])


def bursts(
    talks: list[tuple[int, int, list[int], list[int]]], start: int
) -> tuple[list[list[Segment]], list[tuple[bytes, bytes]]]:
    """What each side sends at once, in segments, and the exchanges that it makes."""
    wire = Connection(client_seq=start, server_seq=start + 7).open()
    sent = [list(wire.sent)]
    truth = []
    for number, (asked, answered, ask_sizes, answer_sizes) in enumerate(talks):
        truth.append((request(number, asked), response(number, answered)))
        wire.sent.clear()
        wire.ask(truth[-1][0], *ask_sizes)
        sent.append(list(wire.sent))
        wire.sent.clear()
        wire.answer(truth[-1][1], *answer_sizes)
        sent.append(list(wire.sent))
    return sent, truth


@given(TALKS, STARTS, st.randoms(use_true_random=False), st.booleans())
def test_order_and_copies_within_a_burst_do_not_matter(
    talks: list[tuple[int, int, list[int], list[int]]],
    start: int,
    chance: Random,
    handshake: bool,
) -> None:
    if not handshake:
        talks[0] = (*talks[0][:2], [], talks[0][3])  # its first line has to be whole
    sent, truth = bursts(talks, start)
    listener = Listener()
    if handshake:
        listener.hear(sent[0])
    for number, burst in enumerate(sent[1:]):
        # Without a handshake the way in is a request's beginning, which has to come first.
        first = burst[:1] if number == 0 and not handshake else []
        rest = burst[len(first) :]
        mixed = rest + [one for one in burst if chance.random() < 0.3]
        chance.shuffle(mixed)
        listener.hear(first + mixed)
    assert listener.heard == truth
    assert listener.lost == 0


# Long enough for a status line: an answer whose request was missed is known by it.
LONG_SIZES = st.lists(st.integers(20, 50), max_size=8)


@given(
    st.lists(
        st.tuples(st.integers(0, 120), st.integers(0, 120), LONG_SIZES, LONG_SIZES),
        min_size=1,
        max_size=6,
    ),
    STARTS,
    st.lists(st.integers(0, 40), max_size=5),
)
def test_what_is_missing_makes_no_wrong_pair_and_is_counted(
    talks: list[tuple[int, int, list[int], list[int]]], start: int, missing: list[int]
) -> None:
    sent, truth = bursts(talks, start)
    segments = [one for burst in sent for one in burst]
    lost = {at for at in missing if at < len(segments)}
    listener = Listener()
    listener.hear(one for at, one in enumerate(segments) if at not in lost)
    listener.flows.close()
    assert all(one in truth for one in listener.heard)
    missed = len(truth) - len(listener.heard)
    # A request whose answer's beginning is gone as well may leave no trace.
    traceless = sum(1 for asked, answered in _messages(sent) if asked & lost and answered & lost)
    # Of two that were lost on one connection one answer may be taken for the other's.
    hidden = listener.flows.seen["gaps"]
    assert missed <= listener.lost + traceless + hidden


def _messages(sent: list[list[Segment]]) -> list[tuple[set[int], set[int]]]:
    at, spans = 0, []
    for burst in sent:
        spans.append(set(range(at, at + len(burst))))
        at += len(burst)
    return list(zip(spans[1::2], spans[2::2], strict=True))


@given(
    st.lists(
        st.builds(
            Segment,
            key=st.sampled_from([b"ccccssss\x9c\x40\x1f\x40", b"sssscccc\x1f\x40\x9c\x40"]),
            seq=st.integers(0, 120) | st.integers(2**32 - 50, 2**32 - 1),
            ack=st.integers(0, 120),
            flags=st.sampled_from([0, ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST]),
            data=st.sampled_from([b"", request(1), request(2)[:20], response(1), b"zz", b"x" * 30]),
            at=st.floats(1.0, 2.0),
        ),
        max_size=40,
    )
)
def test_no_segments_raise_and_nothing_stays_held(segments: list[Segment]) -> None:
    listener = Listener().hear(segments)
    listener.flows.close()
    assert len(listener.flows) == 0
    for pair in listener.pairs:
        pair.release()
    assert listener.witness.budget.held == 0
    assert listener.flows.stashed_bytes == 0
    assert listener.witness.begun_pairs == len(listener.pairs) + len(listener.witness.given_up)


def test_loopback_shows_every_frame_twice() -> None:
    wire = Connection().open().ask(request(1), 9).answer(response(1), 5, 5)
    wire.ask(request(2)).answer(response(2)).end(from_client=True).end(from_client=False)
    listener = Listener().hear(one for sent in wire.sent for one in (sent, sent))
    assert listener.heard == [(request(1), response(1)), (request(2), response(2))]
    assert listener.lost == 0
    assert len(listener.flows) == 0


def test_a_connection_that_was_there_before_is_joined_at_its_next_request() -> None:
    wire = Connection().ask(b"the end of something").answer(b"and of its answer")
    wire.answer(response(0)).ask(request(1)).answer(response(1))
    listener = Listener().hear(wire.sent)
    assert listener.heard == [(request(1), response(1))]
    assert listener.witness.dropped == ["unmatched"]
    assert listener.flows.seen["joined"] == 1


def test_a_lost_segment_costs_its_exchange_and_no_other() -> None:
    wire = Connection().open()
    for number in range(4):
        wire.ask(request(number, 30), 20, 20).answer(response(number, 30), 20, 20)
    whole = Listener().hear(wire.sent)
    assert len(whole.pairs) == 4
    for missing in range(8, 14):  # of the second exchange
        listener = Listener().hear(one for at, one in enumerate(wire.sent) if at != missing)
        kept = [
            number
            for number in range(4)
            if (request(number, 30), response(number, 30)) in listener.heard
        ]
        assert kept == [0, 2, 3], missing
        assert listener.lost == 1, (missing, listener.witness.given_up, listener.witness.dropped)


def test_overlapping_copies_keep_the_bytes_that_came_first() -> None:
    wire = Connection().open().ask(request(1, 20), 42)
    first, second = wire.sent[-2:]
    other = Segment(first.key, first.seq + 38, first.ack, ACK, b"!" * 9, first.at)
    wire.answer(response(1))
    listener = Listener().hear([*wire.sent[:2], first, other, second, wire.sent[-1]])
    asked, _ = listener.heard[0]
    assert asked == request(1, 20)[:42] + b"!!!!!" + request(1, 20)[47:]


def test_a_keep_alive_probe_is_nothing_new() -> None:
    wire = Connection().open().ask(request(1)).answer(response(1))
    last = wire.sent[-2]
    probe = Segment(last.key, wire.client_seq - 1, wire.server_seq, ACK, b"\0", wire.at)
    listener = Listener().hear([*wire.sent, probe])
    wire.sent.clear()
    listener.hear(wire.ask(request(2)).answer(response(2)).sent)
    assert len(listener.pairs) == 2
    assert listener.lost == 0


def test_too_much_that_came_too_early_is_a_hole() -> None:
    wire = Connection().open().ask(b"x" * 200, *[1] * 200)
    listener = Listener().hear(wire.sent[:2] + wire.sent[3:])
    assert listener.flows.seen["gaps"] >= 1
    assert listener.flows.stashed_bytes == 0


def test_stashes_are_bounded_in_bytes_together() -> None:
    listener = Listener(flows_max=1_000)
    size = 1_000_000
    for port in range(40):
        wire = Connection(client_port=20_000 + port).open().ask(request(1, size * 2), 1, size)
        listener.hear(wire.sent[:2] + wire.sent[3:4])
        assert listener.flows.stashed_bytes <= reassembly.STASH_TOTAL_BYTES_MAX
    assert listener.flows.seen["gaps"] > 0


def test_the_oldest_flows_make_room_for_new_ones() -> None:
    listener = Listener(flows_max=32)
    for port in range(100):
        wire = Connection(client_port=20_000 + port, at=float(port)).open().ask(request(port))
        listener.hear(wire.sent)
        assert len(listener.flows) <= 32
    assert {reason for _, reason in listener.witness.given_up} == {"evicted"}
    newest = wire.answer(response(99)).sent[-1:]
    assert len(listener.hear(newest).pairs) == 1


def test_flows_that_are_quiet_for_long_are_forgotten() -> None:
    listener = Listener().hear(Connection().open().ask(request(1)).sent)
    listener.flows.expire(120.0)
    assert len(listener.flows) == 1
    listener.flows.expire(200.0)
    assert len(listener.flows) == 0
    assert listener.witness.given_up == [(b"/1", "evicted")]


def test_a_new_connection_under_the_same_ports_is_a_new_one() -> None:
    wire = Connection().open().ask(request(1))
    again = Connection(client_seq=77_000, server_seq=88_000, at=101.0).open()
    again.ask(request(2)).answer(response(2))
    listener = Listener().hear(wire.sent + again.sent)
    assert listener.heard == [(request(2), response(2))]
    assert listener.witness.given_up == [(b"/1", "unended")]


def test_ends_of_connections_are_outcomes() -> None:
    cases = {
        "server closes": Connection().open().ask(request(1)).end(from_client=False),
        "server resets": Connection().open().ask(request(1)).reset(from_client=False),
        "client resets": Connection().open().ask(request(1)).reset(from_client=True),
    }
    outcomes = {name: Listener().hear(wire.sent) for name, wire in cases.items()}
    assert {name: listener.pairs[0].outcome for name, listener in outcomes.items()} == {
        "server closes": UPSTREAM_UNREACHABLE,
        "server resets": UPSTREAM_UNREACHABLE,
        "client resets": CLIENT_DISCONNECT,
    }
    assert all(len(listener.flows) == 0 for listener in outcomes.values())


def test_an_end_that_came_too_early_waits_for_what_is_before_it() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 40
    wire = Connection().open().ask(request(1)).answer(answer, 25).end(from_client=False)
    *before, first, second, end = wire.sent
    listener = Listener().hear([*before, first, end])
    assert not listener.pairs
    listener.hear([second])
    assert listener.heard == [(request(1), answer)]
    assert listener.pairs[0].outcome == OK


def test_data_in_the_first_packet_is_read() -> None:
    wire = Connection().open()
    wire.ask(request(1)).answer(response(1))
    syn, accepted, asked, answered = wire.sent
    fast = Segment(syn.key, syn.seq, syn.ack, SYN, asked.data, syn.at)
    accepted = Segment(accepted.key, accepted.seq, wire.client_seq, SYN | ACK, b"", accepted.at)
    assert Listener().hear([fast, accepted, answered]).heard == [(request(1), response(1))]


def test_an_answer_to_a_missed_handshake_is_read() -> None:
    wire = Connection().open().ask(request(1)).answer(response(1))
    syn, accepted, asked, answered = wire.sent
    for heard in ([syn, asked, answered], [accepted, asked, answered]):
        assert len(Listener().hear(heard).pairs) == 1


def test_a_missed_handshake_and_a_missed_answer_make_no_wrong_pair() -> None:
    wire = Connection().open().ask(request(0)).answer(response(0)).ask(request(1))
    syn, _, first, _, *rest = wire.answer(response(1)).sent
    listener = Listener().hear([syn, first, *rest])
    assert listener.heard == [(request(1), response(1))]
    assert listener.witness.given_up == [(b"/0", "gap")]


def test_pipelined_requests_are_not_joined_while_another_answer_is_due() -> None:
    wire = Connection().open()
    for number in range(4):
        wire.ask(request(number))
    for number in range(4):
        wire.answer(response(number))
    wire.ask(request(9)).answer(response(9))
    # Too early for so long that it is a hole: the way in must not be a request in the middle.
    for missing in (2, 3, 4):
        sent = [one for at, one in enumerate(wire.sent) if at != missing]
        listener = Listener().hear(sent)
        assert (request(9), response(9)) in listener.heard
        truth = [(request(number), response(number)) for number in (0, 1, 2, 3, 9)]
        assert all(one in truth for one in listener.heard), missing


def test_what_is_not_for_the_port_makes_no_flow() -> None:
    listener = Listener()
    listener.hear([Segment(b"aaaabbbb\0\1\0\2", 1, 1, ACK, request(1), 1.0)])
    assert len(listener.flows) == 0
    assert listener.flows.seen["other_port"] == 1


def test_a_flow_that_was_not_understood_gets_another_chance() -> None:
    wire = Connection().open().ask(b"nonsense\r\n\r\n").answer(response(0)).ask(request(1))
    listener = Listener().hear(wire.answer(response(1)).sent)
    assert listener.heard == [(request(1), response(1))]


def test_another_protocol_is_left_alone() -> None:
    wire = Connection().open().ask(b"\x16\x03\x01" + b"z" * 90).answer(b"\x16\x03\x01")
    wire.ask(request(1)).answer(response(1))
    listener = Listener().hear(wire.sent)
    assert listener.heard == []
    assert listener.witness.dropped == ["tls"]
    assert len(listener.flows) == 1
    listener.hear(wire.end(from_client=False).sent[-1:])
    assert len(listener.flows) == 0
