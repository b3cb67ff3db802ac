"""What lines of each format say; lines of real servers stand here as those wrote them."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import TailSource
from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecodeLimits, DecoderSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange
from agent.inference import Inference
from agent.sources.sampler import Sampler, keep_all
from agent.sources.tail_formats import Context, LineError, Said, bento_roles, format_of

# BentoML 1.4, its monitor's data and the schema beside it.
BENTO = (
    b'{"sl": 5.1, "sw": 3.5, "pl": 1.4, "pw": 0.2, "pred": 0, '
    b'"timestamp": "2026-11-23T04:50:00.123456", "request_id": "13302857137240405462", '
    b'"trace_id": "103886021385268372930000000000000000000"}'
)
BENTO_SCHEMA = (
    b'{"meta_data": {"bento_name": "", "bento_version": "not available"}, "columns": ['
    b'{"name": "sl", "role": "feature", "type": "numerical"}, '
    b'{"name": "pred", "role": "prediction", "type": "categorical"}]}\n'
)
# TorchServe's access_log.log, the same on its console, and a handler's print in model_log.log.
ACCESS = b'2026-11-23T04:50:00,118 - /127.0.0.1:64003 "POST /predictions/iris?x=1 HTTP/1.1" 200 118'
CONSOLE = (
    b"2026-11-23T04:50:00,118 [INFO ] W-9000-iris_1.0 ACCESS_LOG - "
    b'/127.0.0.1:64003 "gRPC org.pytorch.serve.grpc.inference/Predictions HTTP/2.0" 500 7'
)
PRINTED = (
    b"2026-11-23T04:50:00,118 [INFO ] W-9000-iris_1.0-stdout MODEL_LOG - "
    b'{"request_id": "r-1", "x": 1.5, "prediction": 2}'
)


def read(line: bytes, context: Context | None = None, **keys: Any) -> Said:
    source = TailSource.model_validate({"kind": "tail", "path": "/x", **keys})
    reader = format_of(source, DecodeLimits(), keep_all())
    return reader.read(line, context or Context(id="made-1", now=1_000.0))


def inference(said: Said) -> Inference:
    (taken,) = said.taken
    assert isinstance(taken, Inference)
    return taken


def exchange(said: Said) -> Exchange:
    (taken,) = said.taken
    assert isinstance(taken, Exchange)
    return taken


def capture(asked: dict[str, Any], said: dict[str, Any], **about: str) -> bytes:
    """A line of SageMaker's data capture."""
    sides = {"endpointInput": {"mode": "INPUT", **asked}, "endpointOutput": {"mode": "OUTPUT"}}
    sides["endpointOutput"] |= said
    metadata = {"eventId": "aaaa-1", "inferenceTime": "2026-08-21T10:00:00Z", **about}
    line = {"captureData": sides, "eventMetadata": metadata, "eventVersion": "0"}
    return json.dumps(line).encode()


def test_a_line_of_json_is_a_row_with_an_id_of_its_own_place() -> None:
    row = inference(read(b'{"x": 1, "y": "a", "prediction": 0}', format="json_lines"))
    assert (row.id, row.at, row.names) == ("made-1", 1_000.0, ("x", "y"))
    said = read(b'{"request_id": "r", "x": 1, "label": true}', format="json_lines")
    assert said.labels == [{"request_id": "r", "row": 0, "label": True}]


def test_a_line_may_hold_a_request_and_its_response() -> None:
    paths = {
        "request": "$.req.body",
        "response": "$.res",
        "path": "/v1/models/iris:predict",
        "id": "$.req.id",
        "at": "$.ts",
        "duration_s": "$.took",
        "status": "$.code",
        "version": "$.v",
    }
    line = json.dumps(
        {
            "req": {"id": "q-7", "body": '{"instances": [[1, 2]]}'},
            "res": {"predictions": [3]},
            "ts": "2026-08-21T10:00:00Z",
            "took": 0.25,
            "code": 200,
            "v": 4,
        }
    ).encode()
    found = exchange(read(line, format="json_lines", exchange=paths))
    assert (found.id, found.version, found.duration_s) == ("q-7", "4", 0.25)
    assert found.started_at == 1787306400.0
    decoded = Decoding(decoders(AUTO, DecoderSettings())).decode(found)
    assert np.asarray(decoded.rows).tolist() == [[1, 2]]
    assert decoded.outputs == {"predictions": [3]}
    with pytest.raises(LineError, match="line_without_answer"):
        read(b'{"req": {"body": {}}}', format="json_lines", exchange=paths)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"observedContentType": "text/csv", "data": "5.1,3.5\n6,2.9", "encoding": "CSV"},
            {"observedContentType": "text/csv", "data": "0\n1", "encoding": "CSV"},
        ),
        (
            {
                "observedContentType": "application/json",
                "data": '{"instances": [[5.1, 3.5], [6, 2.9]]}',
                "encoding": "JSON",
            },
            {
                "observedContentType": "application/json",
                "data": base64.b64encode(b'{"predictions": [0, 1]}').decode(),
                "encoding": "BASE64",
            },
        ),
    ],
)
def test_both_sides_of_a_sagemaker_capture_are_decoded_by_their_encoding(
    asked: dict[str, Any], said: dict[str, Any]
) -> None:
    found = exchange(read(capture(asked, said, inferenceId="mine-1"), format="sagemaker"))
    assert (found.id, found.id_from, found.path) == ("mine-1", "x-request-id", "/invocations")
    assert found.started_at == 1787306400.0
    decoded = Decoding(decoders(AUTO, DecoderSettings())).decode(found)
    assert np.asarray(decoded.rows).tolist() == [[5.1, 3.5], [6.0, 2.9]]
    (entries,) = decoded.outputs.values()
    assert list(entries) == [0, 1]


