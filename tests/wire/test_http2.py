import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.http2 import (
    BLOCK_BYTES_MAX,
    DataCame,
    DirectionReader,
    Event,
    HeaderReader,
    HeadersCame,
    Http2Error,
    Reset,
    changes_table,
)
from tests.wire.h2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PRIORITIZED,
    PROMISE,
    RST,
    SETTINGS,
    WINDOW,
    Side,
    frame,
)

ASKED = [(":method", "POST"), (":path", "/s/M"), ("x-request-id", "a"), ("te", "trailers")]
NAMES = st.sampled_from([":path", "content-type", "x-request-id", "grpc-status", "te", "x-a"])
VALUES = st.text(alphabet="abc/:0123456789 ", max_size=12)
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=6)


def read(*pieces: bytes) -> list[Event]:
    reader = DirectionReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def why(*pieces: bytes) -> str:
    with pytest.raises(Http2Error) as refused:
        read(*pieces)
    return refused.value.reason


def joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def test_frames_that_mean_nothing_here_are_passed_over() -> None:
    stream = (
        frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\x64")
        + frame(PING, 0, 0, bytes(8))
        + frame(WINDOW, 0, 3, b"\0\0\xff\xff")
        + frame(200, 0, 7, b"of an extension")
        + frame(DATA, END_STREAM, 1, b"hi")
        + frame(RST, 0, 3, b"\0\0\0\x08")
    )
    assert read(stream) == [
        DataCame(stream=1, data=b"hi", ends=True),
        Reset(stream=3, error=8),
    ]


def test_padding_and_priority_are_no_part_of_what_came() -> None:
    block = Side().block(ASKED)
    flags = END_HEADERS | PADDED | PRIORITIZED
    headers = frame(HEADERS, flags, 1, b"\x03" + b"\0\0\0\0\x10" + block + bytes(3))
    data = frame(DATA, PADDED, 1, b"\x02hi" + bytes(2))
    assert read(headers + data) == [
        HeadersCame(stream=1, headers=joined(ASKED), ends=False),
        DataCame(stream=1, data=b"hi", ends=False),
    ]


def test_a_block_may_go_on_in_further_frames() -> None:
    block = Side().block(ASKED)
    stream = (
        frame(HEADERS, END_STREAM, 5, block[:3])
        + frame(CONTINUATION, 0, 5, block[3:4])
        + frame(CONTINUATION, END_HEADERS, 5, block[4:])
    )
    assert read(stream) == [HeadersCame(stream=5, headers=joined(ASKED), ends=True)]


def test_a_promised_request_is_read_for_the_table_and_forgotten() -> None:
    side = Side()
    promise = frame(PROMISE, END_HEADERS, 1, b"\0\0\0\x02" + side.block(ASKED))
    assert read(promise + side.headers(1, ASKED)) == [
        HeadersCame(stream=1, headers=joined(ASKED), ends=False)
    ]


@pytest.mark.parametrize(
    "stream",
    [
        frame(HEADERS, 0, 1, b"\x82") + frame(DATA, 0, 1, b"x"),
        frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 3, b"\x84"),
        frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
        frame(HEADERS, END_HEADERS, 0, b"\x82"),
        frame(DATA, 0, 0, b"x"),
        frame(DATA, PADDED, 1, b"\x05hi"),
        frame(DATA, PADDED, 1, b""),
        frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0"),
        frame(RST, 0, 1, b"\0"),
    ],
)
def test_frames_that_cannot_be_placed_end_the_reading(stream: bytes) -> None:
    assert why(stream) == "http2_frame_malformed"


@pytest.mark.parametrize("block", [b"\xbf", b"\x40", b"\x80", b"\x3f\xff\xff\xff\x7f"])
def test_blocks_that_cannot_be_unpacked_end_the_reading(block: bytes) -> None:
    assert why(frame(HEADERS, END_HEADERS, 1, block)) == "http2_headers_malformed"


