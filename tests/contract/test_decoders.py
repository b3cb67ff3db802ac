"""What every decoder of the catalog owes its caller; a new one is added to `EXAMPLES`.

Only `DecodeError` escapes, whatever the bytes; the same exchange gives the same inference;
rows and outputs agree in number; limits hold.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.catalog import AUTO, CATALOG, decoders
from agent.decoders.decoder import (
    REMEDY,
    DecodeError,
    DecodeLimits,
    Decoder,
    DecodeReason,
    DecoderSettings,
    JsonPathSettings,
)
from agent.decoders.detection import Decoding
from agent.exchange import Exchange
from agent.inference import Inference

# Small enough for a fuzzer to reach.
LIMITS = DecodeLimits(
    body_bytes_max=4_000, nan_body_bytes_max=2_000, columns_max=12, rows_max=6, cells_max=40,
    depth_max=4, name_characters_max=32,
)  # fmt: skip
SETTINGS = DecoderSettings(
    limits=LIMITS,
    json_path=JsonPathSettings(
        features="rows", feature_names="names", prediction="out[*].p", score="out[*].s",
        request_id="id", response_id="id",
    ),
)  # fmt: skip


def tensor(name: str, shape: list[int], datatype: str, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


# name -> path, request, response: one good exchange of two rows, with something of each kind.
EXAMPLES: dict[str, tuple[str, Any, Any]] = {
    "chat": (
        "/v1/completions",
        {"model": "m", "prompt": ["Once upon", "In the end,"], "max_tokens": 3},
        {
            "id": "body-1",
            "choices": [
                {"index": 0, "text": " a time", "finish_reason": "length"},
                {"index": 1, "text": " we left", "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 5, "completion_tokens": 6},
        },
    ),
    "generate": (
        "/v2/models/m/generate",
        {"id": "body-1", "text_input": "Once upon", "parameters": {"max_tokens": 3}},
        {"model_name": "m", "model_version": "1", "text_output": "Once upon a time"},
    ),
    "embeddings": (
        "/v1/embeddings",
        {"model": "m", "input": ["a text", "another"]},
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [0.5, -0.5, 1e-3]},
                {"object": "embedding", "index": 1, "embedding": [0.0, 1.0, 2]},
            ],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
    ),
    "kserve_v1": (
        "/v1/models/m:predict",
        {"instances": [{"a": 1, "b": "x", "c": [1.5, None]}, {"a": 2, "b": None, "c": [0, 1]}]},
        {"predictions": [{"label": "x", "p": [0.1, 0.9]}, {"label": "y", "p": [0.8, 0.2]}]},
    ),
    "open_inference": (
        "/v2/models/m/infer",
        {
            "id": "body-1",
            "inputs": [
                tensor("a", [2, 2], "FP32", [[1.5, None], [2, 3]]),
                tensor("b", [2], "BYTES", ["x", "y"]),
                tensor("c", [2, 1], "BOOL", [True, 0]),
            ],
        },
        {
            "model_name": "m",
            "id": "body-1",
            "outputs": [
                tensor("label", [2], "INT64", [0, 1]),
                tensor("proba", [2, 2], "FP64", [0.1, 0.9, 0.8, 0.2]),
            ],
        },
    ),
    "tf_serving": (
        "/v1/models/m/versions/3:predict",
        {
            "signature_name": "serving_default",
            "inputs": {
                "a": [[1.5, None], [2, 3]],
                "b": ["x", "y"],
                "photo_bytes": [{"b64": "aGk="}] * 2,
                "keep": 0.5,
            },
        },
        {"outputs": {"label": ["x", "y"], "p": [[0.1, 0.9], [0.8, 0.2]]}},
    ),
    "sagemaker": (
        "/invocations",
        {"instances": [{"features": [1.5, None]}, {"data": {"features": {"values": [1, 2]}}}]},
        {"predictions": [{"score": 0.1, "predicted_label": 0}, {"score": 1, "predicted_label": 1}]},
    ),
    "torchserve": (
        "/predictions/m/2.0",
        {"data": [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]},
        [{"tabby": 0.5, "tiger cat": 0.25}, {"tabby": 0.75, "lynx": 0.125}],
    ),
    "mlflow": (
        "/invocations",
        {"dataframe_split": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, "x"], [2, 3]]}},
        {"predictions": [0, 1]},
    ),
    "json_path": (
        "/score",
        {"id": "body-1", "names": ["a", "b"], "rows": [[1, 2.5], [None, True]]},
        {"out": [{"p": "x", "s": 0.5}, {"p": "y", "s": [0.1, 0.2]}]},
    ),
}
# Bodies of gRPC are no JSON: tests/contract/test_grpc_decoders.py holds those to the same.
NAMES = sorted(name for name in CATALOG if not name.endswith("_grpc"))


def made(name: str, settings: DecoderSettings = SETTINGS) -> Decoder:
    return CATALOG[name](settings)


def exchange(name: str, **other: Any) -> Exchange:
    path, asked, said = EXAMPLES[name]
    fields: dict[str, Any] = {
        "id": "edge-1", "minted": True, "id_from": "minted", "source": "proxy", "version": "v1",
        "slot": "candidate", "method": "POST", "path": path, "query": "", "request_headers": {},
        "request_body": orjson.dumps(asked), "request_truncated": False, "status": 200,
        "response_headers": {}, "response_body": orjson.dumps(said), "response_truncated": False,
        "started_at": 1_700_000_000.0, "first_byte_s": None, "duration_s": 0.25, "outcome": "ok",
        "weight": 4.0,
    }  # fmt: skip
    return Exchange(**(fields | other))


def outcome(decode: Callable[[Exchange], Inference], given: Exchange) -> DecodeReason | None:
    """The reason of a refusal; an inference must keep every promise of the contract."""
    try:
        inference = decode(given)
    except DecodeError as error:
        return error.reason
    rows, width = len(inference.rows), inference.width
    assert 1 <= rows <= LIMITS.rows_max
    assert 1 <= width <= LIMITS.columns_max
    assert all(len(row) == width for row in inference.rows)
    if isinstance(inference.rows, np.ndarray):
        assert inference.rows.dtype == np.float64
        assert inference.rows.ndim == 2
    else:
        cells = [cell for row in inference.rows for cell in row]
        assert {type(cell) for cell in cells} <= {float, int, bool, str, type(None)}
    if inference.names is not None:
        assert len(set(inference.names)) == width
        assert all(len(name) <= LIMITS.name_characters_max for name in inference.names)
    assert all(len(entries) == rows for entries in inference.outputs.values())
    assert inference.id not in inference.aliases
    assert inference.latency_s == 0.25
    return None


def test_every_decoder_has_an_example() -> None:
    assert sorted(EXAMPLES) == NAMES


def test_every_reason_says_what_can_be_done() -> None:
    assert set(REMEDY) == set(DecodeReason)
    assert all(len(text) > 40 for text in REMEDY.values())


@pytest.mark.parametrize("name", NAMES)
def test_its_example_is_recognised_and_decoded(name: str) -> None:
    decoder = made(name)
    assert decoder.name == name
    assert decoder.matches(exchange(name))
    inference = decoder.decode(exchange(name))
    assert outcome(decoder.decode, exchange(name)) is None
    assert len(inference.rows) == (1 if name == "generate" else 2)  # it has no batches
    assert inference.outputs
    assert (inference.at, inference.version, inference.slot) == (
        1_700_000_000.0, "v1", "candidate",
    )  # fmt: skip
    assert (inference.weight, inference.uniform, inference.latency_s) == (4.0, True, 0.25)
    if name in ("open_inference", "json_path", "chat", "generate"):
        assert (inference.id, inference.aliases) == ("body-1", ("edge-1",))
    else:
        assert (inference.id, inference.aliases) == ("edge-1", ())


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_no_state(name: str) -> None:
    decoder = made(name)
    first = decoder.decode(exchange(name))
    outcome(decoder.decode, exchange(name, request_body=b"{"))
    second = decoder.decode(exchange(name))
    assert repr((first.rows, first.vectors)) == repr((second.rows, second.vectors))
    assert replace(first, rows=(), vectors={}) == replace(second, rows=(), vectors={})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "GET"}, DecodeReason.NOT_AN_INFERENCE),
        ({"status": 503}, DecodeReason.ERROR_STATUS),
        ({"status": 0, "outcome": "timeout"}, DecodeReason.INCOMPLETE_EXCHANGE),
        ({"request_truncated": True}, DecodeReason.BODY_TRUNCATED),
        ({"response_truncated": True}, DecodeReason.BODY_TRUNCATED),
        ({"request_headers": {"content-encoding": "br"}}, DecodeReason.UNSUPPORTED_ENCODING),
        ({"response_headers": {"content-encoding": "zstd"}}, DecodeReason.UNSUPPORTED_ENCODING),
        ({"request_body": b"{" + b" " * 5_000}, DecodeReason.BODY_TOO_LARGE),
        ({"response_body": b" " * 5_000}, DecodeReason.BODY_TOO_LARGE),
        ({"request_body": b"{'a': 1}"}, DecodeReason.NOT_JSON),
        ({"response_body": b"Internal Server Error"}, DecodeReason.NOT_JSON),
        ({"request_body": b"[" * 3_000}, DecodeReason.TOO_DEEP),
        ({"request_body": b"{}"}, DecodeReason.NOT_AN_INFERENCE),
        ({"response_body": b"{}"}, DecodeReason.NOT_AN_INFERENCE),
    ],
)  # fmt: skip
def test_it_names_what_is_wrong_with_any_protocol(
    name: str, change: dict[str, Any], expected: DecodeReason
) -> None:
    if name == "torchserve" and expected is DecodeReason.NOT_JSON:
        return  # it takes and gives plain text
    assert outcome(made(name).decode, exchange(name, **change)) is expected


# -- whatever the bytes are ----------------------------------------------------------------

TOKENS = st.sampled_from(
    b'{ } [ ] , : "instances" "inputs" "predictions" "data" "shape" "datatype" "FP64" "BYTES" '
    b'"dataframe_split" "dataframe_records" "columns" "outputs" "name" "rows" "names" "out" "id" '
    b'NaN -Infinity Infinity null true false 0 -1 1.5 1e999 99999999999999999999999 "\\ud800" '
    b'"examples" "result" "features" "values" "keys" "signature_name" {"b64":"aGk="} '
    b'"b64" "" \xff \x1f\x8b \n'.split(b" ")
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.lists(TOKENS, max_size=60).map(b"".join),
    st.text(alphabet='a,"\n\r0.5 é', max_size=80).map(str.encode),
)
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "content-encoding", "inference-header-content-length"]),
    st.sampled_from(
        [
            "text/csv",
            "text/csv;x",
            "application/json",
            "gzip",
            "deflate",
            "",
            "é",
            "0",
            "40",
            "application/jsonlines",
            "application/x-npy",
            "text/plain",
            "image/png",
        ]
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["FP64", "BYTES", "BOOL", "x" * 40]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=16,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, itself included."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path] + [place for key, child in inner for place in places(child, (*path, key))]


def mutated(data: st.DataObject, body: Any) -> Any:
    """The body with one to four of its places replaced, removed or doubled."""
    body = copy.deepcopy(body)
    for _ in range(data.draw(st.integers(1, 4))):
        inside = places(body)[1:]
        if not inside:
            return data.draw(VALUES)
        *above, last = data.draw(st.sampled_from(inside))
        holder = body
        for key in above:
            holder = holder[key]
        change = data.draw(st.sampled_from(["replace", "remove", "double", "nest"]))
        if change == "replace" or last not in (holder if isinstance(holder, dict) else range(99)):
            holder[last] = data.draw(VALUES)
        elif change == "remove":
            del holder[last]
        elif change == "nest":
            holder[last] = [holder[last]]
        elif isinstance(holder, list):
            holder.append(holder[last])
        else:
            holder[data.draw(st.text(max_size=3))] = holder[last]
    return body


def written(data: st.DataObject, body: Any) -> bytes:
    """As JSON, at times with one of the tokens that are none, at times cut short."""
    text = orjson.dumps(body)
    token = data.draw(st.sampled_from([b"null", b"NaN", b"-Infinity", b"1" * 400, b"[" * 2_000]))
    text = text.replace(b"null", token)
    return text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text


@pytest.mark.parametrize("name", NAMES)
@given(asked=BODIES, said=BODIES, asked_headers=HEADERS, said_headers=HEADERS)
def test_nothing_but_a_reason_escapes_over_any_bytes(
    name: str,
    asked: bytes,
    said: bytes,
    asked_headers: dict[str, str],
    said_headers: dict[str, str],
) -> None:
    strange = exchange(
        name,
        request_body=asked,
        response_body=said,
        request_headers=asked_headers,
        response_headers=said_headers,
    )
    made(name).matches(strange)
    outcome(made(name).decode, strange)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_nothing_but_a_reason_escapes_over_bodies_that_are_nearly_right(
    name: str, data: st.DataObject
) -> None:
    _, asked, said = EXAMPLES[name]
    which = data.draw(st.sampled_from(["asked", "said", "both"]))
    asked = asked if which == "said" else mutated(data, asked)
    said = said if which == "asked" else mutated(data, said)
    strange = exchange(name, request_body=written(data, asked), response_body=written(data, said))
    made(name).matches(strange)
    outcome(made(name).decode, strange)


@given(rows=st.lists(st.lists(SCALARS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_detection_lets_nothing_else_escape_either(rows: list[Any]) -> None:
    decoding = Decoding(decoders(AUTO, SETTINGS), agreeing=1)
    for name in NAMES:
        body = orjson.dumps({"instances": rows, "rows": rows})
        outcome(decoding.decode, exchange(name, request_body=body, path="/any"))
    assert decoding.decoded_total + decoding.dropped.total() == len(NAMES)
