from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange
from agent.inference import Inference
from tests.decoders.protos import infer_tensor, proto, tf_tensor

INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
TORCH = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
HEADERS = {"content-type": "application/grpc"}
Post = Callable[..., Exchange]
ONE_OUTPUT = [infer_tensor("y", "INT64", [2], int64_contents=[0, 1])]


def decoded(exchange: Exchange) -> Inference:
    return Decoding(decoders(AUTO, DecoderSettings())).decode(exchange)


def call(post: Post, path: str, asked: Any, said: Any, **other: Any) -> Exchange:
    return post(
        path,
        asked.SerializeToString(),
        said.SerializeToString(),
        request_headers=HEADERS,
        response_headers=HEADERS,
        **other,
    )


def infer(post: Post, asked: Any, outputs: Sequence[Any] = ONE_OUTPUT) -> Inference:
    said = proto("inference.ModelInferResponse", model_name="m", outputs=list(outputs))
    return decoded(call(post, INFER, asked, said))


def predict(post: Post, inputs: dict[str, Any], outputs: dict[str, Any] | None = None) -> Inference:
    asked = proto("tensorflow.PredictRequest", inputs=inputs)
    outputs = outputs or {"y": tf_tensor(1, [2], float_val=[0.25, 0.75])}
    said = proto("tensorflow.PredictResponse", outputs=outputs)
    return decoded(call(post, PREDICT, asked, said))


def reason(post: Post, path: str, asked: Any, said: Any, **other: Any) -> DecodeReason:
    with pytest.raises(DecodeError) as refused:
        decoded(call(post, path, asked, said, **other))
    return refused.value.reason


# Open Inference.

LISTED = [
    ("FP32", {"fp32_contents": [1.5, -2, 0.25, 4]}, [[1.5, -2], [0.25, 4]]),
    ("FP64", {"fp64_contents": [1e300, 2, 3, 4]}, [[1e300, 2], [3, 4]]),
    ("INT8", {"int_contents": [-1, 2, 127, -128]}, [[-1, 2], [127, -128]]),
    ("INT32", {"int_contents": [-(2**31), 2, 3, 4]}, [[-(2**31), 2], [3, 4]]),
    ("INT64", {"int64_contents": [-(2**40), 300, 3, 4]}, [[-(2**40), 300], [3, 4]]),
    ("UINT8", {"uint_contents": [255, 2, 3, 4]}, [[255, 2], [3, 4]]),
    ("UINT64", {"uint64_contents": [2**53, 2, 3, 4]}, [[2**53, 2], [3, 4]]),
    ("BOOL", {"bool_contents": [True, False, False, True]}, [[True, False], [False, True]]),
    ("BYTES", {"bytes_contents": [b"a", b"b", b"", b"d"]}, [["a", "b"], ["", "d"]]),
]


@pytest.mark.parametrize(("datatype", "contents", "rows"), LISTED, ids=lambda v: str(v)[:8])
def test_values_in_the_list_of_their_type(
    post: Post, datatype: str, contents: dict[str, Any], rows: list[Any]
) -> None:
    tensor = infer_tensor("x", datatype, [2, 2], **contents)
    found = infer(post, proto("inference.ModelInferRequest", inputs=[tensor]))
    assert [list(row) for row in found.rows] == rows
    assert found.names is None
    assert found.outputs == {"y": [0, 1]}


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8"), ("INT16", "<i2"), ("UINT32", "<u4"),
        ("INT64", "<i8"), ("UINT8", "u1"),
    ],
)  # fmt: skip
def test_values_raw_as_they_lie_in_memory(post: Post, datatype: str, dtype: str) -> None:
    raw = np.arange(4, dtype=dtype).tobytes()
    asked = proto(
        "inference.ModelInferRequest",
        inputs=[infer_tensor("x", datatype, [2, 2])],
        raw_input_contents=[raw],
    )
    np.testing.assert_array_equal(infer(post, asked).rows, [[0, 1], [2, 3]])


