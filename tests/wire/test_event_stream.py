"""Server-sent events by the standard's own examples and by streams cut anywhere; JSON Lines."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.event_stream import EventStream, JsonLines, LineSplitter, ServerEvent


def events(*parts: bytes, event_bytes_max: int = 1_000) -> list[ServerEvent]:
    stream = EventStream(event_bytes_max=event_bytes_max)
    return [event for part in parts for event in stream.feed(part)]


def said(*parts: bytes) -> list[tuple[str, str, str]]:
    return [(event.type, event.data, event.last_id) for event in events(*parts)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # The examples of the standard.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
            b"data:  third event\n",
            [("message", "first event", "1"), ("message", "second event", "")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
        (b"data:  a \n\n", [("message", " a ", "")]),
        # Line ends, alone and mixed.
        (b"data: a\rdata: b\r\r", [("message", "a\nb", "")]),
        (b"data: a\r\ndata: b\r\n\r\n", [("message", "a\nb", "")]),
        (b"data: a\n\rdata: b\r\n\n", [("message", "a", ""), ("message", "b", "")]),
        # A byte order mark once, at the beginning.
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", "a", "")]),
        # Types, and ids that stay until another comes.
        (
            b"event: error\ndata: a\nid: 7\n\ndata: b\n\nevent: ping\n\ndata: c\n\n",
            [("error", "a", "7"), ("message", "b", "7"), ("message", "c", "7")],
        ),
        (b"id: a\0b\ndata: x\n\n", [("message", "x", "")]),
        # Fields that mean nothing here, and bytes that are no UTF-8.
        (b"Data: x\nfoo: bar\ndata : y\ndata: z\n\n", [("message", "z", "")]),
        (b"data: \xff\n\n", [("message", "\ufffd", "")]),
        (b"", []),
        (b"\n\n\r\r\n", []),
    ],
)
def test_a_stream_is_read_as_a_browser_reads_it(
    stream: bytes, expected: list[tuple[str, str, str]]
) -> None:
    assert said(stream) == expected
    assert said(*(bytes([byte]) for byte in stream)) == expected


def test_the_time_to_come_back_is_digits_only() -> None:
    stream = EventStream()
    stream.feed(b"retry: 3000\nretry: 3s\nretry: -1\nretry:\nretry: " + b"9" * 400 + b"\n")
    assert stream.retry_ms == 3_000


def test_what_no_empty_line_ended_is_there_at_the_end_for_those_who_want_it() -> None:
    stream = EventStream()
    assert stream.feed(b'data: {"a": 1}\n\ndata: [DONE]')[0].data == '{"a": 1}'
    last = stream.close()
    assert last is not None
    assert last.data == "[DONE]"
    assert EventStream().close() is None


def test_an_event_that_is_too_long_is_passed_over_and_counted() -> None:
    stream = EventStream(event_bytes_max=20)
    long = b"data: " + b"x" * 50
    taken = stream.feed(b"data: a\n\n" + long + b"\n\ndata: b\n\n")
    assert [event.data for event in taken] == ["a", "b"]
    many = b"data: 12345\n" * 10
    assert [event.data for event in stream.feed(many + b"\ndata: c\n\n")] == ["c"]
    assert stream.oversized == 2


def test_a_line_without_end_is_not_kept() -> None:
    splitter = LineSplitter(line_bytes_max=100)
    for _ in range(1_000):
        assert splitter.feed(b"x" * 90) == []
    assert splitter.close() is None
    assert splitter.oversized == 1
    assert splitter.feed(b"\nafter\n") == [b"", b"after"]


STREAMS = st.lists(
    st.sampled_from(
        [b"data", b": ", b":", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"id", b"event: e", b"x",
         b"\0", b"retry:5", b"\xff", b"data: y\n\n", b" ", b"long" * 8]
    ),
    max_size=60,
).map(b"".join)  # fmt: skip


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(place, len(stream)) for place in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


@given(STREAMS, st.lists(st.integers(0, 300)))
def test_how_the_bytes_were_cut_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    whole, pieces = EventStream(event_bytes_max=24), EventStream(event_bytes_max=24)
    at_once = whole.feed(stream)
    in_pieces = [event for part in cut(stream, cuts) for event in pieces.feed(part)]
    assert in_pieces == at_once
    assert (pieces.oversized, pieces.retry_ms) == (whole.oversized, whole.retry_ms)
    assert pieces.close() == whole.close()
    assert all(len(event.data.encode()) <= 3 * 24 for event in at_once)  # \xff becomes three


@given(STREAMS)
def test_the_reading_agrees_with_one_written_line_by_line(stream: bytes) -> None:
    """The algorithm once more, as slowly and as literally as the standard has it."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    expected: list[tuple[str, str, str]] = []
    kind = last_id = ""
    data = None
    for line in text.split("\n")[:-1]:
        if line == "":
            if data is not None:
                expected.append((kind or "message", data.removesuffix("\n"), last_id))
            kind, data = "", None
            continue
        name, colon, value = line.partition(":")
        value = value[1:] if colon and value.startswith(" ") else value
        if name == "data":
            data = (data or "") + value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    assert said(stream) == expected


def test_json_lines_are_those_that_hold_something() -> None:
    lines = JsonLines(line_bytes_max=30)
    assert lines.feed(b'{"a": 1}\r\n\n  \n{"b"') == [b'{"a": 1}']
    assert lines.feed(b": 2}\n" + b"x" * 40 + b'\n{"c": 3}') == [b'{"b": 2}']
    assert lines.close() == b'{"c": 3}'
    assert lines.close() is None
    assert lines.oversized == 1


@given(STREAMS, st.lists(st.integers(0, 300)))
def test_how_lines_were_cut_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    whole, pieces = JsonLines(line_bytes_max=16), JsonLines(line_bytes_max=16)
    at_once = whole.feed(stream)
    assert [line for part in cut(stream, cuts) for line in pieces.feed(part)] == at_once
    assert pieces.close() == whole.close()
    assert all(len(line) <= 16 for line in at_once)
