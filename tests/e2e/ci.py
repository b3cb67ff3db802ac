"""A CI stand-in: takes Remora's webhooks as a receiver would, and calls back with what it is given.

It trains nothing: artifacts are prepared, tiny and real, so that the gates have a model to measure.
"""

import csv
import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from agent.demo.ci import Serving
from retrain import artifact, bundle
from retrain.artifact import Manifest, Signature, TensorSpec
from retrain.preprocess import Feature, Kind, Preprocess, Task
from retrain.webhooks.sign import generate_secret, read_secret, sign, verify
from tests.e2e.house import free_ports

NAMES = ("f0", "f1", "f2")
RECIPE = """\
line: m
task: classification
target: outcome
features: [{name: f0, kind: numeric}, {name: f1, kind: numeric}, {name: f2, kind: numeric}]
data: {paths: [train.csv], holdout_share: 0.5, tick_rows: 100}
gates: {rows_min: 100, holdout_margin: 0.1, latency_ratio_max: 50}
"""


def make_artifact(directory: Path, version: str, *, slope: float = 8.0) -> Manifest:
    """A logistic model of the first feature, sealed. Another version has another digest."""
    directory.mkdir(parents=True)
    weights = np.zeros((3, 2), dtype=np.float32)
    weights[0] = (-slope, slope)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["x"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "x"], ["filled"]),
            # The gates ask with the largest numbers there are, and want finite answers.
            helper.make_node("Clip", ["filled", "low", "high"], ["bounded"]),
            helper.make_node("MatMul", ["bounded", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["y"], axis=1),
        ],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])],
        [
            numpy_helper.from_array(weights, "w"),
            *(
                numpy_helper.from_array(np.array(value, dtype=np.float32), name)
                for name, value in (("zero", 0.0), ("low", -100.0), ("high", 100.0))
            ),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, directory / artifact.MODEL)
    preprocess = Preprocess(
        task=Task.CLASSIFICATION,
        target="outcome",
        classes=("0", "1"),
        features=tuple(Feature(name=name, kind=Kind.NUMERIC) for name in NAMES),
    )
    (directory / artifact.PREPROCESS).write_text(json.dumps(preprocess.as_json()))
    manifest = Manifest(
        line="m",
        version=version,
        parent=None,
        created="2026-11-22T21:01:00Z",
        opset=17,
        ir=8,
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype="float32", shape=("b", 3)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=("b", 2)),),
        ),
        files=(),
    )
    return artifact.seal(directory, manifest)


def write_recipe(directory: Path) -> Path:
    """The recipe and its training rows: the outcome is the sign of the first feature."""
    rng = random.Random(5)
    with (directory / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*NAMES, "outcome"])
        for _ in range(800):
            first = rng.uniform(-1, 1)
            writer.writerow([first, rng.uniform(0, 9), rng.randrange(3), int(first > 0)])
    path = directory / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


class Ci:
    """Receives at /hook, serves archives below /artifacts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secret = generate_secret()
        self.port = free_ports(1)[0]
        self.events: list[dict[str, Any]] = []
        self.refused = 0
        self._serving = Serving(
            Starlette(
                routes=[
                    Route("/hook", self._hook, methods=["POST"]),
                    Route("/artifacts/{name}", self._artifact),
                ]
            ),
            self.port,
        )

    async def start(self) -> None:
        await self._serving.start()

    async def stop(self) -> None:
        await self._serving.stop()

    async def _hook(self, request: Request) -> Response:
        body = await request.body()
        verify([read_secret(self.secret)], dict(request.headers), body, now=time.time())
        self.events.append(json.loads(body))
        return Response(status_code=204)

    async def _artifact(self, request: Request) -> Response:
        return FileResponse(self.directory / Path(request.path_params["name"]).name)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of the webhooks of a type, in the order of their coming."""
        return [event["data"] for event in self.events if event["type"] == kind]

    def pack(self, directory: Path) -> dict[str, Any]:
        """An archive of an artifact, as a callback names it."""
        archive = self.directory / f"{directory.name}.tar.gz"
        if not archive.exists():
            bundle.pack(directory, archive)
        data = archive.read_bytes()
        return {
            "url": f"http://127.0.0.1:{self.port}/artifacts/{archive.name}",
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }


def signed(
    asked: dict[str, Any], report: dict[str, Any], *, id: str, at: float | None = None
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a callback for the run that was asked for."""
    body = json.dumps(report).encode()
    now = time.time() if at is None else at
    headers = sign([read_secret(asked["callback_secret"])], webhook_id=id, at=now, body=body)
    return {**headers, "content-type": "application/json"}, body


async def send(url: str, headers: dict[str, str], body: bytes) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
        return await client.post(url, headers=headers, content=body)
