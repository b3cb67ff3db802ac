"""Agents with other sources than a TCP proxy: which processes there are, and what they say."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import Agent, answer, ask, free_ports, request, until
from tests.e2e.model import Model

pytestmark = pytest.mark.real

NewAgent = Callable[..., Agent]
BODY = b'{"instances": [[1, 2, 3]]}'


def fed_by(new_agent: NewAgent, *sources: dict[str, Any]) -> Agent:
    agent = new_agent(sources=list(sources))
    agent.config["model"] = {"name": "m", "version": "7"}
    return agent


async def test_without_a_proxy_there_is_no_edge_and_all_else_is_ordinary(
    new_agent: NewAgent, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    agent = fed_by(
        new_agent,
        {"kind": "push", "listen": f"127.0.0.1:{port}"},
        {"kind": "tail", "path": str(tmp_path / "*.log"), "format": "json_lines"},
    )
    await agent.start()
    assert (agent.pids("edge"), len(agent.pids("analysis"))) == ([], 1)
    assert await agent.probe("/healthz") == (200, {"analysis": "up"})
    status = await agent.status()
    assert status is not None
    assert status["stable"]["version"] == "7"
    assert status["stable"]["address"] is None
    assert [source["kind"] for source in status["sources"]] == ["push", "tail"]
    assert {"supervisor", "analysis"} == status["processes"].keys()

    async def looked() -> bool:
        return "resources.port" in (await agent.status() or {})["absent"].get("server", "")

    await until(looked, "the server's figures are absent, with the mend")
    # The listener is the supervisor's: who connects now waits, and is not refused.
    old = agent.signal("analysis", signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", port)):
        assert (await agent.probe("/healthz"))[0] == 200
    await agent.restarted("analysis", old)
    await agent.ready()
    refused = await agent.post("/api/v1/rollouts", {"candidate": "sha256:" + "a" * 64})
    assert refused.status_code == 404
    assert await agent.stop() == 0


async def test_a_tap_that_may_not_costs_nothing_but_itself(
    new_agent: NewAgent, model: Model
) -> None:
    agent = new_agent()
    agent.config["sources"].append({"kind": "tap", "interface": "none0", "port": 1})
    await agent.start()

    async def refused() -> Any:
        status = await agent.status() or {}
        found = {source["kind"]: source for source in status["sources"]}
        return found if found["tap"]["state"] == "refused" else None

    sources = await until(refused, "the tap has said why not")
    assert "none0" in sources["tap"]["reason"]
    assert sources["proxy"]["state"] == "runs"
    code, body = await agent.probe("/readyz")
    assert (code, body["tap"]) == (200, "down")
    assert "none0" in body["tap_error"]
    assert (await ask(agent.port, BODY))[0] == 200
    # It is not started again and again over what starting does not mend.
    assert (await agent.metrics()).sum("remora_agent_restarts_total", process="tap") == 0
    assert await agent.stop() == 0


async def test_a_tap_alone_watches_what_is_asked_elsewhere(
    new_agent: NewAgent, model: Model
) -> None:
    agent = fed_by(new_agent, {"kind": "tap", "port": model.port})
    agent.launch()

    async def state() -> Any:
        status = await agent.status()
        source = status["sources"][0] if status else {"state": "starts"}
        return source if source["state"] != "starts" else None

    source = await until(state, "the tap is up or says why not")
    if source["state"] == "refused":
        pytest.skip(source["reason"])  # a capability that this machine does not give
    await agent.ready()
    (tap,) = agent.pids("tap")
    for _ in range(20):
        assert (await ask(model.port, BODY))[0] == 200

    async def counted() -> bool:
        metrics = await agent.metrics()
        rows = metrics.sum("remora_rows_total")
        asked = metrics.sum("remora_requests_total", version="7", code="2xx")
        whole = metrics.sum("remora_capture_completeness_ratio", source="tap")
        return rows >= 10 and asked >= 10 and whole > 0.5

    async def seen() -> bool:
        assert (await ask(model.port, BODY))[0] == 200
        return await counted()

    await until(seen, "what was asked of the model is counted and decoded")
    before = (await agent.metrics()).sum("remora_requests_total")
    os.kill(tap, signal.SIGKILL)
    await agent.restarted("tap", tap)
    await until(seen, "it goes on")
    assert (await agent.metrics()).sum("remora_requests_total") >= before
    assert await agent.stop() == 0
    assert agent.alive() == []


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(request(None, BODY))
    try:
        return (await asyncio.wait_for(answer(reader), 20.0))[0]
    finally:
        writer.close()


async def test_unix_sockets_on_every_side(new_agent: NewAgent, tmp_path: Path) -> None:
    here = tmp_path / "sockets"
    here.mkdir()
    model = Model()
    server = await asyncio.start_unix_server(model._serve, str(here / "model.sock"))
    agent = fed_by(
        new_agent,
        {
            "kind": "proxy",
            "listen": f"unix:{here}/door.sock",
            "upstream": f"unix:{here}/model.sock",
            "workers": 2,
        },
    )

    async def asked() -> int:
        return await converse(*await asyncio.open_unix_connection(str(here / "door.sock")))

    for _ in range(2):  # the second time the path is there already
        await agent.start()
        assert await asked() == 200
        old = agent.signal("edge", signal.SIGKILL)
        assert await asked() == 200  # nobody took the path away with it
        await agent.restarted("edge", old)
        assert await agent.stop() == 0
    server.close()


async def test_ipv6_on_every_side(new_agent: NewAgent) -> None:
    model = Model()
    server = await asyncio.start_server(model._serve, "::1", 0)
    upstream = server.sockets[0].getsockname()[1]
    agent = fed_by(new_agent)
    agent.config["sources"] = [
        {
            "kind": "proxy",
            "listen": f"[::1]:{agent.port}",
            "upstream": f"http://[::1]:{upstream}",
        }
    ]
    await agent.start()
    assert await converse(*await asyncio.open_connection("::1", agent.port)) == 200
    status = await agent.status()
    assert status is not None
    assert status["stable"]["address"] == f"[::1]:{upstream}"
    server.close()
