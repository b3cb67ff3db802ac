"""MLServer and MLflow behind a running agent: answers byte for byte, rows counted, drift found."""

import asyncio
import http.client
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import Agent, free_ports, until
from tests.e2e.serving import environment, run_program, server, tensor
from tests.e2e.test_real_servers_decode import NAMES, TRAIN, TRAIN_MLFLOW, TRAIN_MLSERVER

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

ROWS = 20
JSON = {"content-type": "application/json", "x-request-id": "same-for-both"}


def table(rng: random.Random, *, shift: float) -> list[list[float]]:
    """Rows much like Iris; the first column moves by `shift`."""
    means = (5.8, 3.0, 3.7, 1.2)
    return [
        [round(rng.gauss(mean, 0.6) + (shift if i == 0 else 0), 3) for i, mean in enumerate(means)]
        for _ in range(ROWS)
    ]


def mlserver_body(rows: list[list[float]]) -> bytes:
    flat = [cell for row in rows for cell in row]
    return json.dumps({"id": "1", "inputs": [tensor("x", [ROWS, 4], "FP64", flat)]}).encode()


def mlflow_body(rows: list[list[float]]) -> bytes:
    return json.dumps({"dataframe_split": {"columns": NAMES, "data": rows}}).encode()


def post(port: int, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, JSON)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()
    finally:
        connection.close()


async def watched(
    agent: Agent, port: int, path: str, body: Callable[[list[list[float]]], bytes], protocol: str
) -> None:
    """The same through the edge and without it, then rows enough to learn from, then a shift."""
    await agent.start()
    rng = random.Random(11)
    asked = body(table(rng, shift=0.0))
    plain = await asyncio.to_thread(post, port, path, asked)
    relayed = await asyncio.to_thread(post, agent.port, path, asked)
    assert plain[0] == relayed[0] == 200, plain[2]
    assert relayed[2] == plain[2]
    added = {"x-remora-request-id", "x-remora-version"}
    assert set(relayed[1]) - added == set(plain[1])
    assert relayed[1]["content-type"] == plain[1]["content-type"]

    async def send(shift: float, seen: Callable[[], Any], what: str) -> None:
        for _ in range(600):
            status, _, _ = await asyncio.to_thread(
                post, agent.port, path, body(table(rng, shift=shift))
            )
            assert status == 200
            if await seen():
                return
        pytest.fail(what)

    async def learnt() -> bool:
        return bool((await agent.status() or {}).get("reference"))

    await send(0.0, learnt, "no reference was learnt")
    status = await agent.status()
    assert status is not None
    assert status["protocol"] == {path: protocol}
    assert status["rows_total"] >= 400
    assert (await agent.metrics()).sum("remora_rows_total") >= 400

    async def drifted() -> bool:
        findings = (await agent.get("/api/v1/findings")).json()["findings"]
        return any(f["state"] == "drift" and f["kind"] == "data_drift" for f in findings)

    await send(4.0, drifted, "drift was not found")
    features = (await agent.get("/api/v1/features")).json()["features"]
    moved = max((f for f in features if f["kind"] != "prediction"), key=lambda f: float(f["psi"]))
    assert moved["name"] in (NAMES[0], "f0")  # tensors of several columns have no names


def settings(agent: Callable[..., Agent], port: int) -> Agent:
    made = agent(
        reference={"learn_rows": 400, "provisional_rows": 100},
        detect={"tick_rows": 100, "tick_s": 2},
    )
    made.config["sources"][0]["upstream"] = f"http://127.0.0.1:{port}"
    return made


async def test_mlserver(
    tmp_path: Path,
    server_environment: Callable[[str], Path],
    new_agent: Callable[..., Agent],
) -> None:
    bin_folder = server_environment("mlserver")
    home = tmp_path / "server"
    home.mkdir()
    env = environment(home, bin_folder)
    await asyncio.to_thread(run_program, bin_folder, TRAIN + TRAIN_MLSERVER, home, env)
    port, grpc, metrics = free_ports(3)
    ports = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    text = json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports})
    (home / "settings.json").write_text(text)
    argv = [str(bin_folder / "mlserver"), "start", "."]
    with server(argv, port, "/v2/health/ready", home, env):
        agent = settings(new_agent, port)
        path = "/v2/models/iris/infer"
        await watched(agent, port, path, mlserver_body, "open_inference")


async def test_mlflow(
    tmp_path: Path,
    server_environment: Callable[[str], Path],
    new_agent: Callable[..., Agent],
) -> None:
    bin_folder = server_environment("mlflow")
    home = tmp_path / "server"
    home.mkdir()
    env = environment(home, bin_folder)
    await asyncio.to_thread(run_program, bin_folder, TRAIN + TRAIN_MLFLOW, home, env)
    (port,) = free_ports(1)
    argv = [str(bin_folder / "mlflow"), "models", "serve", "-m", str(home / "iris")]
    argv += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    with server(argv, port, "/ping", home, env):
        agent = settings(new_agent, port)
        await watched(agent, port, "/invocations", mlflow_body, "mlflow")
        await until(agent.status, "status")
