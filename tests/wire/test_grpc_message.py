import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.grpc_message import (
    HTTP_STATUSES,
    MESSAGE_BYTES_MAX,
    STATUSES,
    GrpcError,
    Messages,
    first_message,
    grpc_status,
    status_of_reset,
    timeout_s,
)
from tests.wire.h2 import message


def why(data: bytes, encoding: str) -> str:
    with pytest.raises(GrpcError) as refused:
        first_message(data, encoding)
    return refused.value.reason


def test_one_whole_message_is_all_there_is() -> None:
    assert first_message(message(b"hi"), "") == Messages(first=b"hi", whole=True, more=False)
    assert first_message(message(b""), "") == Messages(first=b"", whole=True, more=False)


@given(st.binary(max_size=50), st.data())
def test_a_message_is_whole_only_if_its_length_says_so(body: bytes, data: st.DataObject) -> None:
    whole = message(body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert not first_message(whole[:cut], "").whole
    assert first_message(whole + data.draw(st.binary(min_size=1, max_size=9)), "").more


def test_packed_messages_are_unpacked() -> None:
    body = b"x" * 1_000
    assert first_message(message(gzip.compress(body), flag=1), "gzip").first == body
    assert first_message(message(zlib.compress(body), flag=1), "deflate").first == body
    # The header names what may be used; the flag says whether it was.
    assert first_message(message(body), "gzip").first == body


def test_packing_that_is_unknown_broken_or_a_bomb_is_refused() -> None:
    assert why(message(b"x", flag=1), "snappy") == "grpc_encoding"
    assert why(message(b"x", flag=1), "identity") == "grpc_encoding"
    assert why(message(b"no gzip", flag=1), "gzip") == "grpc_encoding"
    assert why(message(gzip.compress(b"x" * 99)[:-9], flag=1), "gzip") == "grpc_encoding"
    bomb = gzip.compress(bytes(MESSAGE_BYTES_MAX + 1))
    assert why(message(bomb, flag=1), "gzip") == "grpc_message_too_large"


@given(st.binary(max_size=40), st.sampled_from(["gzip", "deflate", "", "br"]))
def test_nothing_else_escapes(data: bytes, encoding: str) -> None:
    try:
        first_message(data, encoding)
    except GrpcError:
        pass


def test_every_status_has_one_of_http() -> None:
    assert len(STATUSES) == len(HTTP_STATUSES) == 17
    assert STATUSES[14] == "UNAVAILABLE"
    assert (HTTP_STATUSES[0], HTTP_STATUSES[5], HTTP_STATUSES[14]) == (200, 404, 503)


@given(st.text(max_size=12))
def test_any_text_is_a_status_or_a_time_or_neither(text: str) -> None:
    status = grpc_status(text)
    assert status is not None
    assert 0 <= status < len(STATUSES)
    limit_s = timeout_s(text)
    assert limit_s is None or limit_s >= 0


def test_times_are_in_their_units() -> None:
    assert [timeout_s(text) for text in ("5S", "100m", "3u", "2H")] == [5, 0.1, 3e-6, 7_200]


def test_a_reset_by_the_server_has_a_meaning() -> None:
    assert [STATUSES[status_of_reset(error)] for error in (2, 7, 8, 11, 99)] == [
        "INTERNAL", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "INTERNAL",
    ]  # fmt: skip
