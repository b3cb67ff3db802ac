"""Which protocol a route speaks is found from its first exchanges, and then holds."""

from collections.abc import Callable

import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import (
    DecodeError,
    DecodeReason,
    DecoderSettings,
    JsonPathSettings,
)
from agent.decoders.detection import ROUTES_MAX, Decoding
from agent.exchange import Exchange
from tests.decoders.language import EVENTS, asked, chunk, events

Post = Callable[..., Exchange]
R = DecodeReason
V1 = ({"instances": [[1, 2]]}, {"predictions": [0]})
TENSOR = {"name": "x", "shape": [1], "datatype": "INT64", "data": [0]}
V2 = ({"inputs": [TENSOR]}, {"outputs": [TENSOR]})
SPLIT = ({"dataframe_split": {"data": [[1, 2]]}}, {"predictions": [0]})


def automatic(**paths: str) -> Decoding:
    json_path = JsonPathSettings(**paths) if paths else None
    return Decoding(decoders(AUTO, DecoderSettings(json_path=json_path)), agreeing=3)


def reason(decoding: Decoding, exchange: Exchange) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        decoding.decode(exchange)
    return caught.value.reason


@pytest.mark.parametrize(
    ("path", "bodies", "protocol"),
    [
        ("/v1/models/m:predict", V1, "kserve_v1"),
        ("/v1/models/m/versions/3:predict", V1, "tf_serving"),
        ("/v1/models/m/labels/canary:predict", V1, "tf_serving"),
        ("/v1/models/m:predict", ({"signature_name": "s", **V1[0]}, V1[1]), "tf_serving"),
        ("/v1/models/m:predict", ({"inputs": [[1, 2]]}, {"outputs": [0]}), "tf_serving"),
        ("/v1/models/m:predict", (V1[0], b'{\n    "predictions": [0\n    ]\n}'), "tf_serving"),
        ("/v1/models/m:regress", ({"examples": [{"a": 1}]}, {"result": [0.5]}), "tf_serving"),
        ("/predict", V1, "kserve_v1"),
        ("/models/m:predict", V1, "kserve_v1"),
        ("/predict", ({"inputs": [[1, 2]]}, {"predictions": [0]}), "kserve_v1"),
        ("/v2/models/m/infer", V2, "open_inference"),
        ("/v2/models/m/versions/1/infer", V2, "open_inference"),
        ("/behind/a/gateway", V2, "open_inference"),
        ("/invocations", SPLIT, "mlflow"),
        ("/invocations", V1, "mlflow"),
        ("/score", SPLIT, "mlflow"),
        ("/invocations", ({"instances": [{"features": [1]}]}, V1[1]), "sagemaker"),
        ("/invocations", ([[1, 2]], [0.5]), "sagemaker"),
        ("/invocations", ({"instances": [[1, 2]]}, [0.5]), "sagemaker"),
        ("/endpoints/churn/invocations", ([[1, 2]], {"predictions": [0.5]}), "sagemaker"),
        ("/predictions/m", ([1, 2], [0.5]), "torchserve"),
        ("/predictions/m/1.0", V1, "torchserve"),
    ],
)
def test_the_protocol_is_found_by_path_or_shape(
    post: Post, path: str, bodies: tuple[object, object], protocol: str
) -> None:
    decoding = automatic()
    for _ in range(2):
        decoding.decode(post(path, *bodies))
    assert decoding.detected == {}
    decoding.decode(post(path, *bodies))
    assert decoding.detected == {path: protocol}
    assert decoding.decoded_total == 3


def test_a_settled_route_keeps_its_protocol(post: Post) -> None:
    decoding = automatic()
    for _ in range(3):
        decoding.decode(post("/p", *V1))
    for _ in range(9):
        assert reason(decoding, post("/p", *V2)) is R.NOT_AN_INFERENCE
    assert decoding.detected == {"/p": "kserve_v1"}
    assert decoding.dropped == {R.NOT_AN_INFERENCE: 9}


