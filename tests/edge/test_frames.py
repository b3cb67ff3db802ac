import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge import frames
from agent.edge.frames import GOAWAY_FRAME, BrokenFraming, FrameWalk, Streams
from tests.wire.h2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST,
    SETTINGS,
    WINDOW,
    Client,
    Server,
    frame,
)

NOISE = frame(SETTINGS, 1, 0) + frame(PING, 0, 0, bytes(8)) + frame(WINDOW, 0, 0, bytes(4))
OPEN = frame(SETTINGS, 0, 0)


class Pair:
    """Both directions of one connection; `keep` bytes of the data of each stream."""

    def __init__(self, *, keep: int = 0, may_keep: bool = True) -> None:
        self.opened: list[int] = []
        self.keep = keep
        self.may_keep = may_keep
        self.streams = Streams()
        self.up = FrameWalk(
            self.streams, from_client=True, opened=self._opened, may_keep=lambda: self.may_keep
        )
        self.down = FrameWalk(self.streams, from_client=False, may_keep=lambda: self.may_keep)
        self.up.other_kept, self.down.other_kept = self.down.kept, self.up.kept

    def _opened(self, stream: int) -> int:
        self.opened.append(stream)
        return self.keep

    def client(self, data: bytes) -> bytes:
        return b"".join(self.up.walk(data))

    def server(self, data: bytes) -> bytes:
        return b"".join(self.down.walk(data))


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.client(OPEN)
    pair.server(OPEN)
    return pair


def head(stream: int, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, b"\x82")


def test_headers_of_every_call_are_shipped_and_data_of_none(pair: Pair) -> None:
    assert pair.client(NOISE + head(1) + frame(DATA, END_STREAM, 1, b"x" * 99)) == head(1)
    trailers = head(1, END_HEADERS | END_STREAM)
    assert pair.server(head(1) + frame(DATA, 0, 1, b"y" * 99) + trailers) == head(1) + trailers
    assert pair.opened == [1]
    assert pair.streams.open == set()


def test_data_of_kept_streams_is_shipped_with_its_frames() -> None:
    pair = Pair(keep=100)
    asked = head(1) + frame(DATA, END_STREAM, 1, b"question")
    answer = head(1) + frame(DATA, 0, 1, b"answer") + head(1, END_HEADERS | END_STREAM)
    assert pair.client(OPEN + asked + NOISE) == asked
    assert pair.server(OPEN + NOISE + answer) == answer
    assert not pair.up.kept
    assert not pair.down.kept


def test_data_is_kept_up_to_the_limit_in_whole_frames() -> None:
    pair = Pair(keep=10)
    pair.client(OPEN)
    first, second, third = (frame(DATA, 0, 1, b"x" * size) for size in (8, 3, 1))
    assert pair.client(head(1) + first + second + third) == head(1) + first


def test_where_there_is_no_room_data_is_left_out_and_headers_are_not() -> None:
    pair = Pair(keep=100)
    pair.client(OPEN)
    data = frame(DATA, 0, 1, b"x")
    pair.may_keep = False
    assert pair.client(head(1) + data) == head(1)
    pair.may_keep = True
    assert pair.client(data + head(3)) == head(3)  # a hole in it would look whole


def test_the_end_of_an_answer_is_told_though_its_data_is_not(pair: Pair) -> None:
    pair.client(head(1))
    answer = head(1) + frame(DATA, END_STREAM, 1, b"y" * 99)
    assert pair.server(answer) == head(1) + frame(DATA, END_STREAM, 1)


def test_resets_and_goodbyes_are_shipped(pair: Pair) -> None:
    pair.client(head(1) + head(3))
    reset, goodbye = frame(RST, 0, 1, bytes(4)), frame(GOAWAY, 0, 0, bytes(8))
    assert pair.client(reset) == reset
    assert pair.server(goodbye) == goodbye
    assert pair.streams.open == {3}


def test_trailers_of_the_client_open_no_stream(pair: Pair) -> None:
    pair.client(head(1))
    pair.server(head(1, END_HEADERS | END_STREAM))
    pair.client(head(1, END_HEADERS | END_STREAM))
    assert pair.opened == [1]
    assert pair.streams.open == set()


