"""Open Inference V2 in JSON: tensors by name, as several servers write them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
