"""Open Inference V2: tensors by name, in JSON and raw, as several servers write them."""

import gzip
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from agent.decoders.body import BINARY_TENSORS_HEADER
from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.open_inference import OpenInference
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
PATH = "/v2/models/iris/infer"
R = DecodeReason


def tensor(shape: list[Any], data: Any, *, name: str = "x", datatype: str = "FP64") -> Any:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def said(*shape: int) -> dict[str, Any]:
    size = int(np.prod(shape))
    return {"model_name": "iris", "outputs": [tensor(list(shape), [0] * size, datatype="INT64")]}


def decode(exchange: Exchange) -> Inference:
    return OpenInference(DecoderSettings()).decode(exchange)


def reason(exchange: Exchange) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decode(exchange)
    return caught.value.reason


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_flat_and_nested_data_are_the_same_rows(post: Post, data: list[Any]) -> None:
    inference = decode(post(PATH, {"inputs": [tensor([2, 3], data)]}, said(2)))
    assert inference.names is None
    assert np.asarray(inference.rows).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_inputs_of_one_column_are_named_features(post: Post) -> None:
    inputs = [
        tensor([2, 1], [41, 67], name="age", datatype="INT64"),
        tensor([2], ["clerk", None], name="job", datatype="BYTES"),
        tensor([2, 1], [[True], [0]], name="own", datatype="BOOL"),
        tensor([2, 2], [1.5, 2.5, 3.5, 4.5], name="at", datatype="FP32"),
    ]
    inference = decode(post(PATH, {"inputs": inputs}, said(2, 1)))
    assert inference.names == ("age", "job", "own", "at_0", "at_1")
    assert [list(row) for row in inference.rows] == [
        [41, "clerk", True, 1.5, 2.5],
        [67, None, False, 3.5, 4.5],
    ]
    assert [type(cell) for cell in inference.rows[0]][2] is bool


def test_nulls_where_others_send_nothing(post: Post) -> None:
    asked = {
        "id": None,
        "parameters": None,
        "outputs": None,
        "inputs": [{**tensor([1, 2], [1, None]), "parameters": None}],
    }
    answer = {"model_name": "iris", "model_version": None, "id": "q1", "parameters": None,
              "outputs": [{**tensor([1], [2], datatype="INT32"), "parameters": None}]}  # fmt: skip
    inference = decode(post(PATH, asked, answer))
    np.testing.assert_array_equal(inference.rows, [[1.0, np.nan]])
    assert (inference.id, inference.aliases) == ("q1", ("minted-1",))
    assert inference.outputs == {"x": [2]}


def test_whole_numbers_stay_whole_and_vectors_stay_vectors(post: Post) -> None:
    answer = {"outputs": [
        tensor([2, 1], [18446744073709551615, 1], name="label", datatype="UINT64"),
        tensor([2, 2], [0.1, 0.9, 0.8, 0.2], name="proba"),
        tensor([1], ["about the model"], name="note", datatype="BYTES"),
    ]}  # fmt: skip
    inference = decode(post(PATH, {"inputs": [tensor([2, 2], [1, 2, 3, 4])]}, answer))
    assert inference.outputs == {
        "label": [18446744073709551615, 1],
        "proba": [[0.1, 0.9], [0.8, 0.2]],
    }


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([], R.EMPTY_BATCH),
        ([tensor([0, 4], [])], R.EMPTY_BATCH),
        ([tensor([1, 0], [])], R.EMPTY_BATCH),
        ([tensor([2, 2], [1, 2, 3])], R.WRONG_TYPE),
        ([tensor([1, 1], ["1"])], R.WRONG_TYPE),
        ([tensor([1, 1], [True])], R.WRONG_TYPE),
        ([tensor([1, 1], [1], datatype="BYTES")], R.WRONG_TYPE),
        ([tensor([1, 1], [{}])], R.WRONG_TYPE),
        ([tensor(["1"], [1])], R.WRONG_TYPE),
        ([tensor([-1], [1])], R.WRONG_TYPE),
        ([tensor([True], [1])], R.WRONG_TYPE),
        ([tensor([1] * 9, [1])], R.WRONG_TYPE),
        (["x"], R.WRONG_TYPE),
        ([{"shape": [1], "datatype": "FP64", "data": [1]}], R.WRONG_TYPE),
        ([tensor([2, 2], [[1], [2, 3, 4]])], R.RAGGED_ROWS),
        ([tensor([2, 2], [[1, 2], 3, 4])], R.RAGGED_ROWS),
        ([tensor([1], [1], datatype="COMPLEX64")], R.UNSUPPORTED_DATATYPE),
        ([tensor([1], [1], datatype=None)], R.UNSUPPORTED_DATATYPE),  # type: ignore[arg-type]
        ([tensor([1, 10_000], [0] * 10_000)], R.TOO_MANY_COLUMNS),
        ([tensor([10**9], [0])], R.TOO_MANY_ROWS),
        ([tensor([1], [1], name="a"), tensor([2], [1, 2], name="b")], R.ROWS_MISMATCH),
        ([{"name": "x", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}],
         R.UNSUPPORTED_ENCODING),
        ("x", R.NOT_AN_INFERENCE),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(post: Post, inputs: Any, expected: DecodeReason) -> None:
    assert reason(post(PATH, {"inputs": inputs}, said(1))) is expected


