"""Where messages end, held against llhttp, which the two ends may have used."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.message_ends import (
    UNTIL_CLOSE,
    ChunkedBody,
    ResponseHeads,
    other_protocol,
    starts_request,
    starts_response,
)
from tests.wire.wires import pieces


def chunked(*chunks: bytes, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return body + b"0\r\n" + trailers + b"\r\n"


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
BODIES = st.builds(
    lambda chunks, trailers, extension: chunked(*chunks, trailers=trailers, extension=extension),
    CHUNKS,
    st.sampled_from([b"", b"x: y\r\n", b"x: y\r\nz: 0\r\n"]),
    st.sampled_from([b"", b";a=b", b" ;a"]),
)
CUTS = st.lists(st.integers(1, 30), max_size=40)


@given(BODIES, CUTS)
def test_how_a_chunked_body_was_cut_does_not_matter(body: bytes, cuts: list[int]) -> None:
    walk = ChunkedBody()
    data = body + b"HTTP/1.1 200 OK"
    passed = 0
    for piece in pieces(data, cuts):
        end = walk.end(piece, 0)
        assert not walk.malformed
        if end >= 0:
            assert passed + end == len(body)
            return
        passed += len(piece)
    raise AssertionError("the body has no end")


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"1_0\r\n",
        b"11111111111111111\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3;" + b"a" * 20_000,
        b"0\r\n" + b"a: b\r\n" * 20_000,
    ],
)
def test_framing_that_two_readers_could_read_differently_is_malformed(body: bytes) -> None:
    whole = ChunkedBody()
    assert whole.end(body, 0) == -1
    assert whole.malformed
    walk = ChunkedBody()
    assert all(walk.end(bytes([byte]), 0) == -1 for byte in body)
    assert walk.malformed


@given(st.binary(max_size=80), CUTS)
def test_no_bytes_raise_and_cuts_change_no_verdict(data: bytes, cuts: list[int]) -> None:
    whole = ChunkedBody()
    end = whole.end(data, 0)
    walk = ChunkedBody()
    passed = 0
    for piece in pieces(data, cuts):
        found = walk.end(piece, 0)
        if found >= 0:
            assert passed + found == end
            return
        passed += len(piece)
    assert end == -1
    assert walk.malformed == whole.malformed


class _Llhttp:
    """What llhttp makes of a response."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.done = False
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
            self.status = parser.get_status_code()
            self.refused = False
        except httptools.HttpParserError:
            self.refused = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


LINES = st.sampled_from(
    [
        b"Content-Length: 5",
        b"content-length:7",
        b"Content-Length: 05",
        b"Content-Length: +5",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Type: text/plain",
        b"Date: today",
        b"X-Odd:\t a : b ",
    ]
)


@given(st.lists(LINES, max_size=4), st.sampled_from([b"200 OK", b"404 ", b"500", b"299 A b"]))
def test_heads_that_are_read_mean_what_llhttp_reads(lines: list[bytes], status: bytes) -> None:
    head = b"\r\n".join([b"HTTP/1.1 " + status, *lines])
    found = ResponseHeads().read(head, 0, len(head))
    body = chunked(b"abcde") if found is not None and found.chunked else b"abcdefg"
    theirs = _Llhttp(head + b"\r\n\r\n" + body)
    if found is None:
        return  # giving up is always allowed
    if theirs.refused:
        assert not found.chunked or found.length != UNTIL_CLOSE  # ambiguous: no server sends it
        return
    assert found.status == theirs.status
    assert theirs.body == (b"abcde" if found.chunked else b"abcdefg"[: max(found.length, 7)])
    assert theirs.done == (found.chunked or found.length != UNTIL_CLOSE)


def test_a_remembered_line_means_the_same_again() -> None:
    heads = ResponseHeads()
    for _ in range(3):
        head = heads.read(b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 12", 0, 42)
        assert head is not None
        assert head.length == 12
    doubled = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Length: 13"
    assert heads.read(doubled, 0, len(doubled)) is None
    assert heads.read(doubled, 0, len(doubled)) is None


def test_beginnings_are_told_apart() -> None:
    assert starts_request(b"\r\nPOST /v1?x=1 HTTP/1.0\r\n")
    assert not starts_request(b"POST /v1 HTTP/1.1")  # not whole
    assert not starts_request(b"POST /v1 HTTP/2.0\r\n")
    assert not starts_request(b"OST /v1 HTTP/1.1\r\n")
    assert not starts_request(b'{"a": "GET / HTTP/1.1\r\n')
    assert starts_response(b"HTTP/1.0 404 Not Found\r\n")
    assert not starts_response(b"HTTP/1.1 9")
    assert other_protocol(b"\x16\x03\x01\x02") == "tls"
