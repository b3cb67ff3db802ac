"""What is redacted leaves by no door: not by rows, outputs, ids, names, texts nor by errors."""

import gzip
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import (
    DecodeError,
    DecodeLimits,
    DecodeReason,
    DecoderSettings,
    JsonPathSettings,
    RedactionRule,
    SettingsError,
)
from agent.decoders.detection import Decoding
from agent.decoders.patterns import MARKER
from agent.decoders.redaction import Redaction
from agent.exchange import Exchange
from agent.inference import Inference
from tests.decoders.conftest import Post
from tests.decoders.language import EVENTS, LINES, asked, chunk, events

V1 = "/v1/models/m:predict"
SECRET = "078-05-1120"
SSN = r"\b\d{3}-\d{2}-\d{4}\b"


def rule(**given: str) -> RedactionRule:
    return RedactionRule(**given)


def settings(*rules: RedactionRule, **other: Any) -> DecoderSettings:
    return DecoderSettings(redact=rules, **other)


def decoded(exchange: Exchange, *rules: RedactionRule, **other: Any) -> Inference:
    made = settings(*rules, **other)
    return Decoding(decoders(AUTO, made), redaction=Redaction(made)).decode(exchange)


def cells(inference: Inference) -> list[dict[str, Any]]:
    assert inference.names is not None
    return [dict(zip(inference.names, row, strict=True)) for row in inference.rows]


def test_a_path_hides_a_member_of_every_row(post: Post) -> None:
    question = {"instances": [{"age": 5, "ssn": SECRET}, {"age": 6, "ssn": "x"}, {"age": 7}]}
    exchange = post(V1, question, {"predictions": [0, 1, 0]})
    inference = decoded(exchange, rule(path="$.instances[*].ssn"))
    assert [row["ssn"] for row in cells(inference)] == [MARKER, MARKER, None]
    assert [row["age"] for row in cells(inference)] == [5, 6, 7]


def test_numbers_become_missing_and_lists_keep_their_length(post: Post) -> None:
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
    exchange = post(
        "/v2/models/m/infer",
        {"inputs": [tensor]},
        {"outputs": [{"name": "y", "shape": [2], "datatype": "INT64", "data": [0, 1]}]},
    )
    inference = decoded(exchange, rule(path="inputs[0].data"))
    assert np.isnan(np.array(inference.rows, dtype=float)).all()
    assert inference.outputs == {"y": [0, 1]}


def test_an_object_at_a_path_goes_with_its_names(post: Post) -> None:
    question = {"instances": [{"age": 5, "user": {"alice@example.org": 1}}]}
    inference = decoded(post(V1, question, {"predictions": [0]}), rule(path="instances[*].user"))
    assert cells(inference) == [{"age": 5, "user": MARKER}]