def test_bf16_is_the_upper_half_of_a_float(post: Post) -> None:
    raw = (np.array([1.5, -2], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    asked = proto(
        "inference.ModelInferRequest",
        inputs=[infer_tensor("x", "BF16", [2, 1])],
        raw_input_contents=[raw],
    )
    np.testing.assert_array_equal(infer(post, asked).rows, [[1.5], [-2]])


def test_several_raw_tensors_stand_in_their_order(post: Post) -> None:
    asked = proto(
        "inference.ModelInferRequest",
        inputs=[infer_tensor("age", "INT32", [2]), infer_tensor("town", "BYTES", [2, 1])],
        raw_input_contents=[
            np.array([41, 67], dtype="<i4").tobytes(),
            b"\x05\0\0\0north\x05\0\0\0south",
        ],
    )
    said = proto(
        "inference.ModelInferResponse",
        outputs=[infer_tensor("p", "FP32", [2, 2])],
        raw_output_contents=[np.array([0.5, 0.5, 0.25, 0.75], dtype="<f4").tobytes()],
    )
    found = decoded(call(post, INFER, asked, said))
    assert found.names == ("age", "town")
    assert [list(row) for row in found.rows] == [[41, "north"], [67, "south"]]
    assert found.outputs == {"p": [[0.5, 0.5], [0.25, 0.75]]}


def test_the_id_of_the_message_wins_over_a_minted_one(post: Post) -> None:
    tensor = infer_tensor("x", "FP32", [2, 1], fp32_contents=[1, 2])
    asked = proto("inference.ModelInferRequest", id="from-the-message", inputs=[tensor])
    found = infer(post, asked)
    assert (found.id, found.aliases) == ("from-the-message", ("minted-1",))


def test_what_is_no_good_open_inference_call(post: Post) -> None:
    good = infer_tensor("x", "FP32", [2, 1], fp32_contents=[1, 2])
    said = proto("inference.ModelInferResponse", outputs=ONE_OUTPUT)

    def why(**asked: Any) -> DecodeReason:
        return reason(post, INFER, proto("inference.ModelInferRequest", **asked), said)

    assert why() is DecodeReason.NOT_AN_INFERENCE
    assert why(inputs=[good, good], raw_input_contents=[b"1"]) is DecodeReason.WRONG_TYPE
    short = infer_tensor("x", "FP32", [2, 2], fp32_contents=[1, 2])
    assert why(inputs=[short]) is DecodeReason.WRONG_TYPE
    odd = infer_tensor("x", "FP128", [1])
    assert why(inputs=[odd]) is DecodeReason.UNSUPPORTED_DATATYPE
    half = infer_tensor("x", "FP16", [1], fp32_contents=[1])
    assert why(inputs=[half]) is DecodeReason.UNSUPPORTED_DATATYPE
    backwards = infer_tensor("x", "FP32", [-2, 1], fp32_contents=[1, 2])
    assert why(inputs=[backwards]) is DecodeReason.WRONG_TYPE
    three = infer_tensor("x", "FP32", [3, 1], fp32_contents=[1, 2, 3])
    assert why(inputs=[three]) is DecodeReason.ROWS_MISMATCH


@pytest.mark.parametrize(
    ("path", "other", "expected"),
    [
        (INFER.replace("ModelInfer", "ServerLive"), {}, DecodeReason.NOT_AN_INFERENCE),
        (INFER, {"status": 503}, DecodeReason.ERROR_STATUS),
        (INFER, {"response_truncated": True}, DecodeReason.BODY_TRUNCATED),
        (INFER, {"request_truncated": True}, DecodeReason.BODY_TRUNCATED),
        (INFER, {"outcome": "timeout"}, DecodeReason.INCOMPLETE_EXCHANGE),
    ],
)
def test_calls_that_are_none_or_went_wrong(
    post: Post, path: str, other: dict[str, Any], expected: DecodeReason
) -> None:
    asked = proto("inference.ModelInferRequest", inputs=ONE_OUTPUT)
    said = proto("inference.ModelInferResponse", outputs=ONE_OUTPUT)
    assert reason(post, path, asked, said, **other) is expected


# TensorFlow Serving.

TYPED = [
    (1, {"float_val": [1.5, 2, 3, 4]}, [[1.5, 2], [3, 4]]),
    (2, {"double_val": [1e300, 2, 3, 4]}, [[1e300, 2], [3, 4]]),
    (3, {"int_val": [-5, 2, 3, 4]}, [[-5, 2], [3, 4]]),
    (6, {"int_val": [-5, 2, 3, 4]}, [[-5, 2], [3, 4]]),
    (9, {"int64_val": [-(2**40), 2, 3, 4]}, [[-(2**40), 2], [3, 4]]),
    (10, {"bool_val": [True, False, True, True]}, [[True, False], [True, True]]),
    (14, {"half_val": [0x3FC0, 0xC000, 0, 0x3F80]}, [[1.5, -2], [0, 1]]),
    (19, {"half_val": [0x3E00, 0xC000, 0, 0x3C00]}, [[1.5, -2], [0, 1]]),
    (22, {"uint32_val": [2**32 - 1, 2, 3, 4]}, [[2**32 - 1, 2], [3, 4]]),
    (23, {"uint64_val": [2**53, 2, 3, 4]}, [[2**53, 2], [3, 4]]),
    (7, {"string_val": [b"a", b"b", b"c", b"d"]}, [["a", "b"], ["c", "d"]]),
    (1, {"float_val": [7]}, [[7, 7], [7, 7]]),
    (1, {"float_val": [1, 2, 3]}, [[1, 2], [3, 3]]),
    (9, {}, [[0, 0], [0, 0]]),
    (7, {"string_val": [b"a"]}, [["a", "a"], ["a", "a"]]),
]


@pytest.mark.parametrize(("dtype", "values", "rows"), TYPED)
def test_values_of_tensor_protos(
    post: Post, dtype: int, values: dict[str, Any], rows: list[Any]
) -> None:
    found = predict(post, {"x": tf_tensor(dtype, [2, 2], **values)})
    assert [list(row) for row in found.rows] == rows
    assert found.outputs == {"y": [0.25, 0.75]}


def test_tensor_content_is_raw(post: Post) -> None:
    content = np.array([[1, 2], [3, 4]], dtype="<i8").tobytes()
    found = predict(post, {"x": tf_tensor(9, [2, 2], tensor_content=content)})
    np.testing.assert_array_equal(found.rows, [[1, 2], [3, 4]])


def test_inputs_by_name_are_in_one_order_and_a_scalar_holds_for_every_row(post: Post) -> None:
    inputs = {
        "town": tf_tensor(7, [2], string_val=[b"north", b"south"]),
        "keep": tf_tensor(1, [], float_val=[0.5]),
        "age": tf_tensor(3, [2, 1], int_val=[41, 67]),
    }
    found = predict(post, inputs)
    assert found.names == ("age", "keep", "town")
    assert [list(row) for row in found.rows] == [[41, 0.5, "north"], [67, 0.5, "south"]]


def test_what_is_no_good_predict_call(post: Post) -> None:
    def why(tensor: Any) -> DecodeReason:
        asked = proto("tensorflow.PredictRequest", inputs={"x": tensor})
        said = proto(
            "tensorflow.PredictResponse", outputs={"y": tf_tensor(1, [2], float_val=[1, 2])}
        )
        return reason(post, PREDICT, asked, said)

    assert why(tf_tensor(8, [1])) is DecodeReason.UNSUPPORTED_DATATYPE
    assert why(tf_tensor(1, [2], float_val=[1, 2, 3])) is DecodeReason.WRONG_TYPE
    assert why(tf_tensor(1, [2], tensor_content=b"123")) is DecodeReason.WRONG_TYPE
    assert why(tf_tensor(1, [-1, 2])) is DecodeReason.WRONG_TYPE
    assert why(tf_tensor(1, [100_000, 5_000])) is DecodeReason.TOO_MANY_ROWS
    assert why(tf_tensor(7, [2**62, 2**62])) is DecodeReason.TOO_MANY_ROWS
    ranked = tf_tensor(1, [], float_val=[1])
    ranked.tensor_shape.unknown_rank = True
    assert why(ranked) is DecodeReason.WRONG_TYPE


# TorchServe.


def torch(post: Post, inputs: dict[str, bytes], prediction: bytes) -> Inference:
    asked = proto("pytorch.PredictionsRequest", model_name="m", input=inputs)
    said = proto("pytorch.PredictionResponse", prediction=prediction)
    return decoded(call(post, TORCH, asked, said))


def test_what_torchserve_is_asked_is_read_as_over_rest(post: Post) -> None:
    found = torch(post, {"data": b'{"instances": [[1, 2], [3, 4]]}'}, b"[0, 1]")
    np.testing.assert_array_equal(found.rows, [[1, 2], [3, 4]])
    assert found.outputs == {"predictions": [0, 1]}


def test_several_inputs_of_torchserve_are_one_object(post: Post) -> None:
    found = torch(post, {"age": b"41", "town": b"north"}, b"0.5")
    assert found.names == ("age", "town")
    assert [list(row) for row in found.rows] == [[41, "north"]]


def test_binaries_beside_others_are_not_guessed_at(post: Post) -> None:
    asked = proto("pytorch.PredictionsRequest", input={"a": b"\xff\xd8", "b": b"1"})
    said = proto("pytorch.PredictionResponse", prediction=b"1")
    assert reason(post, TORCH, asked, said) is DecodeReason.UNSUPPORTED_ENCODING
