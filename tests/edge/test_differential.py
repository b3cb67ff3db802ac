"""Against another implementation: whatever the edge accepts, h11 frames in the same way.

A server behind us that sees two requests where we saw one can be made to answer somebody else's.
"""

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.edge.framing import Refused, RequestFraming
from agent.edge.heads import HeadReader

_NAMES = st.sampled_from([b"Host", b"X-A", b"Content-Type", b"accept"])
_VALUES = st.from_regex(rb"[!-~]([ -~]{0,10}[!-~])?", fullmatch=True)
_BODIES = st.binary(max_size=40)


@st.composite
def requests(draw: st.DrawFn, *, exact: bool = False) -> bytes:
    lines = [draw(st.sampled_from([b"POST / HTTP/1.1", b"PUT /a?b=c HTTP/1.1", b"GET / HTTP/1.1"]))]
    lines += [b"Host: a"]
    lines += [
        name + b": " + value
        for name, value in draw(st.lists(st.tuples(_NAMES.filter(lambda n: n != b"Host"), _VALUES)))
    ]
    body = draw(_BODIES)
    if draw(st.booleans()):
        size = len(body) + (0 if exact else draw(st.sampled_from([0, 0, 0, -1, 1])))
        return b"\r\n".join([*lines, b"Content-Length: %d" % size, b"", b""]) + body
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    extension = draw(st.sampled_from([b"", b"", b";a", b";a=b"]))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailers = b"".join(draw(st.lists(st.sampled_from([b"X-T: 1\r\n", b"Y: \r\n"]), max_size=2)))
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""])
    return head + chunks + b"0\r\n" + trailers + b"\r\n"


def _ours(stream: bytes, cuts: list[int]) -> tuple[list[bytes], bool]:
    """The requests that the edge would forward, and whether it refused what came after."""
    framing = RequestFraming(HeadReader(None, lambda _: 0))
    found: list[bytes] = []
    held = b""
    framing.complete = True
    places = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    at = 0
    try:
        for place in places:
            data, at = stream[at:place], place
            while data:
                if framing.complete:
                    held += data
                    if len(held) == framing.last.size and held.startswith(framing.last.text):
                        found.append(framing.again(held))
                        break
                    end = held.find(b"\r\n\r\n")
                    if end < 0:
                        break
                    _, piece = framing.begin(held, end)
                    held = b""
                    found.append(piece)
                else:
                    found[-1] += framing.more(data)
                data, framing.rest = framing.rest, b""
    except Refused:
        return found, True
    finally:
        if not framing.complete and found:
            found.pop()
    return found, False


def _theirs(stream: bytes) -> list[bytes]:
    """Bodies of the whole requests that h11 finds."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    bodies: list[bytes] = []
    body = b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return bodies
            if isinstance(event, h11.Data):
                body += event.data
            if isinstance(event, h11.EndOfMessage):
                bodies.append(body)
                body = b""
                answer = h11.Response(status_code=200, headers=[("content-length", "0")])
                connection.send(answer)
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return bodies


def _leftover(piece: bytes) -> bytes:
    """What h11 takes for the beginning of something behind the request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(piece)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return b"an end that never comes"
            if event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
                return bytes(connection.trailing_data[0])
    except h11.RemoteProtocolError:
        return b""


@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(0, 300), max_size=4))
def test_h11_sees_the_same_messages(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(messages)
    ours, _ = _ours(stream, cuts)
    theirs = _theirs(stream)
    assert b"".join(ours) == stream[: len(b"".join(ours))]
    assert len(ours) <= len(theirs)
    for piece, body in zip(ours, theirs, strict=False):
        assert _theirs(piece) == [body]


@given(
    st.lists(requests(exact=True), min_size=1, max_size=4),
    st.lists(st.integers(0, 300), max_size=4),
)
def test_requests_as_libraries_write_them_all_pass(messages: list[bytes], cuts: list[int]) -> None:
    assert _ours(b"".join(messages), cuts) == (messages, False)


# What differs between servers: signs and blanks where syntax is, and headers that frame a body.
_TROUBLE = [
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"\t",
        b"\x00",
        b"\x0b",
        b":",
        b";",
        b",",
        b"0",
        b"1",
        b"_",
        b"+",
    ),
    *(b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 3\r\n", b"Content-Length : 3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: b\r\n"),
    *(b"transfer-encoding:chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
]
_TROUBLES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.sampled_from(_TROUBLE)), max_size=3
)


@given(
    st.lists(requests(), min_size=1, max_size=3),
    _TROUBLES,
    st.lists(st.integers(0, 400), max_size=3),
)
@settings(max_examples=400)
def test_what_we_forward_h11_frames_alike_or_refuses(
    messages: list[bytes], troubles: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    """However the bytes were spoilt: one request for us is never two for the server behind."""
    stream = b"".join(messages)
    for at, size, trouble in troubles:
        at %= len(stream) + 1
        stream = stream[:at] + trouble + stream[at + size :]
    ours, _ = _ours(stream, cuts)
    for piece in ours:
        theirs = _theirs(piece)
        assert len(theirs) <= 1
        if theirs:
            assert piece.endswith(theirs[0]) or b"chunked" in piece.lower()
        assert _leftover(piece) == b""


@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(0, 300), max_size=6))
def test_how_the_requests_were_cut_does_not_matter(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(messages)
    assert _ours(stream, cuts) == _ours(stream, [])


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_noise_is_refused_or_awaited_and_never_raises(noise: bytes, cuts: list[int]) -> None:
    _ours(noise + b"\r\n\r\n", cuts)
