"""A dialogue on one connection becomes pairs, however its bytes were cut."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.pair import CLIENT_DISCONNECT, OK, UPSTREAM_UNREACHABLE, Pair
from agent.wire.pairing import PIPELINED_MAX, Conversation
from tests.wire.wires import Witness, pieces, seen


def post(body: bytes = b"{}", *, path: bytes = b"/predict", also: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (
        path,
        also,
        len(body),
        body,
    )


def reply(body: bytes = b"[]", *, status: bytes = b"200 OK", also: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, also, len(body), body)


CHUNKED_POST = (
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x\r\nde\r\n0\r\na: b\r\n\r\n"
)
CHUNKED_REPLY = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1, \r\n2\r\n2]\r\n0\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"
HEAD = b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"

EXCHANGES = [
    (post(), reply()),
    (post(b"x" * 70), reply(b"y" * 90)),
    (CHUNKED_POST, CHUNKED_REPLY),
    (post(also=b"Expect: 100-continue\r\n"), CONTINUE + reply()),
    (post(), CONTINUE + CONTINUE + CHUNKED_REPLY),
    (HEAD, HEAD_REPLY),
    (b"GET /g HTTP/1.1\r\nx-request-id: one\r\n\r\n", NO_CONTENT),
    (b"GET /g HTTP/1.0\r\n\r\n", NOT_MODIFIED),
    (b"DELETE /d HTTP/1.1\r\n\r\n", reply(b"", status=b"500 Oh")),
]
CUTS = st.lists(st.integers(1, 60), max_size=60)


class Dialogue:
    """A conversation whose pairs are collected."""

    def __init__(self, **limits: int) -> None:
        self.witness = Witness(**limits)
        self.talk = Conversation(self.witness)
        self.pairs: list[Pair] = []
        self.at = 1.0

    def client(self, data: bytes, cuts: Sequence[int] = ()) -> "Dialogue":
        for piece in pieces(data, cuts):
            self.at += 1.0
            self.pairs += self.talk.request(piece, self.at)
        return self

    def server(self, data: bytes, cuts: Sequence[int] = ()) -> "Dialogue":
        for piece in pieces(data, cuts):
            self.at += 1.0
            self.pairs += self.talk.response(piece, self.at)
        return self

    @property
    def seen(self) -> list[tuple[bytes, bytes, int, bool, bool, int]]:
        return [seen(pair) for pair in self.pairs]


@given(st.lists(st.sampled_from(EXCHANGES), min_size=1, max_size=5), CUTS, CUTS)
def test_how_the_bytes_were_cut_does_not_matter(
    exchanges: list[tuple[bytes, bytes]], asked: list[int], answered: list[int]
) -> None:
    dialogue = Dialogue()
    for request, response in exchanges:
        dialogue.client(request, asked).server(response, answered)
    assert [one[:2] for one in dialogue.seen] == exchanges
    assert all(one[3:] == (False, False, OK) for one in dialogue.seen)
    assert not dialogue.witness.dropped
    assert not dialogue.witness.given_up
    for pair in dialogue.pairs:
        pair.release()
    assert dialogue.witness.budget.held == 0


@given(st.lists(st.sampled_from(EXCHANGES), min_size=2, max_size=6), CUTS, CUTS)
def test_pipelined_requests_are_paired_in_order(
    exchanges: list[tuple[bytes, bytes]], asked: list[int], answered: list[int]
) -> None:
    dialogue = Dialogue()
    dialogue.client(b"".join(request for request, _ in exchanges), asked)
    dialogue.server(b"".join(response for _, response in exchanges), answered)
    assert [one[:2] for one in dialogue.seen] == exchanges


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=12))
def test_no_bytes_raise_and_nothing_stays_held(told: list[tuple[bool, bytes]]) -> None:
    dialogue = Dialogue()
    for from_client, data in told:
        (dialogue.client if from_client else dialogue.server)(data)
    dialogue.pairs += dialogue.talk.server_ended(99.0)
    dialogue.talk.lost("evicted")
    for pair in dialogue.pairs:
        pair.release()
    assert dialogue.witness.budget.held == 0
    assert dialogue.witness.begun_pairs == len(dialogue.pairs) + len(dialogue.witness.given_up)


@given(st.sampled_from(EXCHANGES), st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_damaged_bytes_never_make_two_pairs_of_one(
    exchange: tuple[bytes, bytes], at: int, damage: bytes
) -> None:
    request, response = exchange
    dialogue = Dialogue()
    dialogue.client(request[:at] + damage + request[at + len(damage) :])
    dialogue.server(response)
    assert len(dialogue.pairs) <= 1


def test_times_are_those_of_the_first_and_last_bytes() -> None:
    dialogue = Dialogue()
    dialogue.client(post(), [5]).server(CONTINUE).server(reply(b"ab"), [10, 28, 1])
    (pair,) = dialogue.pairs
    # 2, 3: the request; 4: the interim answer; 5, 6: the head; 7, 8: a byte of the body each
    assert (pair.started_at, pair.first_byte_at, pair.first_body_at, pair.finished_at) == (
        2.0,
        5.0,
        7.0,
        8.0,
    )


def test_an_answer_without_length_lasts_until_the_server_closes() -> None:
    dialogue = Dialogue().client(post()).server(b"HTTP/1.1 200 OK\r\n\r\nabc").server(b"def")
    assert not dialogue.pairs
    dialogue.pairs += dialogue.talk.server_ended(50.0)
    assert dialogue.seen[0][1:] == (b"HTTP/1.1 200 OK\r\n\r\nabcdef", 200, False, False, OK)
    assert dialogue.pairs[0].finished_at == 50.0


def test_a_reset_in_an_answer_without_length_truncates_it() -> None:
    dialogue = Dialogue().client(post()).server(b"HTTP/1.1 200 OK\r\n\r\nabc")
    dialogue.pairs += dialogue.talk.server_ended(50.0, reset=True)
    assert dialogue.seen[0][3:] == (False, True, UPSTREAM_UNREACHABLE)


def test_a_client_that_leaves_is_a_disconnect() -> None:
    dialogue = Dialogue().client(post()).server(reply(b"long")[:-2])
    dialogue.pairs += dialogue.talk.client_reset(50.0)
    assert dialogue.seen[0][3:] == (False, True, CLIENT_DISCONNECT)
    closed = Dialogue().client(post())
    closed.talk.client_ended()
    closed.pairs += closed.talk.server_ended(50.0)
    assert closed.seen[0][2:] == (0, False, True, CLIENT_DISCONNECT)


def test_a_client_that_said_all_may_still_be_answered() -> None:
    dialogue = Dialogue().client(post())
    dialogue.talk.client_ended()
    dialogue.server(reply())
    assert dialogue.seen[0][5] == OK


def test_an_answer_before_the_end_of_the_request_waits_for_it() -> None:
    dialogue = Dialogue().client(post(b"x" * 50)[:-20])
    dialogue.server(reply(status=b"413 Too Large"))
    assert not dialogue.pairs
    dialogue.client(b"x" * 20)
    assert dialogue.seen == [
        (post(b"x" * 50), reply(status=b"413 Too Large"), 413, False, False, OK)
    ]


def test_an_answered_request_that_never_ends_is_cut_and_says_so() -> None:
    dialogue = Dialogue().client(post(b"x" * 50)[:-20]).server(reply(status=b"413 Too Large"))
    dialogue.pairs += dialogue.talk.server_ended(50.0)
    assert dialogue.seen[0][2:] == (413, True, False, OK)


def test_after_an_upgrade_nothing_is_read() -> None:
    upgrade = b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    dialogue = Dialogue().client(upgrade)
    dialogue.server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x05hello")
    assert dialogue.pairs[0].status == 101
    dialogue.client(post()).server(reply())
    assert len(dialogue.pairs) == 1
    assert dialogue.talk.foreign


def test_after_a_connect_nothing_is_read() -> None:
    dialogue = Dialogue().client(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").server(HEAD_REPLY)
    assert dialogue.pairs[0].status == 200
    assert dialogue.talk.foreign


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"), (b"\x16\x03\x01\x00\xa5\x01\0\0", "tls")],
)
def test_another_protocol_is_counted_once(data: bytes, reason: str) -> None:
    dialogue = Dialogue().client(data)
    assert dialogue.talk.foreign
    assert dialogue.witness.dropped == [reason]


@pytest.mark.parametrize(
    "data",
    [
        b"what\r\n\r\n",
        post(also=b"Transfer-Encoding: chunked\r\n"),
        b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000,
    ],
)
def test_requests_that_cannot_be_followed_are_given_up(data: bytes) -> None:
    dialogue = Dialogue().client(data).server(reply())
    assert not dialogue.pairs
    assert dialogue.talk.deaf
    assert not dialogue.talk.foreign
    assert dialogue.witness.dropped == ["malformed"]


@pytest.mark.parametrize("data", [b"what\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000])
def test_answers_that_cannot_be_followed_give_the_request_up(data: bytes) -> None:
    dialogue = Dialogue().client(post()).server(data)
    assert dialogue.witness.given_up == [(b"/predict", "malformed")]
    assert dialogue.witness.budget.held == 0


def test_an_answer_to_nobody_is_counted_and_passed_over() -> None:
    dialogue = Dialogue().server(reply(b"a" * 50), [20, 40]).client(post()).server(reply())
    assert dialogue.witness.dropped == ["unmatched"]
    assert dialogue.seen[0][:2] == (post(), reply())


def test_nobody_pipelines_without_end() -> None:
    dialogue = Dialogue().client(post() * (PIPELINED_MAX + 1))
    assert len(dialogue.witness.given_up) == PIPELINED_MAX
    assert dialogue.witness.budget.held == 0


def test_longer_bodies_are_cut_where_the_limit_is_and_followed_on() -> None:
    dialogue = Dialogue(side_bytes_max=100)
    for cuts in ([], [30, 60, 60]):
        dialogue.client(post(b"x" * 200), cuts).server(reply(b"y" * 300), cuts)
    for request, response, status, request_cut, response_cut, outcome in dialogue.seen:
        assert request == post(b"x" * 200)[:100]
        assert response == reply(b"y" * 300)[:100]
        assert (status, request_cut, response_cut, outcome) == (200, True, True, OK)


def test_all_conversations_together_hold_no_more_than_the_limit() -> None:
    witness = Witness(total_bytes_max=300)
    talks = [Conversation(witness) for _ in range(5)]
    for talk in talks:
        talk.request(post(b"x" * 500)[:-1], 1.0)
        assert witness.budget.held <= 300
    for talk in talks:
        talk.lost("gap")
    assert witness.budget.held == 0


@pytest.mark.parametrize("request_", [b"GET /w HTTP/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n"])
def test_a_length_of_zero_does_not_hide_what_an_answer_means(request_: bytes) -> None:
    """Some servers say it everywhere; in one segment it would pass for a common answer."""
    dialogue = Dialogue().client(request_)
    dialogue.server(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n")
    assert not dialogue.pairs
    status = b"200 OK" if request_.startswith(b"CONNECT") else b"101 Switching Protocols"
    dialogue.server(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
    assert len(dialogue.pairs) == 1
    assert dialogue.talk.foreign
