"""KServe V1: what clients send as instances, and what models say back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.kserve_v1 import KServeV1
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
PATH = "/v1/models/iris:predict"
R = DecodeReason


def decode(exchange: Exchange, **limits: int) -> Inference:
    return KServeV1(DecoderSettings(limits=DecodeLimits(**limits))).decode(exchange)


def reason(exchange: Exchange, **limits: int) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decode(exchange, **limits)
    return caught.value.reason


def test_rows_of_numbers_are_a_matrix_and_null_is_nan(post: Post) -> None:
    inference = decode(post(PATH, {"instances": [[5.1, 3], [None, 2.5]]}, {"predictions": [0, 1]}))
    assert isinstance(inference.rows, np.ndarray)
    np.testing.assert_array_equal(inference.rows, [[5.1, 3.0], [np.nan, 2.5]])
    assert inference.names is None
    assert inference.outputs == {"predictions": [0, 1]}


def test_the_column_of_a_value_does_not_change_with_the_rows_around_it(post: Post) -> None:
    inference = decode(post(PATH, {"inputs": [[1, 2, 3], [4, 5, 6]]}, {"predictions": [0, 1]}))
    assert isinstance(inference.rows, np.ndarray)
    assert inference.rows.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_objects_carry_their_names_and_keep_their_types(post: Post) -> None:
    asked = {"instances": [{"age": 41, "job": "clerk", "own": True}, {"own": None, "age": 2.5}]}
    inference = decode(post(PATH, asked, {"predictions": ["yes", "no"]}))
    assert inference.names == ("age", "job", "own")
    assert [list(row) for row in inference.rows] == [[41, "clerk", True], [2.5, None, None]]


def test_objects_written_in_another_order_are_the_same_columns(post: Post) -> None:
    asked = {"instances": [{"a": 1, "b": 2}, {"b": 4, "a": 3}]}
    inference = decode(post(PATH, asked, {"predictions": [0, 1]}))
    assert np.asarray(inference.rows).tolist() == [[1, 2], [3, 4]]


def test_nested_objects_and_arrays_become_columns_of_their_own(post: Post) -> None:
    asked = {"instances": [{"who": {"age": 41}, "at": [1.5, 2.5]}]}
    inference = decode(post(PATH, asked, {"predictions": [0]}))
    assert inference.names == ("who.age", "at_0", "at_1")
    assert np.asarray(inference.rows).tolist() == [[41, 1.5, 2.5]]


def test_lone_cells_are_rows_of_one_feature(post: Post) -> None:
    inference = decode(post(PATH, {"instances": ["good", "bad"]}, {"predictions": [1, 0]}))
    assert [list(row) for row in inference.rows] == [["good"], ["bad"]]


def test_an_image_is_laid_out_flat_up_to_the_limit(post: Post) -> None:
    image = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    exchange = post(PATH, {"instances": [image]}, {"predictions": [0]})
    assert np.asarray(decode(exchange).rows).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert reason(exchange, columns_max=7) is R.TOO_MANY_COLUMNS


@pytest.mark.parametrize(
    ("said", "outputs"),
    [
        ([0.1, 0.9], {"predictions": [0.1, 0.9]}),
        ([[0.1], [0.9]], {"predictions": [0.1, 0.9]}),
        ([[0.1, 0.9], [0.8, 0.2]], {"predictions": [[0.1, 0.9], [0.8, 0.2]]}),
        (
            [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.8}],
            {"label": ["a", "b"], "score": [0.9, 0.8]},
        ),
        (
            [{"label": "a", "scores": [0.9, 0.1]}, {"label": "b", "scores": [0.8, 0.2]}],
            {"label": ["a", "b"], "scores": [[0.9, 0.1], [0.8, 0.2]]},
        ),
        ({"label": ["a", "b"]}, {"label": ["a", "b"]}),
        ([[{"box": [1, 2]}], []], {}),
    ],
)
def test_answers_in_every_shape(post: Post, said: Any, outputs: dict[str, Any]) -> None:
    inference = decode(post(PATH, {"instances": [[1], [2]]}, {"predictions": said}))
    assert {name: list(entries) for name, entries in inference.outputs.items()} == outputs


def test_nan_tokens_are_missing_and_infinite_cells_not_lost_rows(post: Post) -> None:
    exchange = post(PATH, b'{"instances": [[NaN, -Infinity, 1]]}', b'{"predictions": [NaN]}')
    inference = decode(exchange)
    np.testing.assert_array_equal(inference.rows, [[np.nan, -np.inf, 1.0]])
    assert reason(exchange, nan_body_bytes_max=10) is R.BODY_TOO_LARGE


@pytest.mark.parametrize(
    ("asked", "said", "expected"),
    [
        (b"", {"predictions": []}, R.NOT_JSON),
        (b'{"instances": [[1', {"predictions": [1]}, R.NOT_JSON),
        (b"\xff\xfe", {"predictions": [1]}, R.NOT_JSON),
        (b'["NaN", "\\ud800"]', {"predictions": [1]}, R.NOT_JSON),
        ([1, 2], {"predictions": [1]}, R.NOT_AN_INFERENCE),
        ({"instances": [[1]], "inputs": [[1]]}, {"predictions": [1]}, R.NOT_AN_INFERENCE),
        ({"instances": [[1]]}, {"error": "no"}, R.NOT_AN_INFERENCE),
        ({"instances": [[1]]}, b"<html>", R.NOT_JSON),
        ({"instances": {"a": 1}}, {"predictions": [1]}, R.WRONG_TYPE),
        ({"instances": [[1], {"a": 1}]}, {"predictions": [1, 2]}, R.WRONG_TYPE),
        ({"instances": [[1, {"a": 1}]]}, {"predictions": [1]}, R.WRONG_TYPE),
        ({"instances": [{"b64": "aGk="}, 1]}, {"predictions": [1, 2]}, R.WRONG_TYPE),
        ({"instances": [{"b64": "aGk="}, {"a": 1}]}, {"predictions": [1, 2]}, R.WRONG_TYPE),
        ({"instances": [{"b64": "a"}]}, {"predictions": [1]}, R.WRONG_TYPE),
        ({"instances": [{"a" * 300: 1}]}, {"predictions": [1]}, R.WRONG_TYPE),
        ({"instances": []}, {"predictions": []}, R.EMPTY_BATCH),
        ({"instances": [[]]}, {"predictions": [1]}, R.EMPTY_BATCH),
        ({"instances": [{}]}, {"predictions": [1]}, R.EMPTY_BATCH),
        ({"instances": [[1, 2], [1]]}, {"predictions": [1, 2]}, R.RAGGED_ROWS),
        ({"instances": [[[1], [1, 2]]]}, {"predictions": [1]}, R.RAGGED_ROWS),
        ({"instances": [[0] * 10_000]}, {"predictions": [1]}, R.TOO_MANY_COLUMNS),
        ({"instances": [{f"c{i}": 0 for i in range(10_000)}]}, {"predictions": [1]},
         R.TOO_MANY_COLUMNS),
        ({"instances": [[0]] * 100_001}, {"predictions": [1]}, R.TOO_MANY_ROWS),
        (b'{"instances": [' + b"[" * 40 + b"1" + b"]" * 40 + b"]}", {"predictions": [1]},
         R.TOO_DEEP),
        (b"[" * 100_000, {"predictions": [1]}, R.TOO_DEEP),
        (b'{"NaN":' + b"[" * 100_000, {"predictions": [1]}, R.TOO_DEEP),
        (b"[NaN," + b"[" * 100_000, {"predictions": [1]}, R.TOO_DEEP),
        (b"[NaN," + b"[" * 300 + b"]" * 301, {"predictions": [1]}, R.TOO_DEEP),
        ({"instances": [[1], [2]]}, {"predictions": [1]}, R.ROWS_MISMATCH),
        ({"instances": [[1], [2]]}, {"predictions": 1}, R.ROWS_MISMATCH),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(post: Post, asked: Any, said: Any, expected: DecodeReason) -> None:
    assert reason(post(PATH, asked, said)) is expected


def test_names_that_change_from_row_to_row_cannot_multiply_into_all_memory(post: Post) -> None:
    rows = [{f"c{i}": 0} for i in range(2_000)]
    exchange = post(PATH, {"instances": rows}, {"predictions": [1] * 2_000})
    assert reason(exchange, cells_max=1_000_000) is R.TOO_MANY_ROWS