def test_outputs_for_another_number_of_rows_are_a_mismatch(post: Post) -> None:
    asked = {"inputs": [tensor([2, 2], [1, 2, 3, 4])]}
    assert reason(post(PATH, asked, said(3))) is R.ROWS_MISMATCH
    assert reason(post(PATH, asked, {"outputs": None})) is R.NOT_AN_INFERENCE


def test_inputs_of_the_same_name_are_told_apart(post: Post) -> None:
    inputs = [tensor([1], [1]), tensor([1], [2])]
    assert decode(post(PATH, {"inputs": inputs}, said(1))).names == ("x", "x.1")


# -- the binary tensor extension ---------------------------------------------------------------


def raw(shape: list[int], size: object, *, name: str = "x", datatype: str = "FP32") -> Any:
    parameters = {"binary_data_size": size}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters}


def extended(message: Any, *tensors: bytes, length: object = None) -> tuple[bytes, dict[str, str]]:
    """Body and headers; another `length` than that of the JSON when it is given."""
    head = orjson.dumps(message)
    headers = {BINARY_TENSORS_HEADER: str(len(head) if length is None else length)}
    return b"".join([head, *tensors]), headers


PAIRS = np.array([[1, 2], [3, 4]], dtype="<f4").tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_raw_tensors_come_after_the_json_in_order(post: Post, pack: Any) -> None:
    listed = tensor([2], [41, 67], name="age", datatype="INT64")
    body, headers = extended(
        {"inputs": [raw([2, 2], 16), listed, raw([2], 2, name="own", datatype="BOOL")]},
        PAIRS, b"\x01\x00",
    )  # fmt: skip
    answer, answered = extended({"outputs": [raw([2, 1], 8, name="y")]}, PAIRS[:8])
    inference = decode(
        post(PATH, pack(body), pack(answer), request_headers=headers, response_headers=answered)
    )
    assert inference.names == ("x_0", "x_1", "age", "own")
    assert [list(row) for row in inference.rows] == [[1, 2, 41, True], [3, 4, 67, False]]
    assert inference.outputs == {"y": [1.0, 2.0]}


@pytest.mark.parametrize("sides", ["asked", "said"])
def test_either_side_may_be_raw_by_itself(post: Post, sides: str) -> None:
    body, headers = extended({"inputs": [raw([2, 2], 16)]}, PAIRS)
    answer, answered = extended({"outputs": [raw([2], 8, name="x")]}, PAIRS[:8])
    if sides == "asked":
        inference = decode(post(PATH, body, said(2), request_headers=headers))
        assert inference.outputs == {"x": [0, 0]}
    else:
        asked = {"inputs": [tensor([2, 2], [1, 2, 3, 4])]}
        inference = decode(post(PATH, asked, answer, response_headers=answered))
        assert inference.outputs == {"x": [1.0, 2.0]}
    assert np.asarray(inference.rows).tolist() == [[1, 2], [3, 4]]


def test_a_body_that_is_one_raw_tensor_is_described(post: Post) -> None:
    exchange = post(PATH, b"\x1f\x8b" * 50, said(1), request_headers={BINARY_TENSORS_HEADER: "0"})
    inference = decode(exchange)
    assert inference.names == ("body.bytes",)
    assert np.asarray(inference.rows).tolist() == [[100.0]]


@pytest.mark.parametrize(
    ("message", "tensors", "length", "expected"),
    [
        ({"inputs": [raw([2, 2], 16)]}, PAIRS[:-1], None, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], 16)]}, PAIRS + b"x", None, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], 12)]}, PAIRS[:12], None, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], -16)]}, PAIRS, None, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], "16")]}, PAIRS, None, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], True)]}, PAIRS, None, R.WRONG_TYPE),
        ({"inputs": [raw([0, 2], 0)]}, b"", None, R.EMPTY_BATCH),
        ({"inputs": [raw([2, 2], 16)]}, PAIRS, 1_000_000, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], 16)]}, PAIRS, "-1", R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], 16)]}, PAIRS, "1e3", R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], 16)]}, PAIRS, "9" * 5_000, R.WRONG_TYPE),
        ({"inputs": [raw([2, 2], 16)]}, PAIRS, 10, R.NOT_JSON),
        ({"inputs": [{**raw([2, 2], 16), "parameters": {"shared_memory_region": "r"}}]}, b"", None,
         R.UNSUPPORTED_ENCODING),
    ],
)  # fmt: skip
def test_what_is_wrong_with_raw_tensors_is_named(
    post: Post, message: Any, tensors: bytes, length: object, expected: DecodeReason
) -> None:
    body, headers = extended(message, tensors, length=length)
    assert reason(post(PATH, body, said(2), request_headers=headers)) is expected


def test_an_empty_raw_body_is_no_row(post: Post) -> None:
    exchange = post(PATH, b"", said(1), request_headers={BINARY_TENSORS_HEADER: "0"})
    assert reason(exchange) is R.EMPTY_BATCH
