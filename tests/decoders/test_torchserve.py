"""TorchServe: one row in the form its handler takes; classes as it ranks them."""

import gzip
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.torchserve import TorchServe
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
PATH = "/predictions/m/1.0"
R = DecodeReason
GIF = b"GIF89a" + (3).to_bytes(2, "little") + (2).to_bytes(2, "little") + b"\x80\x00\x00"


def decode(exchange: Exchange, **limits: int) -> Inference:
    return TorchServe(DecoderSettings(limits=DecodeLimits(**limits))).decode(exchange)


def reason(exchange: Exchange, **limits: int) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decode(exchange, **limits)
    return caught.value.reason


def cells(inference: Inference) -> list[list[Any]]:
    return [list(row) for row in inference.rows]


def form(*parts: bytes) -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'
    return b"".join(head + part + b"\r\n" for part in parts) + b"--cut--\r\n"


FORM = {"content-type": "multipart/form-data; boundary=cut"}


@pytest.mark.parametrize(
    ("asked", "names", "rows"),
    [
        ([1, 2], None, [[1, 2]]),
        ([[1, 2], [3, 4]], None, [[1, 2], [3, 4]]),
        ({"data": [1, 2]}, None, [[1, 2]]),
        ({"instances": [[1, 2], [3, 4]]}, None, [[1, 2], [3, 4]]),
        ({"a": 1, "b": "x"}, ("a", "b"), [[1, "x"]]),
        ([{"a": 1}, {"a": 2}], ("a",), [[1], [2]]),
        ({"data": {"a": [1, 2], "b": [3, 4]}}, ("a", "b"), [[1, 3], [2, 4]]),
        ({"data": {"a": 1, "b": {"c": 2}}}, ("a", "b.c"), [[1, 2]]),
        (7, None, [[7]]),
        (0, None, [[0]]),
    ],
)
def test_a_request_is_one_row_unless_it_plainly_holds_several(
    post: Post, asked: Any, names: Any, rows: Any
) -> None:
    inference = decode(post(PATH, asked, list(range(len(rows)))))
    assert inference.names == names
    assert cells(inference) == rows


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "image/gif"}, GIF),
        ({"content-type": "application/x-www-form-urlencoded"}, GIF),  # curl --data-binary
        ({}, GIF),  # curl -T
        (FORM, form(GIF)),  # curl -F
        ({"content-encoding": "gzip"}, gzip.compress(GIF, mtime=0)),
    ],
)
def test_an_image_is_the_same_however_it_was_sent(
    post: Post, headers: dict[str, str], body: bytes
) -> None:
    said = b'{"tabby": 0.5, "lynx": 0.25}'
    exchange = post(PATH, body, said, method="PUT", request_headers=headers, response_headers={})
    inference = decode(exchange)
    assert inference.names is not None
    assert set(inference.names) >= {"image.bytes", "image.width", "image.height", "image.aspect"}
    assert cells(inference)[0][:3] == [13.0, 3.0, 2.0]
    assert inference.outputs == {"label": ["tabby"], "score": [0.5]}


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {}, FORM])
def test_a_text_is_described_and_not_kept(post: Post, headers: dict[str, str]) -> None:
    text = "Grüße an alle".encode()
    body = form(text) if headers is FORM else text
    inference = decode(post(PATH, body, b"0.5", request_headers=headers, response_headers={}))
    assert inference.names is not None
    assert dict(zip(inference.names, cells(inference)[0], strict=True))["text.words"] == 3.0
    assert "alle" not in repr(inference)


def test_other_bytes_are_described_by_their_length(post: Post) -> None:
    inference = decode(post(PATH, b"\x80pickle", [1], request_headers={}))
    assert (inference.names, cells(inference)) == (("data.bytes",), [[7.0]])