def test_a_capture_without_an_inference_id_is_known_by_its_event() -> None:
    side = {"observedContentType": "text/csv", "data": "1", "encoding": "CSV"}
    assert exchange(read(capture(side, side), format="sagemaker")).id == "aaaa-1"
    for line, reason in (
        (b"{}", "line_malformed"),
        (b'{"captureData": {"endpointInput": {}}, "eventMetadata": {}}', "line_without_answer"),
        (capture(side, {"data": "!", "encoding": "BASE64"}), "line_malformed"),
        (b"{", "line_not_json"),
    ):
        with pytest.raises(LineError) as caught:
            read(line, format="sagemaker")
        assert caught.value.reason == reason


def test_torchserves_access_log_tells_of_requests_and_nothing_of_rows() -> None:
    said = read(ACCESS, format="torchserve")
    assert said.taken == ()
    assert said.request is not None
    assert (said.request.path, said.request.status) == ("/predictions/iris", 200)
    assert said.request.duration_s == 0.118
    console = read(CONSOLE, format="torchserve").request
    assert console is not None
    assert (console.status, console.duration_s) == (500, 0.007)


def test_json_that_a_torchserve_handler_prints_is_a_row() -> None:
    row = inference(read(PRINTED, format="torchserve"))
    assert (row.id, row.names, row.outputs) == ("r-1", ("x",), {"prediction": [2]})
    assert row.at != 1_000.0  # the log's own time
    assert read(b"2026 [INFO ] W-9000 MODEL_LOG - loading", format="torchserve") == Said()


def test_bentomls_monitor_names_the_prediction_in_a_schema_beside_its_data() -> None:
    context = Context(id="made-1", now=1_000.0, roles=bento_roles(b"\n" + BENTO_SCHEMA + b"{"))
    row = inference(read(BENTO, context, format="bentoml"))
    assert (row.id, row.names) == ("13302857137240405462", ("sl", "sw", "pl", "pw"))
    assert row.outputs == {"prediction": [0]}
    named = inference(read(BENTO, format="bentoml", rows={"prediction": "pred"}))
    assert named.outputs == {"prediction": [0]}
    assert bento_roles(b"") == {}


def test_lines_are_sampled_by_their_id() -> None:
    source = TailSource.model_validate({"kind": "tail", "path": "/x", "format": "sagemaker"})
    sampler = Sampler(keeps=lambda id: id == "aaaa-1", weight=lambda: 4.0)
    reader = format_of(source, DecodeLimits(), sampler)
    side = {"observedContentType": "text/csv", "data": "1", "encoding": "CSV"}
    kept = reader.read(capture(side, side), Context(id="m"))
    assert exchange(kept).weight == 4.0
    assert reader.read(capture(side, side, eventId="bbbb"), Context(id="m")).taken == ()


FORMATS = st.sampled_from(["json_lines", "sagemaker", "torchserve", "bentoml"])
SEEDS = st.sampled_from([BENTO, ACCESS, CONSOLE, PRINTED, capture({"data": "1"}, {"data": "2"})])


@given(FORMATS, st.binary(max_size=80) | SEEDS, st.integers(0, 200), st.binary(max_size=5))
def test_whatever_the_line_is_nothing_but_a_line_error_escapes(
    format: str, line: bytes, at: int, damage: bytes
) -> None:
    try:
        read(line[:at] + damage + line[at + len(damage) :], format=format)
    except LineError as error:
        assert error.reason.startswith(("line_", "row_"))  # noqa: PT017 -- it may not raise either
