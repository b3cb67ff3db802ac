"""What is looked at before any protocol is: whole, good answers, unpacked within limits."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.kserve_v1 import KServeV1
from agent.exchange import Exchange

Post = Callable[..., Exchange]
PATH = "/v1/models/iris:predict"
ASKED, SAID = b'{"instances": [[1, 2]]}', b'{"predictions": [7]}'
R = DecodeReason


def decoder(**limits: int) -> KServeV1:
    return KServeV1(DecoderSettings(limits=DecodeLimits(**limits)))


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        (" GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_packed_bodies_are_unpacked(
    post: Post, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    exchange = post(PATH, ASKED, pack(SAID), response_headers={"content-encoding": encoding})
    assert decoder().decode(exchange).outputs == {"predictions": [7]}


def test_gzip_is_recognised_without_its_header(post: Post) -> None:
    inference = decoder().decode(post(PATH, gzip.compress(ASKED), gzip.compress(SAID)))
    np.testing.assert_array_equal(inference.rows, [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "GET"}, R.NOT_AN_INFERENCE),
        ({"status": 0, "outcome": "upstream_unreachable"}, R.INCOMPLETE_EXCHANGE),
        ({"outcome": "client_disconnect"}, R.INCOMPLETE_EXCHANGE),
        ({"outcome": "timeout"}, R.INCOMPLETE_EXCHANGE),
        ({"status": 500}, R.ERROR_STATUS),
        ({"status": 302}, R.ERROR_STATUS),
        ({"request_truncated": True}, R.BODY_TRUNCATED),
        ({"response_truncated": True}, R.BODY_TRUNCATED),
        ({"response_headers": {"content-encoding": "br"}}, R.UNSUPPORTED_ENCODING),
        ({"response_headers": {"content-encoding": "gzip"}}, R.UNSUPPORTED_ENCODING),
        ({"response_headers": {"content-encoding": "deflate"}}, R.UNSUPPORTED_ENCODING),
        ({"response_body": gzip.compress(SAID)[:-12]}, R.UNSUPPORTED_ENCODING),
        ({"response_headers": {"inference-header-content-length": "20"}},
         R.UNSUPPORTED_ENCODING),
    ],
)  # fmt: skip
def test_what_carries_no_good_answer_is_named(
    post: Post, change: dict[str, Any], expected: DecodeReason
) -> None:
    with pytest.raises(DecodeError) as caught:
        decoder().decode(post(PATH, ASKED, SAID, **change))
    assert caught.value.reason is expected


def test_a_decompression_bomb_is_stopped_at_the_limit(post: Post) -> None:
    bomb = gzip.compress(b"[" + b"0," * 5_000_000 + b"0]")
    assert len(bomb) < 20_000
    with pytest.raises(DecodeError) as caught:
        decoder(body_bytes_max=100_000).decode(post(PATH, bomb, SAID))
    assert caught.value.reason is R.BODY_TOO_LARGE


def test_numbers_too_large_for_any_type_are_infinite(post: Post) -> None:
    body = b'{"instances": [[NaN, 1' + b"0" * 5_000 + b", -1" + b"0" * 30 + b"]]}"
    rows = decoder().decode(post(PATH, body, SAID)).rows
    np.testing.assert_array_equal(rows, [[np.nan, np.inf, -1e30]])
