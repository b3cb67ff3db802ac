"""gRPC through a whole agent: a real server, real clients, and what metrics and status say."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.decoders.protos import infer_tensor, proto
from tests.e2e.grpc_server import BIG
from tests.e2e.house import Agent, free_ports, until

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
INFER = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = [("grpc.max_receive_message_length", 2 * BIG)]


@pytest.fixture
def grpc_port() -> Iterator[int]:
    (port,) = free_ports(1)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.grpc_server", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n"
    yield port
    server.terminate()
    server.wait(20)
    server.stdout.close()


@pytest.fixture
async def agent(new_agent: Callable[..., Agent], grpc_port: int) -> Agent:
    """With a door for gRPC; its port is `agent.config["grpc_port"]`, see `door`."""
    made = new_agent()
    (listen,) = free_ports(1)
    made.config["sources"][0]["grpc"] = {
        "listen": f"127.0.0.1:{listen}",
        "upstream": f"http://127.0.0.1:{grpc_port}",
    }
    made.config["detect"] = {"tick_s": 1}
    await made.start()
    return made


def door(agent: Agent) -> str:
    return str(agent.config["sources"][0]["grpc"]["listen"])


def rows(turn: int) -> Any:
    raw = np.array([[turn % 7 - 3, turn % 5], [1, -turn % 3]], dtype="<f4")
    return proto(
        "inference.ModelInferRequest",
        model_name="m",
        inputs=[infer_tensor("x", "FP32", [2, 2])],
        raw_input_contents=[raw.tobytes()],
    ).SerializeToString()


def status_of(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def every_kind(address: str) -> None:
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        echo = channel.unary_unary("/test.Calls/Echo")
        assert echo(b"x" * BIG) == b"x" * BIG
        assert echo(b"packed" * 99, compression=grpc.Compression.Gzip) == b"packed" * 99
        assert len(list(channel.unary_stream("/test.Calls/Several")(b"x"))) == 5
        said = channel.stream_stream("/test.Calls/Talk")(iter([b"a", b"b", b"c"]))
        assert list(said) == [b"a", b"b", b"c"]
        assert status_of(lambda: channel.unary_unary("/test.Calls/Refuse")(b"")) == (
            "INVALID_ARGUMENT"
        )
        assert status_of(lambda: channel.unary_unary("/test.Calls/None")(b"")) == "UNIMPLEMENTED"
        wait = channel.unary_unary("/test.Calls/Wait")
        assert status_of(lambda: wait(b"", timeout=0.2)) == "DEADLINE_EXCEEDED"
        waiting = wait.future(b"")
        echo(b"x")  # on the same connection, so the other has reached the server before it
        waiting.cancel()
        together = [echo.future(b"x" * size) for size in range(200)]
        assert [len(call.result()) for call in together] == list(range(200))


async def test_calls_of_every_kind_pass_and_are_counted(agent: Agent) -> None:
    await asyncio.to_thread(every_kind, door(agent))

    async def counted() -> bool:
        metrics = await agent.metrics()
        return metrics.sum("remora_grpc_calls_total") >= 209

    await until(counted, "all calls counted")
    metrics = await agent.metrics()
    by_status = {
        status: metrics.sum("remora_grpc_calls_total", grpc_status=status)
        for status in ("OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "CANCELLED")
    }
    assert by_status == {
        "OK": 205, "INVALID_ARGUMENT": 1, "UNIMPLEMENTED": 1, "DEADLINE_EXCEEDED": 1,
        "CANCELLED": 1,
    }  # fmt: skip
    assert metrics.sum("remora_grpc_calls_total", method="test.Calls/Echo") == 203
    assert metrics.sum("remora_grpc_calls_total", method="other") == 1
    codes = {
        code: metrics.sum("remora_requests_total", route="grpc", code=code)
        for code in ("2xx", "4xx", "5xx", "client_disconnect", "timeout")
    }
    assert codes == {"2xx": 205, "4xx": 1, "5xx": 1, "client_disconnect": 1, "timeout": 1}
    assert metrics.sum("remora_request_duration_seconds_count", route="grpc") == 209
    await until(lambda: flown(agent), "nothing in flight")


async def flown(agent: Agent) -> bool:
    return (await agent.metrics()).sum("remora_requests_in_flight") == 0


async def test_predictions_become_rows(agent: Agent) -> None:
    def ask() -> None:
        with grpc.insecure_channel(door(agent)) as channel:
            infer = channel.unary_unary(INFER)
            for turn in range(300):
                infer(rows(turn), metadata=[("x-request-id", f"call-{turn}")])

    await asyncio.to_thread(ask)

    async def decoded() -> bool:
        return (await agent.metrics()).sum("remora_rows_total") == 600

    await until(decoded, "600 rows")
    status = await agent.status()
    assert status is not None
    assert status["protocol"] == {INFER: "open_inference_grpc"}
    labels = [{"request_id": "call-7", "row": 1, "label": 1}]
    answer = await agent.post("/api/v1/labels", labels)
    assert answer.status_code == 200
    assert answer.json()["pending"] + answer.json()["joined"] == 1


async def test_a_server_of_both_kinds_needs_one_door_only(
    new_agent: Callable[..., Agent], grpc_port: int
) -> None:
    agent = new_agent()
    agent.config["sources"][0]["upstream"] = f"http://127.0.0.1:{grpc_port}"
    await agent.start()

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{agent.port}") as channel:
            assert channel.unary_unary("/test.Calls/Echo")(b"x") == b"x"

    await asyncio.to_thread(ask)

    async def counted() -> bool:
        return (await agent.metrics()).sum("remora_grpc_calls_total", grpc_status="OK") == 1

    await until(counted, "the call counted")


async def test_no_call_fails_while_analysis_dies_and_the_edge_stops(agent: Agent) -> None:
    """Calls go on when analysis is killed; at the end the client is told to go, none is cut."""
    stop = asyncio.Event()
    failures: list[str] = []
    calls = 0

    async def load() -> None:
        nonlocal calls
        async with grpc.aio.insecure_channel(door(agent)) as channel:
            infer = channel.unary_unary(INFER)
            while not stop.is_set():
                try:
                    await infer(rows(calls), timeout=20)
                    calls += 1
                except grpc.RpcError as error:
                    failures.append(str(error))

    loading = asyncio.create_task(load())
    await until(lambda: calls > 50, "calls")
    pid = agent.signal("analysis", signal.SIGKILL)
    await agent.restarted("analysis", pid)
    before = calls
    await until(lambda: calls > before + 50, "calls while analysis is away")
    await agent.ready()
    assert not failures
    stop.set()
    await loading
    assert await agent.stop() == 0


async def test_h2load_finds_no_failure(agent: Agent, program: Callable[[str], Path]) -> None:
    body = agent.directory / "body"
    request = rows(1)
    body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    done = await asyncio.to_thread(
        subprocess.run,
        [
            str(program("h2load")), "-n", "3000", "-c", "8", "-m", "16", "-d", str(body),
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://{door(agent)}{INFER}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "3000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout

    async def counted() -> bool:
        metrics = await agent.metrics()
        return metrics.sum("remora_grpc_calls_total", grpc_status="OK") == 3_000

    await until(counted, "3,000 calls counted")
    drops = (await agent.metrics()).sum("remora_dropped_total", reason="http2_headers_lost")
    assert drops == 0
