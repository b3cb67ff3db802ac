"""MLServer's gRPC port behind a real edge, asked by its own client code: contents and raw."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecodeError, DecoderSettings
from agent.decoders.detection import Decoding
from tests.e2e.serving import environment, free_port, run_program, server
from tests.edge.house import House
from tests.edge.splice_house import Heard

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

INFER = "/inference.GRPCInferenceService/ModelInfer"
ROWS = [[5.5, 3.5, 1.5, 0.25], [6.0, 2.75, 4.5, 1.5], [7.25, 3.0, 5.75, 1.625]]
TRAIN = """
import sys, pathlib, joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
folder = pathlib.Path(sys.argv[1]) / "iris"
folder.mkdir()
joblib.dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)),
            folder / "model.joblib")
(folder / "model-settings.json").write_text(
    '{"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel", '
    '"parameters": {"uri": "./model.joblib", "version": "v1"}}')
"""
# What each call was answered, one JSON object in a line.
CLIENT = """
import json, sys, grpc, numpy as np
from mlserver.grpc import dataplane_pb2 as pb, dataplane_pb2_grpc as rpc
rows = np.array(json.loads(sys.argv[2]))
stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel("127.0.0.1:" + sys.argv[1]))
assert stub.ServerReady(pb.ServerReadyRequest()).ready
Tensor, Outputs = pb.ModelInferRequest.InferInputTensor, pb.ModelInferRequest
tensor = dict(name="x", shape=rows.shape)
ask = dict(model_name="iris", outputs=[Outputs.InferRequestedOutputTensor(name=name)
                                       for name in ("predict", "predict_proba")])
forms = {
    "contents": pb.ModelInferRequest(**ask, id="req-1", inputs=[Tensor(
        **tensor, datatype="FP64",
        contents=pb.InferTensorContents(fp64_contents=rows.ravel().tolist()))]),
    "raw": pb.ModelInferRequest(
        **ask, inputs=[Tensor(**tensor, datatype="FP32")],
        raw_input_contents=[rows.astype("<f4").tobytes()]),
}
for form, asked in forms.items():
    said = stub.ModelInfer(asked, metadata=[("x-request-id", form)])
    outputs = {}
    for n, output in enumerate(said.outputs):
        if said.raw_output_contents:
            dtype = {"INT64": "<i8", "FP64": "<f8", "FP32": "<f4"}[output.datatype]
            outputs[output.name] = np.frombuffer(said.raw_output_contents[n], dtype).tolist()
        else:
            contents = output.contents
            outputs[output.name] = list(contents.int64_contents or contents.fp64_contents)
    print(json.dumps({"form": form, "id": said.id, "outputs": outputs}))
try:
    stub.ModelInfer(pb.ModelInferRequest(model_name="absent"))
except grpc.RpcError as error:
    print(json.dumps({"form": "absent", "status": error.code().name}))
"""


def ask(bin_folder: Path, port: int, env: dict[str, str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [bin_folder / "python", "-c", CLIENT, str(port), json.dumps(ROWS)],
        capture_output=True, text=True, timeout=120, env=env, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_mlserver(tmp_path: Path, server_environment: Callable[[str], Path]) -> None:
    bin_folder = server_environment("mlserver")
    env = environment(tmp_path, bin_folder)
    await asyncio.to_thread(run_program, bin_folder, TRAIN, tmp_path, env)
    http_port, grpc_port = free_port(), free_port()
    settings = {
        "host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port,
        "metrics_port": free_port(), "parallel_workers": 0,
    }  # fmt: skip
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    argv = [str(bin_folder / "mlserver"), "start", "."]
    serving = server(argv, http_port, "/v2/health/ready", tmp_path, env)
    house = House()
    await asyncio.to_thread(serving.__enter__)
    try:
        await house.start(f"127.0.0.1:{grpc_port}", version="v1", sampling_rate=1.0)
        heard = Heard(house)
        contents, raw, absent = await asyncio.to_thread(ask, bin_folder, house.port, env)
        await house.until(lambda: sum(heard.totals.grpc.values()) == 4)
        await heard.close()
    finally:
        await house.close()
        await asyncio.to_thread(serving.__exit__, None, None, None)
    assert heard.statuses == {"OK": 3, absent["status"]: 1}
    decoding = Decoding(decoders(AUTO, DecoderSettings()), agreeing=2)
    inferences = []
    for exchange in heard.exchanges:
        try:
            inferences.append(decoding.decode(exchange))
        except DecodeError:
            continue
    assert decoding.detected == {INFER: "open_inference_grpc"}
    assert [one.id for one in inferences] == ["contents", "raw"]
    assert inferences[0].aliases[0] == contents["id"] == "req-1"
    for inference, seen in zip(inferences, (contents, raw), strict=True):
        np.testing.assert_array_equal(inference.rows, ROWS)
        for name, values in seen["outputs"].items():
            assert np.array(inference.outputs[name]).reshape(-1).tolist() == values
        assert set(inference.outputs) == {"predict", "predict_proba"}