def test_votes_that_disagree_begin_again(post: Post) -> None:
    decoding = automatic()
    for bodies in (V1, V1, V2, V1, V1):
        decoding.decode(post("/p", *bodies))
    assert decoding.detected == {}
    decoding.decode(post("/p", *V1))
    assert decoding.detected == {"/p": "kserve_v1"}


def test_what_nobody_recognises_is_counted(post: Post) -> None:
    decoding = automatic()
    assert reason(decoding, post("/x", {"q": "hi"}, {"a": "ho"})) is R.UNSUPPORTED_PROTOCOL
    assert reason(decoding, post("/x", b"\x00\x01", b"")) is R.UNSUPPORTED_PROTOCOL
    assert reason(decoding, post("/ready", b"", b"", method="GET")) is R.NOT_AN_INFERENCE
    assert reason(decoding, post("/v2/models/m/infer", *V2, status=500)) is R.ERROR_STATUS
    assert decoding.dropped == {
        R.UNSUPPORTED_PROTOCOL: 2,
        R.NOT_AN_INFERENCE: 1,
        R.ERROR_STATUS: 1,
    }
    assert decoding.detected == {}


def test_the_reason_is_the_one_of_the_decoder_that_got_furthest(post: Post) -> None:
    exchange = post("/invocations", {"dataframe_split": {"data": []}}, {"predictions": []})
    assert reason(automatic(features="gone"), exchange) is R.EMPTY_BATCH


def test_a_configured_path_is_tried_last(post: Post) -> None:
    decoding = automatic(features="q", prediction="a")
    assert decoding.decode(post("/x", {"q": [1]}, {"a": 2})).outputs == {"prediction": [2]}
    assert decoding.decode(post("/y", *V1)).outputs == {"predictions": [0]}


def test_a_configured_protocol_is_used_without_asking(post: Post) -> None:
    decoding = Decoding(decoders("kserve_v1", DecoderSettings()))
    assert decoding.decode(post("/anything", *V1)).outputs == {"predictions": [0]}


def test_a_configured_protocol_is_shown_for_a_route_once_it_was_read(post: Post) -> None:
    decoding = Decoding(decoders("kserve_v1", DecoderSettings()))
    assert reason(decoding, post("/other", {}, {})) is R.NOT_AN_INFERENCE
    assert decoding.detected == {}
    decoding.decode(post("/anything", *V1))
    assert decoding.detected == {"/anything": "kserve_v1"}


@pytest.mark.parametrize("protocol", [AUTO, "kserve_v1"])
def test_endless_routes_do_not_fill_the_memory(post: Post, protocol: str) -> None:
    decoding = Decoding(decoders(protocol, DecoderSettings()), agreeing=3)
    for number in range(ROUTES_MAX + 50):
        for _ in range(3):
            decoding.decode(post(f"/p/{number}", *V1))
    assert len(decoding.detected) == ROUTES_MAX
    assert decoding.decoded_total == 3 * (ROUTES_MAX + 50)


def test_of_a_stream_that_was_cut_its_decoder_tells_what_it_can(post: Post) -> None:
    body = events(chunk({"content": "Up"}), chunk({"content": " the"}), done=False)
    cut = post(
        "/v1/chat/completions", asked(), body, response_headers=EVENTS,
        response_truncated=True, outcome="client_disconnect",
    )  # fmt: skip
    decoding = automatic()
    with pytest.raises(DecodeError) as caught:
        decoding.decode(cut)
    assert caught.value.reason is R.INCOMPLETE_EXCHANGE
    assert caught.value.generation is not None
    assert caught.value.generation.output_tokens == 2
    assert decoding.detected == {}


def test_a_chat_that_mlflow_passes_through_is_a_chat(post: Post) -> None:
    said = {"choices": [{"message": {"content": "Up"}, "finish_reason": "stop"}]}
    inference = automatic().decode(post("/invocations", asked(), said))
    assert inference.outputs["finish_reason"] == ["stop"]