def test_a_block_without_end_is_not_collected() -> None:
    piece = b"\0\x01a" + b"\x7f\x80\x7f" + bytes(16_255)
    frames = [frame(CONTINUATION, 0, 1, piece)] * (BLOCK_BYTES_MAX // len(piece) + 1)
    assert why(frame(HEADERS, 0, 1, piece), *frames) == "http2_headers_too_large"


def test_a_frame_of_headers_too_long_is_not_waited_for() -> None:
    head = (1 << 23).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS)) + (1).to_bytes(4, "big")
    assert why(head) == "http2_headers_too_large"


def test_a_few_bytes_do_not_become_megabytes() -> None:
    side = Side()
    long = side.block([("x-long", "v" * 4_000)])
    index = side.block([("x-long", "v" * 4_000)])
    assert len(index) == 1
    reader = HeaderReader()
    reader.read(long)
    with pytest.raises(Http2Error) as refused:
        reader.read(index * 1_000)
    assert refused.value.reason == "http2_headers_too_large"


def test_a_table_larger_than_allowed_is_not_followed() -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 1 << 20
    with pytest.raises(Http2Error):
        HeaderReader().read(encoder.encode([("a", "b")]))


def test_the_same_bytes_mean_something_else_once_the_table_has_changed() -> None:
    side = Side()
    reader = HeaderReader()
    reader.read(side.block([("x-a", "first")]))
    again = side.block([("x-a", "first")])
    assert reader.read(again) == reader.read(again) == {"x-a": "first"}
    reader.read(side.block([("x-a", "second")]))
    assert reader.read(again) == {"x-a": "second"}


@given(st.lists(LISTS, max_size=8))
def test_blocks_in_order_read_as_they_were_written(lists: list[list[tuple[str, str]]]) -> None:
    side, reader = Side(), HeaderReader()
    for headers in [*lists, *lists]:
        assert reader.read(side.block(headers)) == joined(headers)


@given(st.lists(LISTS, max_size=5), st.integers(0, 2), st.data())
def test_only_blocks_that_leave_the_table_alone_are_remembered(
    lists: list[list[tuple[str, str]]], kept: int, data: st.DataObject
) -> None:
    encoder, decoder = hpack.Encoder(), hpack.Decoder()
    for headers in lists:
        sensitive = data.draw(st.booleans())
        block = encoder.encode([(name, value, sensitive) for name, value in headers])
        before = list(decoder.header_table.dynamic_entries)
        decoder.decode(block)
        changed = before != list(decoder.header_table.dynamic_entries)
        assert changes_table(block) or not changed


@given(st.binary(max_size=60))
def test_a_block_of_any_bytes_that_leaves_the_table_alone_is_known_as_such(block: bytes) -> None:
    decoder = hpack.Decoder()
    try:
        decoder.decode(block, raw=True)
    except hpack.HPACKError:
        pass
    if decoder.header_table.dynamic_entries:
        assert changes_table(block)


STREAMS = st.lists(
    st.one_of(
        st.builds(
            frame,
            st.integers(0, 10),
            st.integers(0, 255),
            st.integers(0, 9),
            st.binary(max_size=30),
        ),
        st.binary(max_size=20),
    ),
    max_size=8,
).map(b"".join)


def told(stream: bytes, cuts: list[int]) -> tuple[list[Event], str]:
    reader = DirectionReader()
    events: list[Event] = []
    at = 0
    reason = ""
    try:
        for cut in [*cuts, len(stream)]:
            events.extend(reader.feed(stream[at : at + cut]))
            at += cut
    except Http2Error as error:
        reason = error.reason
    return events, reason


@given(STREAMS, st.lists(st.integers(0, 40)))
def test_how_the_bytes_were_cut_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    assert told(stream, cuts) == told(stream, [])


@given(st.lists(LISTS, min_size=1, max_size=6), st.lists(st.integers(0, 40)))
def test_nor_does_it_where_frames_make_sense(
    lists: list[list[tuple[str, str]]], cuts: list[int]
) -> None:
    side = Side()
    stream = b"".join(side.headers(1 + 2 * n, headers) for n, headers in enumerate(lists))
    events, reason = told(stream, cuts)
    assert reason == ""
    assert [dict(e.headers) for e in events if isinstance(e, HeadersCame)] == [
        joined(headers) for headers in lists
    ]
