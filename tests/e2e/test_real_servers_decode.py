"""MLServer and MLflow, started for real: what their clients saw is what is decoded.

With `REMORA_WRITE_CAPTURES=1` the exchanges are written to `tests/captures`, from where the
quick tests replay them.
"""

import base64
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecoderSettings
from agent.decoders.detection import Decoding
from agent.exchange import Exchange

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
READY_S = 120.0
KEPT_HEADERS = ("content-type", "content-encoding")
NAMES = ["sepal length", "sepal width", "petal length", "petal width"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [7.2, 3.0, 5.8, 1.6]]

TRAIN = """
import sys, pathlib, joblib, pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder
folder, names = pathlib.Path(sys.argv[1]), sys.argv[2].split(",")
x, y = load_iris(return_X_y=True)
iris = LogisticRegression(max_iter=500).fit(x, y)
table = pd.DataFrame(x, columns=names)
table["garden"] = ["north" if i % 3 else "south" for i in range(len(x))]
mixed = make_pipeline(
    make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["garden"]),
                            remainder="passthrough"),
    LogisticRegression(max_iter=500),
).fit(table, ["setosa versicolor virginica".split()[k] for k in y])
"""
TRAIN_MLSERVER = """
for name, model in (("iris", iris), ("mixed", mixed)):
    (folder / name).mkdir()
    joblib.dump(model, folder / name / "model.joblib")
    (folder / name / "model-settings.json").write_text(
        '{"name": "%s", "implementation": "mlserver_sklearn.SKLearnModel", '
        '"parameters": {"uri": "./model.joblib", "version": "v1"}}' % name)
"""
TRAIN_MLFLOW = """
import mlflow
for name, model in (("iris", iris), ("mixed", mixed)):
    mlflow.sklearn.save_model(
        model, folder / name, serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        signature=mlflow.models.infer_signature(table) if name == "mixed" else None)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def environment(home: Path, bin_folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.sqlite",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@contextmanager
def server(argv: list[str], port: int, probe: str, cwd: Path, env: dict[str, str]) -> Iterator[int]:
    """Runs a server in a process group of its own until the block ends; gives its port."""
    log = cwd / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + READY_S
        while not is_ready(port, probe):
            if has_ended(process, within_s=0.3) or time.monotonic() > deadline:
                pytest.fail(f"{argv[0]} did not get ready:\n{log.read_text()[-3000:]}")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)


def has_ended(process: subprocess.Popen[bytes], *, within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def is_ready(port: int, probe: str) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", probe)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(port: int, path: str, body: bytes, headers: dict[str, str]) -> Exchange:
    """One POST over plain loopback, and the very bytes of both sides."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.time()
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    said = response.read()
    ended = time.time()
    connection.close()
    answered = {name.lower(): value for name, value in response.getheaders()}
    return Exchange(
        id="edge-1",
        minted=True,
        id_from="minted",
        source="proxy",
        version="v1",
        slot="stable",
        method="POST",
        path=path,
        query="",
        request_headers={name: headers[name] for name in KEPT_HEADERS if name in headers},
        request_body=body,
        request_truncated=False,
        status=response.status,
        response_headers={name: answered[name] for name in KEPT_HEADERS if name in answered},
        response_body=said,
        response_truncated=False,
        started_at=started,
        first_byte_s=None,
        duration_s=ended - started,
        outcome="ok",
        weight=1.0,
    )


def as_client(exchange: Exchange) -> Any:
    """What a client makes of the answer, by the standard library alone."""
    body = exchange.response_body
    if exchange.response_headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return json.loads(body)


def keep(server_name: str, form: str, exchange: Exchange, **expected: Any) -> None:
    if not os.environ.get("REMORA_WRITE_CAPTURES"):
        return
    kept = {
        "server": server_name,
        "path": exchange.path,
        "request_headers": dict(exchange.request_headers),
        "request_body": exchange.request_body.decode(),
        "status": exchange.status,
        "response_headers": dict(exchange.response_headers),
        "response_body_base64": base64.b64encode(exchange.response_body).decode(),
        "expected": expected,
    }
    name = f"{server_name.partition(' ')[0].lower()}_{form}.json"
    (CAPTURES / name).write_text(json.dumps(kept, indent=1) + "\n")


def tensor(name: str, shape: list[int], datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


FLAT = [cell for row in ROWS for cell in row]
PANDAS = [
    *(tensor(name, [3, 1], "FP64", [row[i] for row in ROWS]) for i, name in enumerate(NAMES)),
    tensor("garden", [3], "BYTES", ["north", "south", "north"], parameters={"content_type": "str"}),
]
MLSERVER_FORMS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "flat": ("iris", {"id": "req-1", "inputs": [tensor("predict", [3, 4], "FP64", FLAT)]}, {}),
    "nested": ("iris", {"inputs": [tensor("input-0", [3, 4], "FP32", ROWS)]}, {}),
    "two_outputs": (
        "iris",
        {
            "inputs": [tensor("x", [3, 4], "FP64", FLAT)],
            "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
        },
        {},
    ),
    "gzip": (
        "iris",
        {
            "inputs": [tensor("x", [60, 4], "FP64", FLAT * 20)],
            "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
        },
        {"accept-encoding": "gzip"},
    ),
    "pandas": ("mixed", {"parameters": {"content_type": "pd"}, "inputs": PANDAS}, {}),
}


