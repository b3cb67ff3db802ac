"""Bytes that real servers sent and answered, replayed.

The files of MLServer and MLflow are written by `tests/e2e/test_real_servers_decode.py`; those
of KServe 0.21.0 were taken in the same way from a model class of twenty lines.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecoderSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange

Post = Callable[..., Exchange]
CAPTURES = sorted((Path(__file__).resolve().parent.parent / "captures").glob("*_*.json"))
SPEAKS = {"mlserver": "open_inference", "mlflow": "mlflow", "kserve": "kserve_v1"}


def replayed(capture: dict[str, Any], post: Post) -> Exchange:
    return post(
        capture["path"],
        capture["request_body"].encode(),
        base64.b64decode(capture["response_body_base64"]),
        request_headers=capture["request_headers"],
        response_headers=capture["response_headers"],
        status=capture["status"],
    )


@pytest.mark.parametrize("file", CAPTURES, ids=lambda file: file.stem)
def test_what_a_real_server_said_is_what_is_decoded(file: Path, post: Post) -> None:
    capture = json.loads(file.read_text())
    decoding = Decoding(decoders(AUTO, DecoderSettings()), agreeing=1)
    inference = decoding.decode(replayed(capture, post))
    expected = capture["expected"]
    assert len(inference.rows) == expected["rows"]
    said = {name: list(entries) for name, entries in inference.outputs.items()}
    assert said == expected["outputs"]
    protocol = "open_inference" if "/v2/" in capture["path"] else SPEAKS[file.stem.split("_")[0]]
    assert decoding.detected == {capture["path"]: protocol}


def test_all_servers_are_among_the_captures() -> None:
    assert {file.stem.split("_")[0] for file in CAPTURES} == set(SPEAKS)
