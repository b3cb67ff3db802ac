"""What `test_decoders.py` asks of every decoder, asked of those whose bodies are protobuf."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.catalog import AUTO, CATALOG, decoders
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange
from tests.decoders.protos import infer_tensor, proto, tf_tensor

LIMITS = DecodeLimits(
    body_bytes_max=4_000, columns_max=12, rows_max=6, cells_max=40, depth_max=4,
    name_characters_max=32,
)  # fmt: skip
SETTINGS = DecoderSettings(limits=LIMITS)
RAW = np.array([[1.5, 2], [3, 4]], dtype="<f4").tobytes()

# name -> path, request, response: one good exchange of two rows.
EXAMPLES: dict[str, tuple[str, Any, Any]] = {
    "open_inference_grpc": (
        "/inference.GRPCInferenceService/ModelInfer",
        proto(
            "inference.ModelInferRequest",
            id="body-1",
            inputs=[
                infer_tensor("a", "FP32", [2, 2]),
                infer_tensor("b", "BYTES", [2]),
            ],
            raw_input_contents=[RAW, b"\x01\0\0\0x\x01\0\0\0y"],
        ),
        proto(
            "inference.ModelInferResponse",
            outputs=[infer_tensor("label", "INT64", [2], int64_contents=[0, 300])],
        ),
    ),
    "tf_serving_grpc": (
        "/tensorflow.serving.PredictionService/Predict",
        proto(
            "tensorflow.PredictRequest",
            inputs={
                "a": tf_tensor(1, [2, 2], tensor_content=RAW),
                "b": tf_tensor(7, [2], string_val=[b"x", b"y"]),
            },
        ),
        proto("tensorflow.PredictResponse", outputs={"p": tf_tensor(2, [2], double_val=[1, 2])}),
    ),
    "torchserve_grpc": (
        "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
        proto("pytorch.PredictionsRequest", input={"data": b"[[1.5, 2, 3], [3, 4, 5]]"}),
        proto("pytorch.PredictionResponse", prediction=b"[0, 1]"),
    ),
}
NAMES = sorted(EXAMPLES)


def exchange(name: str, **other: Any) -> Exchange:
    path, asked, said = EXAMPLES[name]
    fields: dict[str, Any] = {
        "id": "edge-1", "minted": True, "id_from": "minted", "source": "proxy", "version": "v1",
        "slot": "stable", "method": "POST", "path": path, "query": "",
        "request_headers": {"content-type": "application/grpc"},
        "request_body": asked.SerializeToString(), "request_truncated": False, "status": 200,
        "response_headers": {"content-type": "application/grpc"},
        "response_body": said.SerializeToString(), "response_truncated": False,
        "started_at": 1_700_000_000.0, "first_byte_s": None, "duration_s": 0.25, "outcome": "ok",
        "weight": 4.0,
    }  # fmt: skip
    return Exchange(**(fields | other))


def outcome(name: str, given: Exchange) -> DecodeReason | None:
    """The reason of a refusal; an inference must keep every promise of the contract."""
    try:
        inference = CATALOG[name](SETTINGS).decode(given)
    except DecodeError as error:
        return error.reason
    rows = len(inference.rows)
    assert 1 <= rows <= LIMITS.rows_max
    width = len(inference.rows[0])
    assert 1 <= width <= LIMITS.columns_max
    assert all(len(row) == width for row in inference.rows)
    assert inference.names is None or len(set(inference.names)) == width
    assert all(len(entries) == rows for entries in inference.outputs.values())
    return None


def test_every_decoder_of_grpc_has_an_example() -> None:
    assert [name for name in sorted(CATALOG) if name.endswith("_grpc")] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_example_is_recognised_and_decoded(name: str) -> None:
    found = exchange(name)
    assert next(one.name for one in decoders(AUTO, SETTINGS) if one.matches(found)) == name
    inference = Decoding(decoders(AUTO, SETTINGS)).decode(found)
    assert (len(inference.rows), len(inference.rows[0])) == (2, 3)
    assert len(inference.outputs) == 1
    assert (inference.weight, inference.latency_s, inference.slot) == (4.0, 0.25, "stable")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "GET"}, DecodeReason.NOT_AN_INFERENCE),
        ({"status": 503}, DecodeReason.ERROR_STATUS),
        ({"status": 0, "outcome": "timeout"}, DecodeReason.INCOMPLETE_EXCHANGE),
        ({"request_truncated": True}, DecodeReason.BODY_TRUNCATED),
        ({"response_truncated": True}, DecodeReason.BODY_TRUNCATED),
        ({"request_body": b"\x0a" * 5_000}, DecodeReason.BODY_TOO_LARGE),
        ({"response_body": b"\x0a" * 5_000}, DecodeReason.BODY_TOO_LARGE),
        ({"request_body": b"{"}, DecodeReason.NOT_PROTOBUF),
        ({"response_body": b"{"}, DecodeReason.NOT_PROTOBUF),
        ({"request_body": b""}, DecodeReason.NOT_AN_INFERENCE),
        ({"response_body": b""}, DecodeReason.NOT_AN_INFERENCE),
    ],
)
def test_it_names_what_is_wrong(name: str, change: dict[str, Any], expected: DecodeReason) -> None:
    assert outcome(name, exchange(name, **change)) is expected


@pytest.mark.parametrize("name", NAMES)
@given(asked=st.binary(max_size=80), said=st.binary(max_size=80))
def test_only_a_decode_error_escapes_whatever_the_bytes(
    name: str, asked: bytes, said: bytes
) -> None:
    outcome(name, exchange(name, request_body=asked))
    outcome(name, exchange(name, response_body=said))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_only_a_decode_error_escapes_when_a_good_call_is_damaged(
    name: str, data: st.DataObject
) -> None:
    side = data.draw(st.sampled_from(["request_body", "response_body"]))
    body = bytearray(getattr(exchange(name), side))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if change == "set":
            body[at] = data.draw(st.integers(0, 255))
        elif change == "insert":
            body[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif len(body) > 1:
            del body[at : at + data.draw(st.integers(1, 8))]
        if not body:
            break
    outcome(name, exchange(name, **{side: bytes(body)}))