def test_mlserver(tmp_path: Path, server_environment: Callable[[str], Path]) -> None:
    bin_folder = server_environment("mlserver")
    env = environment(tmp_path, bin_folder)
    train(bin_folder, TRAIN + TRAIN_MLSERVER, tmp_path, env)
    port = free_port()
    (tmp_path / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": port,
                "grpc_port": free_port(),
                "metrics_port": free_port(),
                "parallel_workers": 0,
            }
        )
    )
    argv = [str(bin_folder / "mlserver"), "start", "."]
    decoding = Decoding(decoders(AUTO, DecoderSettings()), agreeing=3)
    with server(argv, port, "/v2/health/ready", tmp_path, env):
        for form, (model, body, headers) in MLSERVER_FORMS.items():
            headers = {"content-type": "application/json", **headers}
            exchange = ask(port, f"/v2/models/{model}/infer", json.dumps(body).encode(), headers)
            assert exchange.status == 200, exchange.response_body
            seen = as_client(exchange)
            inference = decoding.decode(exchange)
            rows = 60 if form == "gzip" else 3
            assert len(inference.rows) == rows
            assert inference.id == body.get("id", seen["id"])
            for output in seen["outputs"]:
                entries = inference.outputs[output["name"]]
                assert np.array(entries).reshape(-1).tolist() == output["data"]
            if form == "pandas":
                assert inference.names == (*NAMES, "garden")
                assert [row[4] for row in inference.rows] == ["north", "south", "north"]
            else:
                np.testing.assert_array_equal(inference.rows, ROWS * (rows // 3))
            keep("MLServer 1.7.1", form, exchange, rows=rows, outputs=dict(inference.outputs))
    assert decoding.detected == {"/v2/models/iris/infer": "open_inference"}


def mlflow_forms() -> dict[str, tuple[str, bytes, str]]:
    gardens = ["north", 'so"uth, old', "north"]
    mixed = [[*row, garden] for row, garden in zip(ROWS, gardens, strict=True)]
    names = [*NAMES, "garden"]
    records = [dict(zip(names, row, strict=True)) for row in mixed]
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    quoted = ['"' + garden.replace('"', '""') + '"' for garden in gardens]
    lines = [",".join([*map(str, row), cell]) for row, cell in zip(ROWS, quoted, strict=True)]
    csv = "\r\n".join([",".join(names), *lines])
    json_type = "application/json"
    split = {"columns": names, "index": [7, 8, 9], "data": mixed}
    return {
        "split": ("mixed", json.dumps({"dataframe_split": split}).encode(), json_type),
        "records": ("mixed", json.dumps({"dataframe_records": records}).encode(), json_type),
        "csv": ("mixed", csv.encode(), "text/csv"),
        "instances": ("iris", json.dumps({"instances": ROWS}).encode(), json_type),
        "inputs": ("iris", json.dumps({"inputs": ROWS, "params": {}}).encode(), json_type),
        "inputs_by_name": ("mixed", json.dumps(
            {"inputs": {**columns, "garden": gardens}}).encode(), json_type),
    }  # fmt: skip


@pytest.mark.parametrize("model", ["iris", "mixed"])
def test_mlflow(model: str, tmp_path: Path, server_environment: Callable[[str], Path]) -> None:
    bin_folder = server_environment("mlflow")
    env = environment(tmp_path, bin_folder)
    train(bin_folder, TRAIN + TRAIN_MLFLOW, tmp_path, env)
    port = free_port()
    argv = [str(bin_folder / "mlflow"), "models", "serve", "-m", str(tmp_path / model)]
    argv += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    decoding = Decoding(decoders(AUTO, DecoderSettings()), agreeing=2)
    forms = {name: form for name, form in mlflow_forms().items() if form[0] == model}
    with server(argv, port, "/ping", tmp_path, env):
        for form, (_, body, content_type) in forms.items():
            exchange = ask(port, "/invocations", body, {"content-type": content_type})
            assert exchange.status == 200, exchange.response_body
            inference = decoding.decode(exchange)
            assert list(inference.outputs["predictions"]) == as_client(exchange)["predictions"]
            cells = [list(row)[:4] for row in inference.rows]
            assert cells == ROWS
            if model == "mixed":
                assert inference.names == (*NAMES, "garden")
                assert [row[4] for row in inference.rows] == ["north", 'so"uth, old', "north"]
            keep("MLflow 3", form, exchange, rows=3, outputs=dict(inference.outputs))
    assert decoding.detected == {"/invocations": "mlflow"}


def train(bin_folder: Path, program: str, folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        [bin_folder / "python", "-c", program, folder, ",".join(NAMES)],
        capture_output=True, text=True, timeout=200, env=env, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
