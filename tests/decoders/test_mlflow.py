"""MLflow's /invocations: four forms of JSON, and CSV as pandas would read it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.mlflow import MlflowInvocations
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
PATH = "/invocations"
R = DecodeReason
CSV = {"content-type": "text/csv; charset=utf-8"}


def decode(exchange: Exchange) -> Inference:
    return MlflowInvocations(DecoderSettings()).decode(exchange)


def reason(exchange: Exchange) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decode(exchange)
    return caught.value.reason


def cells(inference: Inference) -> list[list[Any]]:
    return [list(row) for row in inference.rows]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}, ("a", "b")),
        ({"dataframe_split": {"columns": [0, 1], "data": [[1, 2], [3, 4]]}}, ("0", "1")),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2], [3, 4]]}}, ("a", "a.1")),
        ({"dataframe_split": {"data": [[1, 2], [3, 4]]}}, None),
        ({"dataframe_records": [{"a": 1, "b": 2}, {"b": 4, "a": 3}]}, ("a", "b")),
        ({"instances": [[1, 2], [3, 4]]}, None),
        ({"instances": [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "params": {"t": 1}}, ("a", "b")),
        ({"inputs": [[1, 2], [3, 4]]}, None),
        ({"inputs": {"a": [1, 3], "b": [2, 4]}}, ("a", "b")),
        ({"inputs": {"a": [[1], [3]], "b": [[2], [4]]}}, ("a", "b")),
        ({"inputs": {"x": [[1, 2], [3, 4]]}}, ("x_0", "x_1")),
    ],
)
def test_every_form_gives_the_same_rows(post: Post, asked: Any, names: Any) -> None:
    inference = decode(post(PATH, asked, {"predictions": [0, 1]}))
    assert cells(inference) == [[1, 2], [3, 4]]
    assert inference.names == names


@pytest.mark.parametrize(
    ("said", "outputs"),
    [
        ([0, 1], {"predictions": [0, 1]}),
        ([[0.1, 0.9], [0.8, 0.2]], {"predictions": [[0.1, 0.9], [0.8, 0.2]]}),
        ([{"label": "x"}, {"label": "y"}], {"label": ["x", "y"]}),
        ({"label": ["x", "y"], "note": "hello"}, {"label": ["x", "y"]}),
    ],
)
def test_answers_in_every_shape(post: Post, said: Any, outputs: dict[str, Any]) -> None:
    inference = decode(post(PATH, {"inputs": [[1], [2]]}, {"predictions": said}))
    assert {name: list(entries) for name, entries in inference.outputs.items()} == outputs


@pytest.mark.parametrize("said", [7, [7], {"predictions": 7}])
def test_one_row_may_be_answered_without_a_list(post: Post, said: Any) -> None:
    inference = decode(post(PATH, {"inputs": [[1]]}, {"predictions": said}))
    assert {name: list(entries) for name, entries in inference.outputs.items()} == {
        "predictions": [7]
    }


def test_csv_is_typed_by_column_and_missing_as_pandas_says(post: Post) -> None:
    body = b'\xef\xbb\xbfage,job,own,"a ""b"", c",\r\n41,"x, y",True,1e3,0\r\n\r\nNA,3,False,,1\r\n'
    inference = decode(post(PATH, body, {"predictions": [0, 1]}, request_headers=CSV))
    assert inference.names == ("age", "job", "own", 'a "b", c', "Unnamed: 4")
    assert cells(inference) == [[41.0, "x, y", True, 1000.0, 0.0], [None, "3", False, None, 1.0]]


def test_csv_of_numbers_is_a_matrix(post: Post) -> None:
    inference = decode(post(PATH, b"a,b\n1,\n", {"predictions": [0]}, request_headers=CSV))
    assert isinstance(inference.rows, np.ndarray)
    np.testing.assert_array_equal(inference.rows, [[1.0, np.nan]])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", R.EMPTY_BATCH),
        (b"a,b\n", R.EMPTY_BATCH),
        (b"a,b\n1\n", R.RAGGED_ROWS),
        (b'a,b\n"1,2\n', R.NOT_CSV),
        (b"\xff\xfea\n1", R.UNSUPPORTED_ENCODING),
        (b",".join([b"c"] * 10_000) + b"\n1\n", R.TOO_MANY_COLUMNS),
        (b"a\n" + b"1\n" * 100_001, R.TOO_MANY_ROWS),
    ],
)
def test_what_is_wrong_with_csv_is_named(post: Post, body: bytes, expected: DecodeReason) -> None:
    assert reason(post(PATH, body, {"predictions": [0]}, request_headers=CSV)) is expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, R.NOT_AN_INFERENCE),
        ({"instances": [[1]], "inputs": [[1]]}, R.NOT_AN_INFERENCE),
        ([[1]], R.NOT_AN_INFERENCE),
        ({"dataframe_split": [[1]]}, R.WRONG_TYPE),
        ({"dataframe_split": {"columns": ["a"]}}, R.WRONG_TYPE),
        ({"dataframe_split": {"columns": "a", "data": [[1]]}}, R.WRONG_TYPE),
        ({"dataframe_split": {"columns": [["a", "b"]], "data": [[1]]}}, R.WRONG_TYPE),
        ({"dataframe_split": {"columns": ["a"], "data": [{"a": 1}]}}, R.WRONG_TYPE),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, R.RAGGED_ROWS),
        ({"dataframe_split": {"columns": [], "data": [[1, 2]]}}, R.EMPTY_BATCH),
        ({"inputs": {"a": [1, 2], "b": [1]}}, R.ROWS_MISMATCH),
        ({"inputs": {"a": [1, [2]]}}, R.WRONG_TYPE),
        ({"inputs": {"a": 1}}, R.WRONG_TYPE),
        ({"inputs": {}}, R.EMPTY_BATCH),
    ],
)
def test_what_is_wrong_with_json_is_named(post: Post, asked: Any, expected: DecodeReason) -> None:
    assert reason(post(PATH, asked, {"predictions": [0]})) is expected