@pytest.mark.parametrize(
    ("said", "outputs"),
    [
        (b"[\n  0.5\n]", {"predictions": [0.5]}),
        (b"6.5", {"predictions": [6.5]}),
        (b"positive", {"predictions": ["positive"]}),
        (b'"positive"', {"predictions": ["positive"]}),
        (b"[0.25, 0.75]", {"predictions": [[0.25, 0.75]]}),
        (b'{"predictions": [0.5]}', {"predictions": [0.5]}),
        (b'{"a": 0.5, "b": 0.5, "c": 0}', {"label": ["a"], "score": [0.5]}),
        (b'[{"a": 0.75, "b": 0.25}]', {"label": ["a"], "score": [0.75]}),
        # No rankings: not sorted, more than certain, negative, no numbers, one class alone.
        (b'{"low": 0.25, "high": 0.5}', {"low": (0.25,), "high": (0.5,)}),
        (b'{"price": 12.5, "tax": 2.5}', {"price": (12.5,), "tax": (2.5,)}),
        (b'{"a": 0.5, "b": -0.5}', {"a": (0.5,), "b": (-0.5,)}),
        (b'{"label": "a", "p": 0.5}', {"label": ("a",), "p": (0.5,)}),
        (b'{"score": 0.5}', {"score": (0.5,)}),
    ],
)
@pytest.mark.parametrize("kind", [None, "application/json", "text/plain"])
def test_answers_mostly_come_without_a_type(
    post: Post, said: bytes, outputs: Any, kind: str | None
) -> None:
    if kind == "application/json" and said == b"positive":
        return
    headers = {} if kind is None else {"content-type": kind}
    assert decode(post(PATH, [1, 2], said, response_headers=headers)).outputs == outputs


def test_rankings_of_several_rows(post: Post) -> None:
    said = [{"a": 0.75, "b": 0.25}, {"c": 0.5, "a": 0.25}]
    inference = decode(post(PATH, [[1], [2]], said))
    assert inference.outputs == {"label": ["a", "c"], "score": [0.75, 0.5]}


@pytest.mark.parametrize(
    ("headers", "asked", "said", "expected"),
    [
        ({}, b"", b"1", R.EMPTY_BATCH),
        ({}, b"{}", b"1", R.NOT_AN_INFERENCE),
        ({}, b"[]", b"1", R.EMPTY_BATCH),
        ({}, b"[1, ", b"1", R.NOT_JSON),
        ({"content-type": "application/json"}, b"hello", b"1", R.NOT_JSON),
        ({}, b"[1]", b"", R.NOT_AN_INFERENCE),
        ({}, b"[1]", b"{}", R.NOT_AN_INFERENCE),
        ({}, b"[1]", b"[]", R.NOT_AN_INFERENCE),
        ({}, b"[1]", b"\xff\xfe", R.UNSUPPORTED_ENCODING),
        ({}, b"[[1], [2]]", b"0.5", R.ROWS_MISMATCH),
        (FORM, form(b"a", b"b"), b"1", R.UNSUPPORTED_ENCODING),
        (FORM, form(b"a")[:-4], b"1", R.UNSUPPORTED_ENCODING),
        (FORM, form(b""), b"1", R.EMPTY_BATCH),
        ({"content-type": "multipart/form-data"}, form(b"a"), b"1", R.UNSUPPORTED_ENCODING),
        ({"content-encoding": "br"}, b"[1]", b"1", R.UNSUPPORTED_ENCODING),
    ],
)
def test_what_is_wrong_is_named(
    post: Post, headers: dict[str, str], asked: bytes, said: bytes, expected: DecodeReason
) -> None:
    exchange = post(PATH, asked, said, request_headers=headers, response_headers={})
    assert reason(exchange) is expected


def test_limits_hold_for_descriptors_too(post: Post) -> None:
    exchange = post(PATH, b"hello", b"1", request_headers={}, response_headers={})
    assert reason(exchange, columns_max=3) is R.TOO_MANY_COLUMNS
    np.testing.assert_array_equal(decode(exchange).rows[0][:1], [5.0])
