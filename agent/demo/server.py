"""A real model server, small: Open Inference V2 over HTTP, one artifact, onnxruntime.

`python -m agent.demo.server --artifact DIR --port PORT`. It verifies the artifact before it
serves it, takes named columns as anybody's server would, and knows nothing of Remora.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from retrain import artifact
from retrain.preprocess import EncodeError, Kind, decode_output, encode_rows

ROWS_MAX = 10_000
BODY_BYTES_MAX = 16 * 1024 * 1024


class Model:
    """One verified artifact in an onnxruntime session of one thread."""

    def __init__(self, directory: Path, *, faults: Path | None = None) -> None:
        self.manifest = artifact.load(directory)
        self.preprocess = artifact.read_preprocess(directory)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(directory / artifact.MODEL), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        told = json.loads(faults.read_bytes()) if faults is not None and faults.exists() else {}
        fault = told.get(self.manifest.digest, {})
        self._delay_s = float(fault.get("delay_s", 0.0))
        self._failing = float(fault.get("failing", 0.0))
        self._calls = 0

    def infer(self, columns: dict[str, list[Any]]) -> tuple[list[Any], list[float] | None]:
        """Predictions and, for a classifier, scores. Raises `EncodeError` for columns of another
        model."""
        matrix = encode_rows(columns, self.preprocess)
        (output,) = self._session.run(None, {self._input: matrix})[:1]
        said = decode_output(np.asarray(output, dtype=np.float32), self.preprocess)
        scores = None if said.score is None else said.score.tolist()
        return said.prediction.tolist(), scores

    async def misbehave(self) -> bool:
        """What a machine may do to a release: it is slow, and some of its requests fail."""
        self._calls += 1
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        return self._failing > 0 and (self._calls * self._failing) % 1.0 < self._failing


class Server:
    """The endpoints of the protocol that clients and orchestrators use."""

    def __init__(self, name: str, model: Model) -> None:
        self._name = name
        self._model = model

    def application(self) -> Starlette:
        base = f"/v2/models/{self._name}"
        return Starlette(
            routes=[
                Route("/v2/health/live", self._ok),
                Route("/v2/health/ready", self._ok),
                Route(base, self._metadata),
                Route(f"{base}/ready", self._ok),
                Route(f"{base}/infer", self._infer, methods=["POST"]),
            ]
        )

    async def _ok(self, _: Request) -> Response:
        return _json({"live": True})

    async def _metadata(self, _: Request) -> Response:
        inputs = [
            {
                "name": feature.name,
                "datatype": "FP64" if feature.kind is Kind.NUMERIC else "BYTES",
                "shape": [-1, 1],
            }
            for feature in self._model.preprocess.features
        ]
        return _json({"name": self._name, "platform": "onnxruntime", "inputs": inputs})

    async def _infer(self, request: Request) -> Response:
        body = await request.body()
        if len(body) > BODY_BYTES_MAX:
            return _json({"error": "body too large"}, 413)
        try:
            asked = orjson.loads(body)
            columns = {tensor["name"]: _flat(tensor["data"]) for tensor in asked["inputs"]}
        except (ValueError, KeyError, TypeError) as error:
            return _json({"error": f"not an inference request: {error!r}"}, 400)
        if await self._model.misbehave():
            return _json({"error": "out of memory"}, 500)
        try:
            predictions, scores = self._model.infer(columns)
        except EncodeError as error:
            return _json({"error": str(error)}, 400)
        outputs: list[dict[str, Any]] = [
            {
                "name": "prediction",
                "shape": [len(predictions), 1],
                "datatype": "BYTES" if isinstance(predictions[0], str) else "FP64",
                "data": predictions,
            }
        ]
        if scores is not None:
            outputs.append(
                {
                    "name": "score",
                    "shape": [len(scores), 1],
                    "datatype": "FP64",
                    "data": [round(score, 6) for score in scores],
                }
            )
        answer: dict[str, Any] = {"model_name": self._name, "outputs": outputs}
        if isinstance(asked.get("id"), str):
            answer["id"] = asked["id"]
        return _json(answer)


def _flat(data: Any) -> list[Any]:
    """Row-major data, flat or nested as [n, 1]. Raises `TypeError` or `ValueError`."""
    if not isinstance(data, list) or not 0 < len(data) <= ROWS_MAX:
        raise ValueError(f"data must be 1 to {ROWS_MAX} values")
    return [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in data]


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


def main() -> int:
    """Serve until ended. Exit 2 when the artifact must not be served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="model")
    parser.add_argument(
        "--faults", type=Path, help="JSON: digest to {failing: share of requests, delay_s: seconds}"
    )
    args = parser.parse_args()
    started = time.monotonic()
    try:
        model = Model(args.artifact, faults=args.faults)
    except ValueError as error:
        print(f"{args.artifact}: {error}")
        return 2
    print(f"serving {model.manifest.digest} after {time.monotonic() - started:.1f} s", flush=True)
    uvicorn.run(
        Server(args.name, model).application(),
        host="127.0.0.1",
        port=args.port,
        log_level="warning",
        access_log=False,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
