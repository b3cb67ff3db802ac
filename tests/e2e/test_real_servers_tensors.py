"""KServe, LitServe and a server written by hand, behind a real edge, in every form they speak."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.decoders.body import BINARY_TENSORS_HEADER
from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecoderSettings, JsonPathSettings
from agent.decoders.detection import Decoding
from tests.e2e.serving import Front, environment, free_port, keep, raw_tensor, served, tensor

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

JSON = {"content-type": "application/json"}
ROWS = np.array([[5.5, 3.5, 1.5, 0.25], [6.0, 2.75, 4.5, 1.5], [7.25, 3.0, 5.75, 1.625]])
WORDS = ["north", "Grüße", ""]

KSERVE = """
import argparse
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server

class Sums(Model):
    def __init__(self):
        super().__init__("sums")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            return {"predictions": [sum(row) for row in payload["instances"]]}
        rows = payload.inputs[0].as_numpy()
        said = {"sum": rows.sum(axis=1, dtype=np.float32), "rank": np.argsort(rows, axis=1),
                "even": rows.sum(axis=1) % 2 == 0,
                "name": np.array(["a", "b\\u00e9", ""], dtype=np.object_)}
        outputs = []
        for name, values in said.items():
            types = {"f": "FP32", "i": "INT64", "b": "BOOL", "O": "BYTES"}
            output = InferOutput(name, list(values.shape), types[values.dtype.kind])
            binary = payload.use_binary_outputs and name != "rank"
            output.set_data_from_numpy(values, binary_data=binary)
            outputs.append(output)
        return InferResponse(payload.id, "sums", outputs,
                             use_binary_outputs=payload.use_binary_outputs)

parser = argparse.ArgumentParser(parents=[model_server.parser])
args, _ = parser.parse_known_args()
ModelServer(http_port=args.http_port, grpc_port=args.grpc_port, workers=1).start([Sums()])
"""

LITSERVE = """
import sys
import litserve

