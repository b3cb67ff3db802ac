"""Real model servers, and a real edge process in front of them, whose captures are decoded.

Servers run in process groups of their own and are ended by their pid. With
`REMORA_WRITE_CAPTURES=1` the exchanges are written to `tests/captures`, from where the quick tests
replay them.
"""

import asyncio
import base64
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.decoders.body import BINARY_TENSORS_HEADER
from agent.exchange import Exchange
from tests.edge.house import Analysis, House
from tests.edge.test_process import Process, started

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "tests" / "captures"
READY_S = 120.0
KEPT_HEADERS = ("content-type", "content-encoding", BINARY_TENSORS_HEADER)


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
        if not has_ended(process, within_s=15):
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


class Front:
    """An edge process in front of one server, and the analysis that it ships exchanges to."""

    def __init__(self, port: int, analysis: Analysis) -> None:
        self.port = port
        self._analysis = analysis

    async def ask(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple["Answer", Exchange]:
        """One POST through the edge: what the client saw, and what the edge captured of it."""
        answer = await asyncio.to_thread(post, self.port, path, body, headers)
        return answer, await self._analysis.exchange()


class Answer:
    """What a client saw, read by the standard library alone."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body

    def json(self) -> Any:
        """The JSON of the answer, without the tensors that may come after it."""
        length = int(self.headers.get(BINARY_TENSORS_HEADER, len(self.body)))
        return json.loads(self.body[:length])


def post(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, dict(headers))
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, answered, response.read())
    finally:
        connection.close()


@asynccontextmanager
async def front(port: int) -> AsyncIterator[Front]:
    """A real edge process in front of the server at `port`; every exchange is kept."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agent.edge", "remora-edge", "--control-fd", str(theirs.fileno())),
        pass_fds=(theirs.fileno(),),
        cwd=ROOT,
    )
    theirs.close()
    house = House()
    analysis = await started(
        Process(child, ours), house, f"127.0.0.1:{port}", sampling_rate=1.0, flush_s=0.001
    )
    try:
        yield Front(house.port, analysis)
    finally:
        ours.close()  # its supervisor is gone: it ends
        await asyncio.wait_for(child.wait(), 15)
        await analysis.close()


@asynccontextmanager
async def served(
    argv: list[str], port: int, probe: str, home: Path, env: dict[str, str]
) -> AsyncIterator[Front]:
    """A server that works in `home`, and an edge in front of it, until the block ends."""
    async with AsyncExitStack() as stack:
        starting = partial(server, argv, port, probe, home, env)
        await asyncio.to_thread(lambda: stack.enter_context(starting()))
        yield await stack.enter_async_context(front(port))


def keep(server_name: str, form: str, exchange: Exchange, **expected: Any) -> None:
    """Write the exchange to the captures, when the environment asks for it."""
    if not os.environ.get("REMORA_WRITE_CAPTURES"):
        return
    kept = {
        "server": server_name,
        "path": exchange.path,
        "request_headers": _kept(exchange.request_headers),
        **_body(exchange.request_body),
        "status": exchange.status,
        "response_headers": _kept(exchange.response_headers),
        "response_body_base64": base64.b64encode(exchange.response_body).decode(),
        "expected": expected,
    }
    name = f"{server_name.partition(' ')[0].lower()}_{form}.json"
    (CAPTURES / name).write_text(json.dumps(kept, indent=1) + "\n")


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in KEPT_HEADERS if name in headers}


def _body(body: bytes) -> dict[str, str]:
    """As text where it is text, so that a capture can be read."""
    try:
        return {"request_body": body.decode()}
    except UnicodeDecodeError:
        return {"request_body_base64": base64.b64encode(body).decode()}


def tensor(name: str, shape: list[int], datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def raw_tensor(name: str, shape: list[int], datatype: str, raw: bytes) -> dict[str, Any]:
    parameters = {"binary_data_size": len(raw)}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters}


def run_program(bin_folder: Path, program: str, folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        [bin_folder / "python", "-c", program, folder], capture_output=True, text=True,
        timeout=200, env=env, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
