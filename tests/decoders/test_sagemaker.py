"""SageMaker's /invocations: what its algorithms and containers are asked in, and answer in."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.sagemaker import SageMaker, json_lines
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
PATH = "/invocations"
R = DecodeReason
LINES = "application/jsonlines"
NPY = "application/x-npy"


def typed(post: Post, kind: str, asked: Any, said: Any, answer_kind: str | None = None) -> Exchange:
    return post(
        PATH,
        asked,
        said,
        request_headers={"content-type": kind},
        response_headers={"content-type": kind if answer_kind is None else answer_kind},
    )


def decode(exchange: Exchange, **limits: int) -> Inference:
    return SageMaker(DecoderSettings(limits=DecodeLimits(**limits))).decode(exchange)


def reason(exchange: Exchange, **limits: int) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decode(exchange, **limits)
    return caught.value.reason


def cells(inference: Inference) -> list[list[Any]]:
    return [list(row) for row in inference.rows]


def npy(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "said", "names"),
    [
        (b"1,2\n3,4", b"0.5\n1.5", None),
        (b"1,2\n3,4\n", b"0.5,1.5\n", None),
        (b"1,2\r\n3,4\r\n", b"[0.5, 1.5]", None),
        (b"1,2\n3,4\n", b'{"predictions": [0.5, 1.5]}', None),
        (b"a,b\n1,2\n3,4\n", b"0.5\n1.5\n", ("a", "b")),
        (b'"0","1"\n1,2\n3,4\n', b"[0.5, 1.5]", ("0", "1")),  # names that look like numbers
        (b"a,a\n1,2\n3,4\n", b"0.5,1.5", ("a", "a.1")),
    ],
)
def test_csv_has_a_header_when_the_answers_are_one_fewer(
    post: Post, body: bytes, said: bytes, names: Any
) -> None:
    inference = decode(typed(post, "text/csv", body, said, "text/csv; charset=utf-8"))
    assert inference.names == names
    assert cells(inference) == [[1, 2], [3, 4]]
    assert inference.outputs == {"predictions": [0.5, 1.5]}


@pytest.mark.parametrize(
    ("body", "said", "names", "outputs"),
    [
        (b"1,2", b"0.5", None, [0.5]),
        (b"1,2", b"0.25,0.75", None, [[0.25, 0.75]]),
        (b"a,b\n1,2", b"0.25,0.75", ("a", "b"), [[0.25, 0.75]]),
        (b"a,b\n1,2", b"0.5", ("a", "b"), [0.5]),
        (b"a,b\n1,2", b"good", ("a", "b"), ["good"]),
    ],
)
def test_one_row_of_csv(post: Post, body: bytes, said: bytes, names: Any, outputs: Any) -> None:
    inference = decode(typed(post, "text/csv", body, said))
    assert inference.names == names
    assert cells(inference) == [[1, 2]]
    assert inference.outputs == {"predictions": outputs}


def test_a_missing_field_is_missing_and_words_stay_words(post: Post) -> None:
    inference = decode(typed(post, "text/csv", b'41,"a, b"\n,c\n', b"yes\nno\n"))
    assert cells(inference) == [[41, "a, b"], [None, "c"]]
    assert inference.outputs == {"predictions": ["yes", "no"]}


@pytest.mark.parametrize(
    "asked",
    [
        {"instances": [[1, 2], [3, 4]]},
        {"instances": [{"features": [1, 2]}, {"features": [3, 4]}]},
        {"instances": [{"data": {"features": {"values": [1, 2]}}},
                       {"data": {"features": {"values": [3, 4]}}}]},
        {"inputs": [[1, 2], [3, 4]]},
        {"data": [[1, 2], [3, 4]]},
        {"features": {"a": [1, 3], "b": [2, 4]}},
        [[1, 2], [3, 4]],
        [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
    ],
)  # fmt: skip
@pytest.mark.parametrize("said", [[0.5, 1.5], {"predictions": [[0.5], [1.5]]}])
def test_json_in_every_wrapping(post: Post, asked: Any, said: Any) -> None:
    inference = decode(typed(post, "application/json", asked, said))
    assert cells(inference) == [[1, 2], [3, 4]]
    assert inference.outputs == {"predictions": [0.5, 1.5]}


def test_one_row_of_json_may_lack_its_brackets(post: Post) -> None:
    inference = decode(typed(post, "application/json", [1, 2, 3], [0.25, 0.75]))
    assert cells(inference) == [[1, 2, 3]]
    assert inference.outputs == {"predictions": [[0.25, 0.75]]}


def test_json_lines_are_rows_and_answers(post: Post) -> None:
    asked = b'{"features": [1, 2]}\n\n[3, 4]\r\n'
    said = b'{"score": [0.25, 0.75], "predicted_label": 1}\n{"score": [1, 0], "predicted_label": 0}'
    inference = decode(typed(post, LINES, asked, said))
    assert cells(inference) == [[1, 2], [3, 4]]
    assert {name: list(said) for name, said in inference.outputs.items()} == {
        "score": [[0.25, 0.75], [1, 0]], "predicted_label": [1, 0],
    }  # fmt: skip


def test_a_text_is_described_and_not_kept(post: Post) -> None:
    said = [{"label": "POSITIVE", "score": 0.75}]
    inference = decode(typed(post, "application/json", {"inputs": "I like it"}, said))
    assert inference.names is not None
    assert dict(zip(inference.names, cells(inference)[0], strict=True))["text.words"] == 3.0
    assert "like" not in repr(inference)
    assert inference.outputs == {"label": ("POSITIVE",), "score": (0.75,)}


@given(data=st.data())
def test_numpy_files_are_read_as_numpy_writes_them(post: Post, data: st.DataObject) -> None:
    kinds = st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "|u1", "|b1", "<u2"])
    rows = data.draw(st.integers(2, 4))
    shape = (rows, data.draw(st.integers(1, 3)))
    values = data.draw(arrays.arrays(np.dtype(data.draw(kinds)), shape))
    version = data.draw(st.sampled_from([(1, 0), (2, 0), (3, 0)]))
    inference = decode(typed(post, NPY, npy(values, version=version), npy(np.arange(rows)), NPY))
    np.testing.assert_array_equal(np.array(inference.rows, dtype=float), values.astype(float))
    assert inference.outputs == {"predictions": list(range(rows))}


@pytest.mark.parametrize(
    ("kind", "asked", "said", "expected"),
    [
        ("text/csv", b"", b"1", R.EMPTY_BATCH),
        ("text/csv", b"1,2\n3\n", b"1\n2\n", R.RAGGED_ROWS),
        ("text/csv", b'"1,2\n', b"1", R.NOT_CSV),
        ("text/csv", b"1,2\n3,4\n", b"1,2,3", R.ROWS_MISMATCH),
        ("text/csv", b"1,2\n", b"", R.EMPTY_BATCH),
        ("text/libsvm", b"0 1:2", b"1", R.UNSUPPORTED_ENCODING),
        ("application/x-recordio-protobuf", b"\xce\xd7", b"1", R.UNSUPPORTED_ENCODING),
        ("application/json", {"instances": [1], "data": [1]}, [1], R.NOT_AN_INFERENCE),
        ("application/json", {"prompt": "hi"}, [1], R.NOT_AN_INFERENCE),
        ("application/json", 7, [1], R.NOT_AN_INFERENCE),
        ("application/json", [], [1], R.EMPTY_BATCH),
        ("application/json", {"instances": [{"features": {"keys": [1], "values": [2]}}]}, [1],
         R.UNSUPPORTED_ENCODING),
        (LINES, b"\n\n", b"1", R.EMPTY_BATCH),
        (LINES, b"[1],[2]\n", b"1", R.NOT_JSON),
        (LINES, b"[1\n2]\n", b"1", R.NOT_JSON),
        (LINES, b"[1]\n[2]", b"[1]\n", R.ROWS_MISMATCH),
        (NPY, b"\x93NUMPY\x01\x00", b"1", R.UNSUPPORTED_DATATYPE),
        (NPY, npy([[1j]]), b"1", R.UNSUPPORTED_DATATYPE),
        (NPY, npy(np.asfortranarray([[1, 2], [3, 4]])), b"1", R.UNSUPPORTED_DATATYPE),
        (NPY, npy([["x"]]), b"1", R.UNSUPPORTED_DATATYPE),
        (NPY, npy([[1.0, 2.0]])[:-1], b"1", R.WRONG_TYPE),
        (NPY, npy([[1.0]]).replace(b"(1, 1)", b"(9**9,)"), b"1", R.UNSUPPORTED_DATATYPE),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    post: Post, kind: str, asked: Any, said: Any, expected: DecodeReason
) -> None:
    answer_kind = kind if kind in (LINES, "application/json") else "text/csv"
    assert reason(typed(post, kind, asked, said, answer_kind)) is expected


def test_limits_hold_for_lines_and_arrays(post: Post) -> None:
    assert reason(typed(post, LINES, b"[1]\n" * 9, b"1"), rows_max=8) is R.TOO_MANY_ROWS
    assert reason(typed(post, NPY, npy([[1.0]] * 9), b"1"), rows_max=8) is R.TOO_MANY_ROWS
    assert reason(typed(post, NPY, npy([[1.0] * 9]), b"1"), cells_max=8) is R.TOO_MANY_ROWS
    assert reason(typed(post, "text/csv", b"1,2\n" * 9, b"1"), rows_max=8) is R.TOO_MANY_ROWS


@given(
    values=st.lists(
        st.integers() | st.text(max_size=3) | st.lists(st.none(), max_size=2), min_size=1
    )
)
def test_lines_are_the_values_that_were_written(values: list[Any]) -> None:
    try:
        body = b"\n".join(map(orjson.dumps, values))
    except TypeError:
        return  # an integer that no JSON of ours holds
    assert json_lines(body, DecodeLimits()) == values