class Sums(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["input"]

    def predict(self, rows):
        return [sum(row) for row in rows]

    def encode_response(self, output):
        return {"output": output}

if __name__ == "__main__":
    litserve.LitServer(Sums(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""

BY_HAND = """
import sys
import uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/health")
def health():
    return "ok"

@app.post("/score")
def score(asked: dict):
    risk = 1 / (1 + asked["customer"]["age"])
    return {"request": asked["request"], "result": {"risk": risk, "label": "good"}}

@app.post("/invocations")
def invocations(asked: dict):
    return {"predictions": [{"score": row["features"][0], "predicted_label": 1}
                            for row in asked["instances"]]}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
"""


def binary(message: dict[str, Any], *tensors: bytes) -> tuple[dict[str, str], bytes]:
    head = json.dumps(message).encode()
    headers = {"content-type": "application/octet-stream", BINARY_TENSORS_HEADER: str(len(head))}
    return headers, b"".join([head, *tensors])


def words(values: list[str]) -> bytes:
    coded = [value.encode() for value in values]
    return b"".join(len(value).to_bytes(4, "little") + value for value in coded)


def program(home: Path, text: str, *arguments: str) -> list[str]:
    home.mkdir(exist_ok=True)
    (home / "app.py").write_text(text)
    return [str(home / "app.py"), *arguments]


async def test_kserve(tmp_path: Path, server_environment: Callable[[str], Path]) -> None:
    bin_folder = server_environment("kserve")
    port, grpc = free_port(), free_port()
    argv = program(tmp_path, KSERVE, f"--http_port={port}", f"--grpc_port={grpc}")
    env = environment(tmp_path, bin_folder)
    decoding = Decoding(decoders(AUTO, DecoderSettings()), agreeing=3)
    async with served(
        [str(bin_folder / "python"), *argv], port, "/v2/health/ready", tmp_path, env
    ) as edge:
        await kserve_v1(edge, decoding)
        await kserve_v2(edge, decoding)
    assert decoding.detected == {
        "/v1/models/sums:predict": "kserve_v1", "/v2/models/sums/infer": "open_inference",
    }  # fmt: skip


async def kserve_v1(edge: Front, decoding: Decoding) -> None:
    for _ in range(3):
        body = json.dumps({"instances": ROWS.tolist()}).encode()
        answer, exchange = await edge.ask("/v1/models/sums:predict", body, JSON)
        inference = decoding.decode(exchange)
        np.testing.assert_array_equal(inference.rows, ROWS)
        assert inference.outputs == {"predictions": answer.json()["predictions"]}
        assert inference.outputs == {"predictions": ROWS.sum(axis=1).tolist()}


async def kserve_v2(edge: Front, decoding: Decoding) -> None:
    flat = tensor("x", [3, 4], "FP64", ROWS.ravel().tolist())
    whole = ROWS.astype("<f4").tobytes()
    town = words(WORDS)
    forms: dict[str, tuple[dict[str, str], bytes]] = {
        "json": (JSON, json.dumps({"id": "json-1", "inputs": [flat]}).encode()),
        "binary_in": binary(
            {"id": "in-1", "inputs": [raw_tensor("x", [3, 4], "FP32", whole)]}, whole
        ),
        "binary_out": (JSON, json.dumps(
            {"id": "out-1", "inputs": [flat], "parameters": {"binary_data_output": True}}
        ).encode()),
        "binary_both": binary(
            {
                "id": "both-1",
                "parameters": {"binary_data_output": True},
                "inputs": [
                    raw_tensor("x", [3, 4], "FP32", whole),
                    tensor("age", [3, 1], "INT64", [41, 67, 23]),
                    raw_tensor("town", [3], "BYTES", town),
                    raw_tensor("own", [3], "BOOL", b"\x01\x00\x01"),
                    raw_tensor("half", [3, 1], "FP16", ROWS[:, :1].astype("<f2").tobytes()),
                ],
            },
            whole, town, b"\x01\x00\x01", ROWS[:, :1].astype("<f2").tobytes(),
        ),
    }  # fmt: skip
    for form, (headers, body) in forms.items():
        answer, exchange = await edge.ask("/v2/models/sums/infer", body, headers)
        assert answer.status == 200, answer.body
        inference = decoding.decode(exchange)
        assert inference.id == answer.json()["id"]
        if form == "binary_both":
            assert inference.names == ("x_0", "x_1", "x_2", "x_3", "age", "town", "own", "half")
            first, *_ = inference.rows
            assert list(first) == [5.5, 3.5, 1.5, 0.25, 41.0, "north", True, 5.5]
            assert [row[5] for row in inference.rows] == WORDS
        else:
            np.testing.assert_array_equal(inference.rows, ROWS)
        is_binary = form in ("binary_out", "binary_both")
        assert (BINARY_TENSORS_HEADER in answer.headers) == is_binary
        assert {name: list(entries) for name, entries in inference.outputs.items()} == {
            "sum": [10.75, 14.75, 17.625],
            "rank": np.argsort(ROWS, axis=1).tolist(),
            "even": [False, False, False],
            "name": ["a", "bé", ""],
        }
        keep("KServe 0.21.0", f"v2_{form}", exchange, rows=3, outputs=dict(inference.outputs))


async def test_litserve_and_a_server_by_hand(
    tmp_path: Path, server_environment: Callable[[str], Path]
) -> None:
    bin_folder = server_environment("litserve")
    await asyncio.gather(
        litserve(bin_folder, tmp_path / "lit"), by_hand(bin_folder, tmp_path / "h")
    )


async def litserve(bin_folder: Path, home: Path) -> None:
    port = free_port()
    argv = [str(bin_folder / "python"), *program(home, LITSERVE, str(port))]
    paths = JsonPathSettings(features="input", prediction="output")
    decoding = Decoding(decoders("json_path", DecoderSettings(json_path=paths)))
    async with served(argv, port, "/health", home, environment(home, bin_folder)) as edge:
        body = json.dumps({"input": ROWS.tolist()}).encode()
        answer, exchange = await edge.ask("/predict", body, JSON)
        inference = decoding.decode(exchange)
        np.testing.assert_array_equal(inference.rows, ROWS)
        assert inference.outputs == {"prediction": answer.json()["output"]}
        assert inference.outputs == {"prediction": ROWS.sum(axis=1).tolist()}
        paths_kept = {"features": "input", "prediction": "output"}
        keep("LitServe 0.2.19", "json_path", exchange, rows=3, json_path=paths_kept,
             outputs=dict(inference.outputs))  # fmt: skip


async def by_hand(bin_folder: Path, home: Path) -> None:
    port = free_port()
    argv = [str(bin_folder / "python"), *program(home, BY_HAND, str(port))]
    paths = JsonPathSettings(
        features="customer", prediction="result.label", score="result.risk", request_id="request"
    )
    decoding = Decoding(decoders(AUTO, DecoderSettings(json_path=paths)), agreeing=1)
    async with served(argv, port, "/health", home, environment(home, bin_folder)) as edge:
        asked = {"request": "r-17", "customer": {"age": 24, "job": "clerk", "own": False}}
        answer, exchange = await edge.ask("/score", json.dumps(asked).encode(), JSON)
        inference = decoding.decode(exchange)
        assert inference.names == ("age", "job", "own")
        assert [list(row) for row in inference.rows] == [[24, "clerk", False]]
        assert inference.outputs == {"prediction": ["good"], "score": [0.04]}
        assert inference.id == answer.json()["request"] == "r-17"
        wrapped = {"instances": [{"features": row} for row in ROWS.tolist()]}
        answer, exchange = await edge.ask("/invocations", json.dumps(wrapped).encode(), JSON)
        inference = decoding.decode(exchange)
        np.testing.assert_array_equal(inference.rows, ROWS)
        assert list(inference.outputs["score"]) == ROWS[:, 0].tolist()
    assert decoding.detected == {"/score": "json_path", "/invocations": "sagemaker"}
