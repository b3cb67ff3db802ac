"""TensorFlow Serving by REST: rows, columns, examples, binaries, and NaN where it writes it."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.tf_serving import TfServing
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
PATH = "/v1/models/half/versions/3:predict"
CLASSIFY = "/v1/models/half:classify"
R = DecodeReason


def decode(exchange: Exchange, **limits: int) -> Inference:
    return TfServing(DecoderSettings(limits=DecodeLimits(**limits))).decode(exchange)


def reason(exchange: Exchange, **limits: int) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decode(exchange, **limits)
    return caught.value.reason


def cells(inference: Inference) -> list[list[Any]]:
    return [list(row) for row in inference.rows]


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"instances": [[1, 2], [3, 4]]}, {"predictions": [0.5, 1.5]}),
        ({"inputs": [[1, 2], [3, 4]]}, {"outputs": [0.5, 1.5]}),
        ({"inputs": [[1, 2], [3, 4]]}, {"outputs": [[0.5], [1.5]]}),
        ({"inputs": [[1, 2], [3, 4]]}, {"outputs": {"predictions": [0.5, 1.5]}}),
        ({"inputs": [[1, 2], [3, 4]]}, {"predictions": [0.5, 1.5]}),
    ],
)
def test_both_forms_give_the_same_inference(post: Post, asked: Any, said: Any) -> None:
    inference = decode(post(PATH, asked, said))
    assert cells(inference) == [[1, 2], [3, 4]]
    assert inference.outputs == {"predictions": [0.5, 1.5]}


def test_columns_are_called_as_the_objects_of_rows_would_be(post: Post) -> None:
    rows = [{"age": 41, "at": [1.5, 2.5], "job": "clerk"}, {"age": 67, "at": [3, 4], "job": "x"}]
    columns = {"age": [41, 67], "at": [[1.5, 2.5], [3, 4]], "job": ["clerk", "x"]}
    by_row = decode(post(PATH, {"instances": rows}, {"predictions": [0, 1]}))
    by_column = decode(post(PATH, {"inputs": columns}, {"outputs": [0, 1]}))
    assert by_row.names == by_column.names == ("age", "at_0", "at_1", "job")
    assert cells(by_row) == cells(by_column)


def test_a_scalar_among_columns_holds_for_every_row(post: Post) -> None:
    asked = {"inputs": {"keep": 0.5, "age": [[41], [67]]}}
    inference = decode(post(PATH, asked, {"outputs": {"y": [0, 1]}}))
    assert inference.names == ("keep", "age")
    assert cells(inference) == [[0.5, 41], [0.5, 67]]


@pytest.mark.parametrize("asked", [{"inputs": 7}, {"inputs": [7]}, {"instances": [7]}])
def test_the_only_input_may_be_a_scalar(post: Post, asked: Any) -> None:
    inference = decode(post(PATH, asked, {"outputs": 0.5}))
    assert cells(inference) == [[7]]
    assert inference.outputs == {"predictions": [0.5]}


def test_binaries_are_described_wherever_they_stand(post: Post) -> None:
    said = {"predictions": [0, 1]}
    bare = decode(post(PATH, {"instances": [b64(b"12345"), b64(b"123")]}, said))
    assert (bare.names, cells(bare)) == (("instance.bytes",), [[5.0], [3.0]])
    rows = [{"age": 41, "photo_bytes": b64(b"12")}, {"age": 67, "photo_bytes": b64(b"1")}]
    named = decode(post(PATH, {"instances": rows}, said))
    assert named.names == ("age", "photo_bytes.bytes")
    assert cells(named) == [[41, 2.0], [67, 1.0]]
    columns = {"age": [41, 67], "photo_bytes": [b64(b"12"), b64(b"1")]}
    assert cells(decode(post(PATH, {"inputs": columns}, said))) == cells(named)


def test_an_image_is_described_by_what_can_be_seen(post: Post) -> None:
    gif = b"GIF89a" + (3).to_bytes(2, "little") + (2).to_bytes(2, "little") + b"\x80\x00\x00"
    inference = decode(post(PATH, {"instances": [{"photo": b64(gif)}]}, {"predictions": [1]}))
    assert inference.names is not None
    seen = dict(zip(inference.names, cells(inference)[0], strict=True))
    assert (seen["photo.bytes"], seen["photo.width"], seen["photo.height"]) == (13.0, 3.0, 2.0)


def test_not_a_number_is_a_missing_cell(post: Post) -> None:
    inference = decode(post(PATH, b'{"inputs": [[NaN, Infinity]]}', b'{"outputs": [-Infinity]}'))
    np.testing.assert_array_equal(inference.rows, [[np.nan, np.inf]])
    assert inference.outputs == {"predictions": [-np.inf]}


@pytest.mark.parametrize("member", ["results", "result"])
def test_examples_share_their_context(post: Post, member: str) -> None:
    asked = {"context": {"country": "de", "age": 1}, "examples": [{"age": 41}, {"job": ["x", "y"]}]}
    inference = decode(post("/v1/models/m:regress", asked, {member: [2.5, 3]}))
    assert inference.names == ("country", "age", "job_0", "job_1")
    assert cells(inference) == [["de", 41, None, None], ["de", 1, "x", "y"]]
    assert inference.outputs == {"predictions": [2.5, 3]}


def test_a_classification_is_its_best_class(post: Post) -> None:
    said = {"results": [[["good", 0.25], ["bad", 0.75]], [["", 0.5], ["", 0.5]]]}
    inference = decode(post(CLASSIFY, {"examples": [{"a": 1}, {"a": 2}]}, said))
    assert inference.outputs == {
        "label": ["bad", 0],  # a model without names of classes: its position
        "score": [0.75, 0.5],
        "scores": [[0.25, 0.75], [0.5, 0.5]],
    }


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        ([1], {"predictions": [1]}, R.NOT_AN_INFERENCE),
        ({"instances": [1], "inputs": [1]}, {"predictions": [1]}, R.NOT_AN_INFERENCE),
        ({"instances": [1]}, [1], R.NOT_AN_INFERENCE),
        ({"instances": [1]}, {"error": "no"}, R.NOT_AN_INFERENCE),
        ({"examples": [{"a": 1}]}, {"predictions": [1]}, R.NOT_AN_INFERENCE),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]},
         {"outputs": [1]}, R.NOT_AN_INFERENCE),
        ({"instances": []}, {"predictions": []}, R.EMPTY_BATCH),
        ({"inputs": {}}, {"outputs": [1]}, R.EMPTY_BATCH),
        ({"inputs": {"a": []}}, {"outputs": []}, R.EMPTY_BATCH),
        ({"examples": {"a": 1}}, {"result": [1]}, R.WRONG_TYPE),
        ({"examples": [1]}, {"result": [1]}, R.WRONG_TYPE),
        ({"examples": [{"a": 1}], "context": [1]}, {"result": [1]}, R.WRONG_TYPE),
        ({"inputs": {"a": [{"b64": "aGk="}, 1]}}, {"outputs": [1, 2]}, R.WRONG_TYPE),
        ({"inputs": {"a": [{"b": 1}]}}, {"outputs": [1]}, R.WRONG_TYPE),
        ({"inputs": {"a": [1, 2], "b": [1]}}, {"outputs": [1, 2]}, R.ROWS_MISMATCH),
        ({"inputs": {"a": [1, 2]}}, {"outputs": [1]}, R.ROWS_MISMATCH),
        ({"examples": [{"a": 1}]}, {"result": [1, 2]}, R.ROWS_MISMATCH),
        ({"examples": [{"a": 1}]}, {"result": 1}, R.ROWS_MISMATCH),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(post: Post, asked: Any, said: Any, expected: DecodeReason) -> None:
    assert reason(post(PATH, asked, said)) is expected


def test_limits_hold_in_columns_and_rankings(post: Post) -> None:
    columns = {"inputs": {"keep": 1, "a": [0] * 9}}
    assert reason(post(PATH, columns, {"outputs": [0] * 9}), rows_max=8) is R.TOO_MANY_ROWS
    assert reason(post(PATH, columns, {"outputs": [0] * 9}), cells_max=17) is R.TOO_MANY_ROWS
    ranking = {"result": [[["x", 0.1]] * 9]}
    exchange = post(CLASSIFY, {"examples": [{"a": 1}]}, ranking)
    assert reason(exchange, columns_max=8) is R.TOO_MANY_COLUMNS