@pytest.mark.parametrize(
    "data",
    [
        frame(DATA, 0, 0, b"x"),
        head(0),
        head(2),
        frame(CONTINUATION, END_HEADERS, 1, b"x"),
        head(1, 0) + frame(PING, 0, 0, bytes(8)),
        head(1, 0) + frame(DATA, 0, 1, b"x"),
        head(1, 0) + head(3),
    ],
)
def test_what_is_no_http2_is_seen(pair: Pair, data: bytes) -> None:
    with pytest.raises(BrokenFraming):
        pair.client(data)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", head(1), NOISE[9:] + OPEN])
def test_a_direction_begins_with_settings(data: bytes) -> None:
    with pytest.raises(BrokenFraming):
        Pair().server(data)


def test_streams_that_nobody_answers_are_bounded(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "OPEN_STREAMS_MAX", 3)
    with pytest.raises(BrokenFraming):
        pair.client(b"".join(head(stream) for stream in range(1, 9, 2)))


def test_a_frame_may_be_put_only_between_two_others(pair: Pair) -> None:
    walk = pair.down
    assert walk.gap(0) == walk.gap(50) == 0
    data = frame(DATA, 0, 1, b"x" * 20)
    walk.walk(data[:15])
    assert [walk.gap(size) for size in (0, 13, 14, 50)] == [-1, -1, 14, 14]
    walk.walk(data[15:])
    assert walk.gap(0) == 0
    walk.walk(OPEN[:4])
    assert walk.gap(50) == -1  # a head has begun
    walk.walk(OPEN[4:] + head(1, 0))
    assert walk.gap(50) == -1  # headers go on in the next frame
    walk.walk(frame(CONTINUATION, END_HEADERS, 1, b""))
    assert walk.gap(0) == 0


def test_nothing_is_put_before_the_server_has_greeted() -> None:
    assert Pair().down.gap(0) == -1


def test_our_goaway_is_one() -> None:
    assert frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)) == GOAWAY_FRAME


def calls() -> tuple[bytes, bytes]:
    """Both directions of a few calls with noise between them."""
    client, server = Client(), Server()
    up, down = client.opening()[len(PREFACE) :], server.opening()
    for stream in (1, 3, 5):
        up += NOISE + client.asks(stream, "/s/M", b"q" * stream * 9, ("x", str(stream)))
        down += server.answers(stream, b"a" * stream) + NOISE
    return up + frame(RST, 0, 5, bytes(4)), down


def walked(stream: bytes, cuts: list[int], *, keep: int) -> tuple[bytes, list[int], set[int]]:
    pair = Pair(keep=keep)
    shipped = b""
    at = 0
    for cut in [*cuts, len(stream)]:
        shipped += pair.client(stream[at : at + cut])
        at += cut
    return shipped, pair.opened, pair.streams.open


@given(st.lists(st.integers(0, 50)), st.sampled_from([0, 30, 1_000]))
def test_how_the_bytes_were_cut_does_not_matter(cuts: list[int], keep: int) -> None:
    up, _ = calls()
    assert walked(up, cuts, keep=keep) == walked(up, [], keep=keep)


@given(st.lists(st.integers(0, 50)))
def test_in_the_other_direction_neither(cuts: list[int]) -> None:
    up, down = calls()

    def shipped(cuts: list[int]) -> bytes:
        pair = Pair(keep=1_000)
        pair.client(up[:-13])
        found, at = b"", 0
        for cut in [*cuts, len(down)]:
            found += pair.server(down[at : at + cut])
            at += cut
        return found

    assert shipped(cuts) == shipped([])
    assert shipped([]) == b"".join(
        piece for piece in pieces(down) if piece[3] in (DATA, HEADERS, RST, CONTINUATION, GOAWAY)
    )


def pieces(stream: bytes) -> list[bytes]:
    found = []
    while stream:
        end = 9 + int.from_bytes(stream[:3], "big")
        found.append(stream[:end])
        stream = stream[end:]
    return found


@given(st.binary(max_size=80), st.lists(st.integers(0, 20)))
def test_any_bytes_are_walked_or_are_no_http2(data: bytes, cuts: list[int]) -> None:
    """And whichever it is, it is so however they were cut."""

    def outcome(cuts: list[int]) -> tuple[bytes, list[int], set[int]] | None:
        try:
            return walked(OPEN + data, cuts, keep=10)
        except BrokenFraming:
            return None

    assert outcome(cuts) == outcome([])
