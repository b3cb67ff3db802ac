"""MLServer and MLflow behind a real edge: what their clients saw is what is decoded."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.decoders.catalog import AUTO, decoders
from agent.decoders.decoder import DecoderSettings
from agent.decoders.detection import Decoding
from tests.e2e.serving import environment, free_port, keep, run_program, served, tensor

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

NAMES = ["sepal length", "sepal width", "petal length", "petal width"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [7.2, 3.0, 5.8, 1.6]]

TRAIN = """
import sys, pathlib, joblib, pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import OneHotEncoder
folder = pathlib.Path(sys.argv[1])
names = ["sepal length", "sepal width", "petal length", "petal width"]
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


async def test_mlserver(tmp_path: Path, server_environment: Callable[[str], Path]) -> None:
    bin_folder = server_environment("mlserver")
    env = environment(tmp_path, bin_folder)
    await asyncio.to_thread(run_program, bin_folder, TRAIN + TRAIN_MLSERVER, tmp_path, env)
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
    async with served(argv, port, "/v2/health/ready", tmp_path, env) as edge:
        for form, (model, body, headers) in MLSERVER_FORMS.items():
            headers = {"content-type": "application/json", **headers}
            path = f"/v2/models/{model}/infer"
            answer, exchange = await edge.ask(path, json.dumps(body).encode(), headers)
            assert exchange.status == 200, exchange.response_body
            seen = answer.json()
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


async def test_mlflow(tmp_path: Path, server_environment: Callable[[str], Path]) -> None:
    bin_folder = server_environment("mlflow")
    env = environment(tmp_path, bin_folder)
    await asyncio.to_thread(run_program, bin_folder, TRAIN + TRAIN_MLFLOW, tmp_path, env)
    await asyncio.gather(
        *(mlflow_serves(model, bin_folder, tmp_path, env) for model in ("iris", "mixed"))
    )


async def mlflow_serves(model: str, bin_folder: Path, folder: Path, env: dict[str, str]) -> None:
    port = free_port()
    home = folder / f"serves-{model}"
    home.mkdir()
    argv = [str(bin_folder / "mlflow"), "models", "serve", "-m", str(folder / model)]
    argv += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    decoding = Decoding(decoders(AUTO, DecoderSettings()), agreeing=2)
    forms = {name: form for name, form in mlflow_forms().items() if form[0] == model}
    async with served(argv, port, "/ping", home, env) as edge:
        for form, (_, body, content_type) in forms.items():
            answer, exchange = await edge.ask("/invocations", body, {"content-type": content_type})
            assert exchange.status == 200, exchange.response_body
            inference = decoding.decode(exchange)
            assert list(inference.outputs["predictions"]) == answer.json()["predictions"]
            cells = [list(row)[:4] for row in inference.rows]
            assert cells == ROWS
            if model == "mixed":
                assert inference.names == (*NAMES, "garden")
                assert [row[4] for row in inference.rows] == ["north", 'so"uth, old', "north"]
            keep("MLflow 3", form, exchange, rows=3, outputs=dict(inference.outputs))
    assert decoding.detected == {"/invocations": "mlflow"}