def test_an_id_is_never_taken_from_a_redacted_place(post: Post) -> None:
    exchange = post(
        "/v2/models/m/infer",
        {"id": "alice", "inputs": [
            {"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]},
        {"id": "078-05-1120", "outputs": [
            {"name": "y", "shape": [1], "datatype": "FP32", "data": [1]}]},
    )  # fmt: skip
    assert decoded(exchange).id == "alice"
    inference = decoded(exchange, rule(path="id"))
    assert (inference.id, inference.aliases) == ("minted-1", ())
    inference = decoded(exchange, rule(pattern=SSN))
    assert (inference.id, inference.aliases) == ("alice", ("minted-1",))


def test_a_pattern_hides_what_it_matches_in_values_names_and_numbers(post: Post) -> None:
    question = {
        "instances": [
            {"note": f"ssn {SECRET}, twice {SECRET}", f"of {SECRET}": 1, "card": 4111111111111111}
        ]
    }
    said = {"predictions": [f"owner {SECRET}"]}
    inference = decoded(post(V1, question, said), rule(pattern=SSN), rule(pattern=r"4\d{15}"))
    assert cells(inference) == [
        {"note": f"ssn {MARKER}, twice {MARKER}", f"of {MARKER}": 1, "card": None}
    ]
    assert inference.outputs == {"predictions": [f"owner {MARKER}"]}


def test_a_feature_is_hidden_by_its_name_whatever_the_form(post: Post) -> None:
    csv = f"age,ssn\n5,{SECRET}\n6,x\n".encode()
    exchange = post(
        "/invocations", csv,
        {"predictions": [{"label": 1, "ssn": SECRET}, {"label": 0, "ssn": ""}]},
        request_headers={"content-type": "text/csv"},
    )  # fmt: skip
    inference = decoded(exchange, rule(feature="ssn"))
    assert cells(inference) == [{"age": 5.0}, {"age": 6.0}]
    assert inference.outputs == {"label": (1, 0)}
    with pytest.raises(DecodeError) as error:
        decoded(exchange, rule(feature="ssn"), rule(feature="age"))
    assert error.value.reason is DecodeReason.REDACTED


def test_a_pattern_works_in_csv_and_in_packed_bodies(post: Post) -> None:
    csv = gzip.compress(f'age,note\n5,"call {SECRET}"\n'.encode())
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}
    exchange = post("/invocations", csv, {"predictions": [1]}, request_headers=headers)
    assert cells(decoded(exchange, rule(pattern=SSN))) == [{"age": 5, "note": f"call {MARKER}"}]


def test_json_before_raw_tensors_is_redacted_and_its_length_told_anew(post: Post) -> None:
    head = orjson.dumps(
        {
            "id": f"id-{SECRET}",
            "inputs": [
                {"name": "t", "shape": [1], "datatype": "BYTES",
                 "parameters": {"binary_data_size": 15}},
            ],
        }
    )  # fmt: skip
    body = head + (11).to_bytes(4, "little") + SECRET.encode()
    exchange = post(
        "/v2/models/m/infer", body,
        {"outputs": [{"name": "y", "shape": [1], "datatype": "INT32", "data": [1]}]},
        request_headers={"inference-header-content-length": str(len(head))},
    )  # fmt: skip
    inference = decoded(exchange, rule(pattern=SSN))
    assert list(inference.rows) == [[MARKER]]
    assert inference.id == "minted-1"


def test_chats_are_redacted_in_every_event_and_once_more_put_together(post: Post) -> None:
    body = events(
        chunk({"content": f"It is {SECRET}. Or "}),
        chunk({"content": "078-"}),
        chunk({"content": "05-1120"}),
        chunk({"content": "?"}, finish="stop"),
    )
    question = asked(user="alice", messages=[{"role": "user", "content": f"I am {SECRET}"}])
    exchange = post("/v1/chat/completions", question, body, response_headers=EVENTS)
    inference = decoded(exchange, rule(pattern=SSN), text_kept_characters=99)
    assert inference.texts == {
        "prompt": [f"I am {MARKER}"],
        "reply": [f"It is {MARKER}. Or {MARKER}?"],
    }
    hidden = decoded(exchange, rule(path="messages[*].content"), text_kept_characters=99)
    assert hidden.texts["prompt"] == [MARKER]
    assert hidden.generation == inference.generation
    silent = decoded(exchange, rule(path="choices[*].delta.content"), text_kept_characters=99)
    assert "078" not in silent.texts["reply"][0]


@pytest.mark.parametrize("kept", range(1, 40))
def test_where_a_text_is_cut_it_does_not_show_half_of_a_secret(post: Post, kept: int) -> None:
    said = f"Call 078-05-1120 or {SECRET}."
    body = events(*(chunk({"content": letter}) for letter in said), chunk({}, finish="stop"))
    exchange = post("/v1/chat/completions", asked(), body, response_headers=EVENTS)
    inference = decoded(exchange, rule(pattern=SSN), text_kept_characters=kept)
    assert inference.texts["reply"] == [f"Call {MARKER} or {MARKER}."[:kept]]


def test_lines_of_a_stream_are_redacted_each(post: Post) -> None:
    body = b"".join(
        orjson.dumps({"response": text, "done": text == ""}) + b"\n" for text in (SECRET, "ok", "")
    )
    exchange = post("/api/generate", {"prompt": "?"}, body, response_headers=LINES)
    inference = decoded(exchange, rule(pattern=SSN), text_kept_characters=99)
    assert inference.texts["reply"] == [f"{MARKER}ok"]


def test_rows_that_came_decoded_pass_the_same_rules(post: Post) -> None:
    question = {"instances": [{"age": 5, "ssn": SECRET, "note": SECRET}]}
    pushed = decoded(post(V1, question, {"predictions": [SECRET]}))
    made = settings(rule(feature="ssn"), rule(pattern=SSN))
    decoding = Decoding(decoders(AUTO, made), redaction=Redaction(made))
    assert SECRET in repr(pushed)
    assert SECRET not in repr(decoding.taken(pushed))
    only = Decoding(
        (), redaction=Redaction(settings(*(rule(feature=n) for n in ("age", "ssn", "note"))))
    )
    with pytest.raises(DecodeError):
        only.taken(pushed)
    assert only.dropped == {DecodeReason.REDACTED: 1}


def test_not_a_number_stays_what_it_was(post: Post) -> None:
    body = b'{"instances": [[NaN, Infinity, null, 1], [1, 2, 3, 4]], "user": "x"}'
    inference = decoded(post(V1, body, {"predictions": [0, 1]}), rule(path="user"))
    rows = np.array(inference.rows, dtype=float)
    assert np.isnan(rows[0, [0, 2]]).all()
    assert np.isinf(rows[0, 1])


def test_the_path_of_a_request_is_shown_without_what_matches(post: Post) -> None:
    exchange = post(f"/users/{SECRET}/predict", {"instances": [[1]]}, {"predictions": [0]})
    made = settings(rule(pattern=SSN))
    decoding = Decoding(decoders(AUTO, made), redaction=Redaction(made), agreeing=1)
    decoding.decode(exchange)
    assert list(decoding.detected) == [f"/users/{MARKER}/predict"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (rule(path="a..b"), "redact.0.path: path 'a..b'"),
        (rule(pattern="(a+)+b"), "redact.0.pattern repeats a group"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused_when_it_is_made(
    bad: RedactionRule, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        Redaction(settings(bad))


def test_a_decoder_never_sees_what_a_pattern_matches(post: Post) -> None:
    question = {SECRET: {f"of {SECRET}": [[f"<{SECRET}>"]]}}
    seen = Redaction(settings(rule(pattern=SSN))).exchange(post("/any", question, question))
    wanted = {MARKER: {f"of {MARKER}": [[f"<{MARKER}>"]]}}
    assert orjson.loads(seen.request_body) == orjson.loads(seen.response_body) == wanted


def test_without_rules_nothing_is_touched(post: Post) -> None:
    exchange = post(V1, b'{"instances":  [[1]]}', {"predictions": [0]})
    redaction = Redaction(settings())
    assert redaction.exchange(exchange) is exchange
    inference = decoded(exchange)
    assert redaction.inference(inference) is inference


LIMITS = DecodeLimits(body_bytes_max=4_000, columns_max=64)
EVERYTHING = settings(
    rule(pattern=SSN), rule(feature="ssn"), rule(path="$.user"), rule(path="messages[*].name"),
    limits=LIMITS, text_kept_characters=50, json_path=JsonPathSettings(features="rows"),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False),
    st.sampled_from([SECRET, f"a {SECRET} b", "x", "stop", ""]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["instances", "predictions", "inputs", "outputs", "messages", "content", "choices", "text",
     "prompt", "name", "shape", "datatype", "data", "rows", "id", "user", "input", "error",
     "delta", "message", "response", "done", "tool_calls", "function", "index", SECRET]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=14,
)
BODIES = st.one_of(
    VALUES.map(orjson.dumps),
    st.lists(VALUES, max_size=4).map(lambda values: events(*values)),
    st.lists(VALUES, max_size=4).map(lambda v: b"".join(orjson.dumps(x) + b"\n" for x in v)),
    st.just(f"a,b\n1,{SECRET}\n".encode()),
    st.just(f"event: {SECRET}\ndata: {{\ndata: {SECRET}}}\n\n".encode()),
    st.binary(max_size=40),
)
PATHS = st.sampled_from(
    [V1, "/v2/models/m/infer", "/invocations", "/v1/chat/completions", "/v1/completions",
     "/api/chat", "/api/generate", "/v1/embeddings", "/predictions/m", "/score", f"/{SECRET}"]
)  # fmt: skip


@pytest.mark.parametrize("name", [AUTO, "chat", "generate", "embeddings", "mlflow", "json_path"])
@given(path=PATHS, question=BODIES, said=BODIES, data=st.data())
def test_no_secret_leaves_whatever_the_decoder_and_the_bodies(
    post: Post, name: str, path: str, question: bytes, said: bytes, data: st.DataObject
) -> None:
    kinds = st.sampled_from(["application/json", "text/csv", "text/event-stream", ""])
    exchange = post(
        path, question, said,
        request_headers={"content-type": data.draw(kinds)},
        response_headers={"content-type": data.draw(kinds)},
        response_truncated=data.draw(st.booleans()),
        outcome=data.draw(st.sampled_from(["ok", "client_disconnect"])),
    )  # fmt: skip
    decoding = Decoding(decoders(name, EVERYTHING), redaction=Redaction(EVERYTHING), agreeing=1)
    try:
        inference = decoding.decode(exchange)
        shown = repr(inference)
        assert len(inference.rows) >= 1
        assert "ssn" not in (inference.names or ())
    except DecodeError as error:
        shown = f"{error} {error.detail} {error.generation}"
    assert SECRET not in shown + repr(decoding.detected)
