"""Captured bytes of one message, undone: right about whole ones, honest about cut ones."""

import gzip
import zlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.http1 import (
    WireError,
    decode_chunked,
    decode_content,
    parse_request,
    parse_response,
)


def test_a_request_with_a_length() -> None:
    message = parse_request(
        b"POST /v1/models/m:predict?a=b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"X-Twice: 1\r\nx-twice:2 \r\n\r\nhelloNEXT"
    )
    assert (message.method, message.path) == ("POST", "/v1/models/m:predict")
    assert message.query == "a=b?c"
    assert message.headers["x-twice"] == "1, 2"
    assert (message.body, message.complete) == (b"hello", True)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"http://host:80/a/b?x=1", "/a/b", "x=1"),
        (b"http://host", "/", ""),
        (b"http://host?x=1", "/", "x=1"),
        (b"*", "*", ""),
        (b"/a?u=http://b", "/a", "u=http://b"),
    ],
)
def test_paths_come_without_host_and_query(target: bytes, path: str, query: str) -> None:
    message = parse_request(b"GET " + target + b" HTTP/1.1\r\n\r\n")
    assert (message.path, message.query) == (path, query)


def test_interim_responses_are_passed_over() -> None:
    message = parse_response(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
    )
    assert (message.status, message.body, message.complete) == (201, b"ok", True)
    assert "link" not in message.headers


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\nraw", "GET"),
    ],
)
def test_responses_without_a_body(data: bytes, method: str) -> None:
    message = parse_response(data, method=method)
    assert (message.body, message.complete) == (b"", True)


def test_without_a_length_the_body_is_all_that_came() -> None:
    message = parse_response(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    assert (message.body, message.complete) == (b"all of it", True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "head_incomplete"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "head_incomplete"),
        (b"GET /\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/2.0\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/1.1\r\nspace : x\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/1.1\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n", "head_malformed"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk_malformed"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "chunk_malformed"),
        (
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 40 + b"\r\n",
            "chunk_malformed",
        ),
    ],
)
def test_what_is_no_request_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as raised:
        parse_request(data)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 20", b"HTTP/1.1 abc x", b"HTTP/1.1 \xb2\xb2\xb2", b"HTTP/1.1 099 x", b"x"]
)
def test_what_is_no_status_line_has_a_reason(line: bytes) -> None:
    with pytest.raises(WireError) as raised:
        parse_response(line + b"\r\n\r\n")
    assert raised.value.reason == "head_malformed"


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x;e=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)


@given(st.lists(st.binary(max_size=30), max_size=6), st.integers(0, 300))
def test_a_cut_chunked_body_gives_what_was_there(pieces: list[bytes], cut: int) -> None:
    whole = chunked(pieces) + b"0\r\nTrailer: x\r\n\r\n"
    assert decode_chunked(whole) == (b"".join(pieces), True)
    body, complete = decode_chunked(whole[:cut])
    assert b"".join(pieces).startswith(body)
    assert complete is (cut >= len(whole))


@given(st.binary(max_size=120))
def test_noise_raises_nothing_but_wire_errors(noise: bytes) -> None:
    for data in (
        noise,
        b"GET / HTTP/1.1\r\n" + noise,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + noise,
        b"HTTP/1.1 200 OK\r\n" + noise + b"\r\n\r\n",
    ):
        for parse in (parse_request, parse_response):
            try:
                parse(data)
            except WireError:
                pass
    for encoding in ("gzip", "deflate", "gzip, deflate"):
        for truncated in (False, True):
            try:
                decode_content(noise, encoding, truncated=truncated)
            except WireError:
                pass


@given(
    st.sampled_from(["GET", "POST"]),
    st.dictionaries(
        st.from_regex(r"x-[a-z]{1,8}", fullmatch=True),
        st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True),
        max_size=5,
    ),
    st.binary(max_size=100),
    st.booleans(),
)
def test_what_h11_writes_is_read_back(
    method: str, headers: dict[str, str], body: bytes, in_chunks: bool
) -> None:
    framing = ("Transfer-Encoding", "chunked") if in_chunks else ("Content-Length", str(len(body)))
    connection = h11.Connection(h11.CLIENT)
    wire = connection.send(
        h11.Request(
            method=method, target="/a?b", headers=[("Host", "h"), framing, *headers.items()]
        )
    )
    wire = (wire or b"") + (connection.send(h11.Data(data=body)) or b"")
    wire += connection.send(h11.EndOfMessage()) or b""
    message = parse_request(wire)
    assert (message.method, message.path, message.query) == (method, "/a", "b")
    assert (message.body, message.complete) == (body, True)
    assert headers.items() <= message.headers.items()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("identity", bytes),
        ("", bytes),
        ("deflate, GZIP", lambda body: gzip.compress(zlib.compress(body))),
        ("gzip", lambda body: gzip.compress(body[:3]) + gzip.compress(body[3:])),
    ],
)
def test_encodings_are_undone(encoding: str, encode: object) -> None:
    body = b'{"inputs": []}'
    assert callable(encode)
    assert decode_content(encode(body), encoding) == body


def test_an_encoding_nobody_knows_has_a_reason() -> None:
    for encoding in ("br", "gzip, br", "gzip,gzip,gzip,gzip,gzip"):
        with pytest.raises(WireError) as raised:
            decode_content(gzip.compress(b"x"), encoding)
        assert raised.value.reason == "encoding_unknown"


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    for body, encoding in ((bomb, "gzip"), (gzip.compress(bomb), "gzip, gzip")):
        with pytest.raises(WireError) as raised:
            decode_content(body, encoding, bytes_max=1_000_000)
        assert raised.value.reason == "body_too_large"


def test_a_body_at_the_limit_is_not_too_large() -> None:
    assert len(decode_content(gzip.compress(bytes(1_000)), "gzip", bytes_max=1_000)) == 1_000
    with pytest.raises(WireError):
        decode_content(gzip.compress(bytes(1_001)), "gzip", bytes_max=1_000)
    with pytest.raises(WireError):
        decode_content(bytes(1_001), "", bytes_max=1_000)


def test_a_truncated_body_gives_what_can_be_had() -> None:
    body = bytes(range(256)) * 100
    half = gzip.compress(body)[:200]
    with pytest.raises(WireError) as raised:
        decode_content(half, "gzip")
    assert raised.value.reason == "encoding_malformed"
    part = decode_content(half, "gzip", truncated=True)
    assert part
    assert body.startswith(part)
