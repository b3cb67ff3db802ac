"""Any JSON API: how paths are written, what they find, and what a wrong one says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.decoders.catalog import decoders
from agent.decoders.decoder import (
    DecodeError,
    DecodeReason,
    DecoderSettings,
    JsonPathSettings,
    SettingsError,
)
from agent.decoders.json_path import JsonPath
from agent.decoders.path import parse_path
from agent.exchange import Exchange
from agent.inference import Inference

Post = Callable[..., Exchange]
R = DecodeReason


def decode(exchange: Exchange, **paths: Any) -> Inference:
    return JsonPath(DecoderSettings(json_path=JsonPathSettings(**paths))).decode(exchange)


def cells(inference: Inference) -> list[list[Any]]:
    return [list(row) for row in inference.rows]


BODY = {"a": {"b": [{"c": 1}, {"c": 2, "key. x": 3}]}, "rows": [[{"x": 5}], [{"x": 6}]]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.b[0].c", 1),
        ("$.a.b[1].c", 2),
        ("a.b[*].c", [1, 2]),
        ('a.b[1]["key. x"]', 3),
        ("rows[*][*].x", [5, 6]),
        ("$", BODY),
        ('["a"].b[0].c', 1),
    ],
)
def test_a_path_finds_its_value(text: str, found: Any) -> None:
    assert parse_path(text).find(BODY) == found


@pytest.mark.parametrize(
    "text", ["", ".a", "a.", "a..b", "a[b]", "a[-1]", "a b", "a[*", "$a", "a[0]b", "a[0"]
)
def test_a_path_that_cannot_be_read_says_so_when_configured(text: str) -> None:
    with pytest.raises(SettingsError, match=r"json_path\.features: .*path"):
        decoders("json_path", DecoderSettings(json_path=JsonPathSettings(features=text)))


def test_settings_that_make_no_decoder_say_which_key() -> None:
    with pytest.raises(SettingsError, match=r"needs json_path\.features"):
        decoders("json_path", DecoderSettings())
    with pytest.raises(SettingsError, match="at least one"):
        decoders("json_path", DecoderSettings(json_path=JsonPathSettings(features={})))
    features = {"a": "rows[*].a", "b": "b"}
    with pytest.raises(SettingsError, match=r"either every path holds \[\*\] or none"):
        decoders("json_path", DecoderSettings(json_path=JsonPathSettings(features=features)))
    with pytest.raises(SettingsError, match="'kserve' is unknown; it is one of auto, "):
        decoders("kserve", DecoderSettings())


def test_seldon_with_names_and_ids(post: Post) -> None:
    inference = decode(
        post(
            "/api/v1.0/predictions",
            {"meta": {"puid": "p-1"}, "data": {"names": ["a", "b"], "ndarray": [[1, 2], [3, 4]]}},
            {"data": {"names": ["t:0", "t:1"], "ndarray": [[0.1, 0.9], [0.8, 0.2]]}},
        ),
        features="data.ndarray",
        feature_names="data.names",
        score="data.ndarray",
        request_id="meta.puid",
    )
    assert inference.names == ("a", "b")
    assert cells(inference) == [[1, 2], [3, 4]]
    assert inference.outputs == {"score": [[0.1, 0.9], [0.8, 0.2]]}
    assert (inference.id, inference.aliases) == ("p-1", ("minted-1",))


def test_a_flat_list_is_one_row_unless_each_entry_is_one(post: Post) -> None:
    exchange = post("/predict", {"input": [1, 2]}, {"output": 7, "all": [7, 8]})
    assert cells(decode(exchange, features="input", prediction="output")) == [[1, 2]]
    many = decode(exchange, features="input[*]", prediction="all")
    assert cells(many) == [[1], [2]]
    assert many.outputs == {"prediction": [7, 8]}


def test_a_body_that_is_the_rows(post: Post) -> None:
    exchange = post("/predict", [{"a": 1, "b": "x"}, {"a": 2}], {"predict": [0, 1]})
    inference = decode(exchange, features="$", prediction="predict")
    assert inference.names == ("a", "b")
    assert cells(inference) == [[1, "x"], [2, None]]


def test_features_from_places_of_their_own(post: Post) -> None:
    asked = {"who": {"age": 41}, "what": {"amount": 9.5, "kind": "new"}}
    features = {"age": "who.age", "kind": "what.kind", "gone": "who.gone"}
    inference = decode(
        post("/score", asked, {"p": 0.3}), features=features, score="p", response_id="id"
    )
    assert inference.names == ("age", "kind", "gone")
    assert cells(inference)[0][:2] == [41, "new"]
    assert np.isnan(cells(inference)[0][2])
    assert inference.outputs == {"score": [0.3]}


def test_features_of_each_row_from_places_of_their_own(post: Post) -> None:
    asked = {"rows": [{"a": {"x": 1}, "b": 2}, {"a": {"x": 3}, "b": 4}]}
    features = {"x": "rows[*].a.x", "b": "rows[*].b"}
    inference = decode(post("/s", asked, [[0], [1]]), features=features, prediction="$[*][0]")
    assert np.asarray(inference.rows).tolist() == [[1, 2], [3, 4]]
    assert inference.outputs == {"prediction": [0, 1]}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({"features": "gone"}, R.NOT_AN_INFERENCE),
        ({"features": {"x": "gone"}}, R.NOT_AN_INFERENCE),
        ({"features": "rows[0].deep"}, R.NOT_AN_INFERENCE),
        ({"features": "text[*]"}, R.NOT_AN_INFERENCE),
        ({"features": "text"}, R.WRONG_TYPE),
        ({"features": "rows", "feature_names": "text"}, R.WRONG_TYPE),
        ({"features": "rows", "feature_names": "rows"}, R.WRONG_TYPE),
        ({"features": "empty"}, R.EMPTY_BATCH),
        ({"features": "rows", "prediction": "gone"}, R.NOT_AN_INFERENCE),
        ({"features": "rows", "prediction": "three"}, R.ROWS_MISMATCH),
    ],
)
def test_what_is_wrong_is_named(post: Post, paths: Any, expected: DecodeReason) -> None:
    exchange = post("/p", {"rows": [[1], [2]], "text": "x", "empty": []}, {"three": [1, 2, 3]})
    with pytest.raises(DecodeError) as caught:
        decode(exchange, **paths)
    assert caught.value.reason is expected


def test_a_route_keeps_other_requests_away(post: Post) -> None:
    decoder = JsonPath(DecoderSettings(json_path=JsonPathSettings(features="$", route="/p")))
    assert decoder.matches(post("/p", [], []))
    assert not decoder.matches(post("/q", [], []))
