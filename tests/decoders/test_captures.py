"""Bytes that real servers sent and answered, replayed; each read by its own decoder alone.

Those of MLServer, MLflow, KServe and LitServe are written by `tests/e2e/test_real_servers_*.py`,
those of Triton 2.51, TorchServe 0.12 and BentoML were taken in the same way. TensorFlow
Serving and SageMaker do not run where these tests run: their files are written by hand.
"""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.decoders.catalog import AUTO, CATALOG, decoders
from agent.decoders.decoder import DecodeError, DecoderSettings, JsonPathSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange

Post = Callable[..., Exchange]
CAPTURES = sorted((Path(__file__).resolve().parent.parent / "captures").glob("*_*.json"))
SPEAKS = {
    "mlserver": "open_inference",
    "triton": "open_inference",
    "kserve": "kserve_v1",
    "mlflow": "mlflow",
    "torchserve": "torchserve",
    "tensorflow": "tf_serving",
    "sagemaker": "sagemaker",
    "litserve": "json_path",
    "bentoml": "json_path",
}
# What another decoder reads as well, and to the same effect: the forms that protocols share.
SHARED = {
    ("kserve_v1", "tf_serving"): "the row form",
    ("tf_serving", "kserve_v1"): "the row form",
    ("mlflow", "sagemaker"): "CSV with a header, and instances",
}


def replayed(capture: dict[str, Any], post: Post) -> Exchange:
    asked = capture.get("request_body", "").encode()
    return post(
        capture["path"],
        asked or base64.b64decode(capture["request_body_base64"]),
        base64.b64decode(capture["response_body_base64"]),
        request_headers=capture["request_headers"],
        response_headers=capture["response_headers"],
        status=capture["status"],
    )


def settings(capture: dict[str, Any]) -> DecoderSettings:
    paths = capture["expected"].get("json_path")
    return DecoderSettings(json_path=JsonPathSettings(**paths) if paths else None)


def protocol(file: Path, capture: dict[str, Any]) -> str:
    return "open_inference" if "/v2/" in capture["path"] else SPEAKS[file.stem.split("_")[0]]


def plain(value: Any) -> Any:
    """Outputs as the file has them: lists, and NaN by its name."""
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("file", CAPTURES, ids=lambda file: file.stem)
def test_what_a_real_server_said_is_what_is_decoded(file: Path, post: Post) -> None:
    capture = json.loads(file.read_text())
    decoding = Decoding(decoders(AUTO, settings(capture)), agreeing=1)
    inference = decoding.decode(replayed(capture, post))
    expected = capture["expected"]
    assert len(inference.rows) == expected["rows"]
    assert {name: plain(said) for name, said in inference.outputs.items()} == expected["outputs"]
    assert decoding.detected == {capture["path"]: protocol(file, capture)}


@pytest.mark.parametrize("file", CAPTURES, ids=lambda file: file.stem)
def test_no_other_decoder_claims_it_to_another_effect(file: Path, post: Post) -> None:
    """Whatever order they are tried in: a route never depends on who else is in the catalog."""
    capture = json.loads(file.read_text())
    exchange, own = replayed(capture, post), protocol(file, capture)
    claimed: dict[str, Any] = {}
    for name in CATALOG:
        if name == "json_path" and own != "json_path":
            continue
        decoder = decoders(name, settings(capture))[0]
        if decoder.matches(exchange):
            try:
                claimed[name] = decoder.decode(exchange)
            except DecodeError:
                continue
    assert own in claimed
    for other, inference in claimed.items():
        if other != own:
            assert (own, other) in SHARED, f"{other} claims it as well"
            assert inference.names == claimed[own].names
            assert plain(list(map(list, inference.rows))) == plain(
                list(map(list, claimed[own].rows))
            )
            assert plain(list(inference.outputs.values())) == plain(
                list(claimed[own].outputs.values())
            )


def test_all_servers_are_among_the_captures() -> None:
    assert {file.stem.split("_")[0] for file in CAPTURES} == set(SPEAKS)
